"""What the MCP SDK (2.3) leaves to the author: strict arguments, lean schemas, errors a model can act on."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bioelx_mcp.serving.observe import note

# What models write instead; understood, not published. The true name wins.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "mentions": ("mention", "queries", "query", "terms", "texts"),
    "limit": ("top_k", "k", "n", "max_results"),
    "ids": ("id", "curies", "curie"),
}
LISTS = ("mentions", "ids")  # a bare string there is a list of one


def strict_tool(function: Callable[..., Any], **options: Any) -> Tool:
    """A tool that rejects unknown arguments and publishes schemas without titles.

    The SDK validates with `extra="ignore"` (python-sdk#3067): a misspelt argument would be dropped silently.
    """
    tool = Tool.from_function(function, **options)
    base = tool.fn_metadata.arg_model

    def forgive(cls: type[BaseModel], data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for name, others in SYNONYMS.items():
            if name in cls.model_fields and name not in data:
                given = next((other for other in others if other in data), None)
                if given is not None:
                    data[name] = data.pop(given)
        for name in LISTS:
            if isinstance(data.get(name), str):
                data[name] = [data[name]]
        return data

    namespace = {
        "__module__": __name__,
        "model_config": ConfigDict(extra="forbid"),
        "_forgive": model_validator(mode="before")(classmethod(forgive)),  # type: ignore[arg-type]
    }
    tool.fn_metadata.arg_model = type(base.__name__, (base,), namespace)
    tool.parameters = _lean(tool.fn_metadata.arg_model.model_json_schema(by_alias=True))
    if tool.fn_metadata.output_schema is not None:
        tool.fn_metadata.output_schema = _lean(tool.fn_metadata.output_schema)
    return tool


def _lean(node: Any) -> Any:
    """The schema without pydantic's titles."""
    if isinstance(node, list):
        return [_lean(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _lean(schema) for name, schema in value.items()}
        if key in ("properties", "$defs")
        else _lean(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }


def explain(tool: str, error: ValidationError, schema: Mapping[str, Any]) -> str:
    """One line for each bad argument, with a did-you-mean and the names valid at its level."""
    lines = []
    nested = [
        name for part in schema.get("$defs", {}).values() for name in part.get("properties", ())
    ]
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = nested if len(problem["loc"]) > 1 else list(schema["properties"])
            hint = _hint(str(problem["loc"][-1]), known)
            lines.append(f"unknown argument {where!a:.80}{hint}; valid: {', '.join(known)}")
        elif problem["type"] == "missing":
            lines.append(f"missing argument {where!r}")
        else:
            message = problem["msg"]
            lines.append(
                f"{where}: {message[:1].lower()}{message[1:]} (got {problem['input']!a:.60})"
            )
    return f"{tool}: invalid arguments\n- " + "\n- ".join(lines)


def _hint(wrong: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wrong[:80], known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


class StrictServer(MCPServer[Any]):
    """MCPServer with plain error texts and a time limit; every `tools/call` goes through the public `call_tool`."""

    time_limit = math.inf  # seconds for one call; acts between chunks of work

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any] | None = None
    ) -> Any:
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            known = ", ".join(tool.name for tool in self._tool_manager.list_tools())
            raise MCPError(-32602, f"Unknown tool: {name!a:.80}; there are: {known}")
        with anyio.move_on_after(self.time_limit):
            return await self._call(tool, arguments, context)
        note("timeout")
        raise ToolError(
            f"{name} took longer than {self.time_limit:g} s and was stopped: ask about less in one call, "
            "or raise BIOELX_TIME_LIMIT"
        )

    async def _call(
        self, tool: Tool, arguments: dict[str, Any], context: Context[Any] | None
    ) -> Any:
        try:
            return await super().call_tool(tool.name, arguments, context)
        except UnexpectedToolError:
            note("crash")
            raise  # the SDK logs the traceback and tells the client the tool's name only
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                raise ToolError(explain(tool.name, cause, tool.parameters)) from cause
            if isinstance(cause, ToolError):
                raise ToolError(
                    str(cause)
                ) from cause  # without the SDK's "Error executing tool ...: "
            raise
