"""The server of the product with the tools, resources and prompts that the conformance suite calls by name.

    python tests/conformance/fixtures.py INDEX PORT

What a read-only linker does not do (sampling, elicitation, logging, subscriptions, tasks) has no fixture here;
the scenarios that ask for it stand in the files of expected failures.
"""

import base64
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from bioelx_mcp.server import build_server
from bioelx_mcp.serving import http
from bioelx_mcp.serving.logs import set_up_logging
from bioelx_mcp.settings import load_settings

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = base64.b64encode(
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0"
)
SCHEMA: dict[str, Any] = {  # keywords that a listing must not lose
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
IMAGE = ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, text=text, mime_type=mime_type)
    return EmbeddedResource(type="resource", resource=contents)


def result(*blocks: ContentBlock) -> CallToolResult:
    return CallToolResult(content=list(blocks))


def add_fixtures(server: MCPServer[Any]) -> None:
    """What the suite looks for, by its names."""

    @server.tool()
    def test_simple_text() -> CallToolResult:
        """A line of text."""
        return result(TextContent(type="text", text="This is a simple text response for testing."))

    @server.tool()
    def test_image_content() -> CallToolResult:
        """One pixel."""
        return result(IMAGE)

    @server.tool()
    def test_audio_content() -> CallToolResult:
        """An empty sound."""
        return result(AudioContent(type="audio", data=WAV.decode(), mime_type="audio/wav"))

    @server.tool()
    def test_embedded_resource() -> CallToolResult:
        """A resource within a result."""
        return result(embedded("test://embedded-resource", "This is an embedded resource content."))

    @server.tool()
    def test_multiple_content_types() -> CallToolResult:
        """Text, image and resource."""
        data = embedded("test://mixed-content-resource", '{"test":"data"}', "application/json")
        return result(TextContent(type="text", text="Multiple content types test:"), IMAGE, data)

    @server.tool()
    async def test_tool_with_progress(ctx: Context[Any]) -> CallToolResult:
        """Three notifications."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
        return result(TextContent(type="text", text="done"))

    @server.tool()
    def test_error_handling() -> CallToolResult:
        """An error."""
        raise ToolError("This tool intentionally returns an error for testing")

    tool = Tool.from_function(
        lambda: result(), name="json_schema_2020_12_tool", description="A schema."
    )
    tool.parameters = SCHEMA
    server._tool_manager._tools[tool.name] = tool

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """Text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """Bytes."""
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> dict[str, Any]:
        """By a parameter."""
        return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}

    @server.prompt()
    def test_simple_prompt() -> str:
        """No argument."""
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """Two arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803
        """A resource within a prompt."""
        text = "Please process the embedded resource above."
        contents = embedded(resourceUri, "Embedded resource content for testing.")
        return [UserMessage(contents), UserMessage(text)]

    @server.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """An image within a prompt."""
        return [UserMessage(IMAGE), UserMessage("Please analyze the image above.")]


def with_fixtures(*arguments: Any, **options: Any) -> MCPServer[Any]:
    server = build_server(*arguments, **options)
    add_fixtures(server)
    return server


if __name__ == "__main__":
    set_up_logging()
    vars(http)["build_server"] = with_fixtures  # the rest is the product: guard, limits, middleware
    http.serve_http(load_settings(index=Path(sys.argv[1]), port=int(sys.argv[2])))
