"""build_server(settings): the MCP tools, resources, prompt and completion over one Linker; nothing else.

The handshake is answered before the index is loaded; a missing or broken index is reported on the first call.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import CacheHint, MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
    ToolAnnotations,
)

from bioelx_mcp import __version__
from bioelx_mcp.serving.guide import GUIDE, INSTRUCTIONS, link_prompt
from bioelx_mcp.serving.observe import Meter, Observer
from bioelx_mcp.serving.state import LinkerState
from bioelx_mcp.serving.strict import StrictServer, strict_tool
from bioelx_mcp.serving.tools import MAX_ID, get_concepts, rank_candidates, search_candidates
from bioelx_mcp.serving.wire import concept_out
from bioelx_mcp.settings import Settings

COMPLETIONS = 100  # what the protocol lets one answer hold
READ_ONLY = ToolAnnotations(
    read_only_hint=True, idempotent_hint=True, destructive_hint=False, open_world_hint=False
)
TITLES: dict[Callable[..., Any], str] = {
    search_candidates: "Search concept candidates",
    rank_candidates: "Rank candidates in context",
    get_concepts: "Get concepts by id",
}


def build_server(
    settings: Settings,
    *,
    state: LinkerState | None = None,
    meter: Meter | None = None,
    stdio: bool = False,
) -> MCPServer[LinkerState]:
    """A server over the index that the settings name.

    A factory, since constructing an MCPServer configures logging. `meter` is told of every request. With `stdio`
    what a library prints goes to stderr and never onto the wire, and loading waits until a first answer has been
    made: a client that starts the process waits for the handshake, and imports beside it would hold it up.
    """
    linker_state = state or LinkerState(settings)

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[LinkerState]:
        with contextlib.redirect_stdout(sys.stderr) if stdio else contextlib.nullcontext():
            if not stdio:
                linker_state.warm()
            try:
                yield linker_state
            finally:
                linker_state.close()

    hour = CacheHint(ttl_ms=3_600_000, scope="public")
    common: dict[str, Any] = {
        "annotations": READ_ONLY,
        "meta": {"anthropic/maxResultSizeChars": 200_000},
    }
    tools = [strict_tool(function, title=title, **common) for function, title in TITLES.items()]
    names = frozenset(tool.name for tool in tools)
    server = StrictServer(
        "bioelx-mcp",
        title="BioELX biomedical entity linking",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        log_level="WARNING",
        subscriptions=False,
        cache_hints=dict.fromkeys(
            ("tools/list", "resources/list", "resources/templates/list", "prompts/list"), hour
        ),
        middleware=[Observer(names, texts=settings.log_text, meter=meter)],
        tools=tools,
    )
    server.time_limit = settings.time_limit

    async def warm(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        result = await call_next(ctx)
        linker_state.warm()
        return result

    if stdio:
        server.middleware.append(warm)

    @server.resource("bioelx-mcp://index", title="Index card", mime_type="application/json")
    async def index_card() -> dict[str, Any]:
        """What the index holds: sources with licences, counts, languages, encoder."""
        linker = await linker_state.linker(ResourceError)  # a static resource is given no context
        return linker.manifest.card()

    @server.resource("bioelx-mcp://guide", title="Guide", mime_type="text/markdown")
    def guide() -> str:
        """How to link well: what to send, how to read scores, when to rank, what NIL is."""
        return GUIDE

    @server.resource("bioelx-mcp://concept/{curie}", title="Concept", mime_type="application/json")
    async def concept_card(curie: str, ctx: Context[LinkerState]) -> dict[str, Any]:
        """One concept by CURIE, with all its names."""
        linker = await ctx.request_context.lifespan_context.linker(ResourceError)
        concept = linker.concept(curie) if len(curie) <= MAX_ID else None
        if concept is None:
            raise ResourceNotFoundError(
                f"no concept {curie[:MAX_ID]!r} in index {linker.manifest.index_id}"
            )
        out = concept_out(linker, concept, detailed=True, most=1000)
        return out.model_dump(mode="json", exclude_none=True)

    @server.prompt(title="Link the entities of a text")
    def link_entities(text: str) -> str:
        """Steps that lead from a text to concept ids."""
        return link_prompt(text)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        """The concept ids that begin as typed, whatever their prefix's spelling."""
        if not isinstance(ref, ResourceTemplateReference) or argument.name != "curie":
            return None
        linker = await linker_state.linker(ResourceError)
        found, total = linker.complete(argument.value[:MAX_ID], COMPLETIONS)
        return Completion(values=found, total=total, has_more=total > len(found))

    return server
