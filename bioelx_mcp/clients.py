"""How each agent client is told of this server."""

import json
import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class Client(StrEnum):
    """Agent clients whose configuration can be printed."""

    claude_desktop = "claude-desktop"
    claude_code = "claude-code"
    cursor = "cursor"
    vscode = "vscode"
    codex = "codex"


def client_block(client: Client, command: str, arguments: Sequence[str]) -> str:
    """What to paste or run: JSON, TOML or a command, as the client wants it."""
    if client is Client.claude_code:
        return f"claude mcp add bioelx-mcp -- {shlex.join([command, *arguments])}"
    if client is Client.codex:  # TOML knows no surrogate pairs
        lines = {"command": command, "args": list(arguments)}
        told = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items()]
        return "\n".join(["[mcp_servers.bioelx-mcp]", *told])
    entry: dict[str, Any] = {"command": command, "args": list(arguments)}
    if client is Client.vscode:
        entry = {"type": "stdio", **entry}
    key = "servers" if client is Client.vscode else "mcpServers"
    return json.dumps({key: {"bioelx-mcp": entry}}, indent=2, ensure_ascii=False)
