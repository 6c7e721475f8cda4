"""How the tests call the server and the command line, and what they take for an answer."""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bpe_openai import get_encoding
from mcp import Client
from mcp.types import TextContent

SCRIPT = str(Path(sys.executable).with_name("bioelx-mcp"))  # as it was installed


@cache
def _o200k() -> Any:
    return get_encoding("o200k_base")


def tokens(text: str) -> int:
    """How many tokens of o200k_base a text has."""
    return len(_o200k().encode(text))


def compact(value: Any) -> str:
    """JSON without spaces, as clients show it to their models."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def ask(client: Client, tool: str, **arguments: Any) -> tuple[str, Any]:
    """The text of a good answer, and its structured content."""
    result = await client.call_tool(tool, arguments)
    (block,) = result.content
    assert isinstance(block, TextContent) and not result.is_error, block
    return block.text, result.structured_content


async def complaint(client: Client, tool: str, **arguments: Any) -> str:
    """The text of an answer that is an error."""
    result = await client.call_tool(tool, arguments)
    (block,) = result.content
    assert isinstance(block, TextContent) and result.is_error, block
    return block.text


class Result(NamedTuple):
    """How a command ended; `rows` are its tab-separated lines, `lines` its JSON lines."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Result]


def fails(result: Result, code: int, *parts: str) -> None:
    """Exit status `code`, nothing on stdout, one line of ours on stderr that holds the parts."""
    assert (result.code, result.out) == (code, "")
    ours = [line for line in result.err.splitlines() if line.startswith("bioelx-mcp: ")]
    assert len(ours) == 1 and result.err.endswith(ours[0] + "\n")
    assert "Traceback" not in result.err
    assert all(part in ours[0] for part in parts), ours[0]
