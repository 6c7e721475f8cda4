"""The three tools: arguments in, work in threads by chunks, both channels of an answer out."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from pydantic import Field

from bioelx_mcp.errors import BioelxError, UsageError
from bioelx_mcp.schema import Candidate, Filters, Mention
from bioelx_mcp.semantic_types import is_group
from bioelx_mcp.serving.observe import note
from bioelx_mcp.serving.state import LinkerState
from bioelx_mcp.serving.wire import (
    ConceptOut,
    ConceptsOut,
    MentionOut,
    RankingsOut,
    RankItem,
    RankOut,
    SearchOut,
    answer,
    candidate_out,
    concept_out,
    concepts_text,
    item_error,
    mention_error,
    printable,
    rank_out,
    rank_text,
    search_text,
)
from bioelx_mcp.text import normalize_concept_id

if TYPE_CHECKING:
    from bioelx_mcp.linker import Linker

Item = TypeVar("Item")
Out = TypeVar("Out")

MAX_ROWS = 2000  # candidates of one call
MAX_ID = 256  # characters; nothing longer is looked up
SEARCHED_FOR_RANKING = 10
CHUNK = 32  # mentions; progress and cancellation act between chunks
RANK_CHUNK = 8  # as many as the ranker has in flight

Format = Literal["concise", "detailed"]


async def search_candidates(
    mentions: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=256,
            description='Mention strings, e.g. ["Herzinfarkt", "NIDDM"]',
        ),
    ],
    ctx: Context[LinkerState],
    limit: Annotated[int, Field(ge=1, le=100, description="Candidates per mention")] = 5,
    ontologies: Annotated[
        list[str], Field(max_length=20, description='Only ids of these, e.g. ["MONDO"]')
    ] = [],  # noqa: B006 - published as the default; nothing changes it
    types: Annotated[
        list[str],
        Field(max_length=20, description="Only these UMLS semantic types or groups, e.g. DISO"),
    ] = [],  # noqa: B006
    response_format: Annotated[
        Format,
        Field(
            description="detailed adds matched alias, its language, channel, types and definition"
        ),
    ] = "concise",
) -> Annotated[CallToolResult, SearchOut]:
    """Find biomedical concepts (UMLS CUIs and other CURIEs) whose names in any language match each mention.
    Send all mentions of a text in one call. Scores compare within a mention only; when the top ones are close,
    pass the mention with its sentence to rank_candidates."""
    _check_rows(len(mentions), limit, "mentions")
    state = ctx.request_context.lifespan_context
    linker = await state.linker()

    filters = _filters(ontologies, types)

    def work(chunk: Sequence[str]) -> list[MentionOut]:
        found = iter(linker.search([m for m in chunk if not mention_error(m)], limit, filters))
        return [_mention_out(linker, m, found, response_format == "detailed") for m in chunk]

    try:
        results = await _in_chunks(mentions, work, ctx, "mentions", CHUNK, state.cores)
    except (
        UsageError
    ) as error:  # the filters leave nothing; what is wrong with a mention is told there
        raise ToolError(str(error)) from error
    out = SearchOut(results=results, index=linker.manifest.index_id)
    note(
        mentions=len(mentions),
        candidates=sum(len(result.candidates) for result in results),
        errors=sum(result.error is not None for result in results),
    )
    return answer(out, search_text(out))


async def rank_candidates(
    items: Annotated[
        list[RankItem],
        Field(min_length=1, max_length=64, description="One for each mention to decide"),
    ],
    ctx: Context[LinkerState],
    limit: Annotated[
        int, Field(ge=1, le=100, description="Ranked candidates to return per item")
    ] = 3,
) -> Annotated[CallToolResult, RankingsOut]:
    """Order candidate concepts for mentions by their sentence, with a language model where one is configured.
    `best` is the concept that is meant; it is absent when none fits (NIL)."""
    _check_rows(len(items), limit, "items")
    linker = await ctx.request_context.lifespan_context.linker()
    rankers: set[str] = set()
    stop = threading.Event()

    def work(chunk: Sequence[RankItem]) -> list[RankOut]:
        return _rank_items(linker, chunk, limit, rankers, stop)

    results = await _in_chunks(items, work, ctx, "items", RANK_CHUNK, stop=stop)
    ranker = ", ".join(sorted(rankers)) or "none"
    out = RankingsOut(results=results, ranker=ranker, index=linker.manifest.index_id)
    note(
        items=len(items),
        candidates=sum(len(result.ranked) for result in results),
        nil=sum(result.best is None and result.error is None for result in results),
        degraded=sum(result.degraded is not None for result in results),
        errors=sum(result.error is not None for result in results),
    )
    return answer(out, rank_text(out))


async def get_concepts(
    ids: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=100,
            description="CURIEs in any spelling: C0027051, mondo_0005148",
        ),
    ],
    ctx: Context[LinkerState],
    response_format: Annotated[
        Format, Field(description="detailed: names in all languages, xrefs, the whole definition")
    ] = "concise",
) -> Annotated[CallToolResult, ConceptsOut]:
    """Names, types, definition and broader concepts of ids. Use it to check an id before citing it."""
    linker = await ctx.request_context.lifespan_context.linker()
    concepts: dict[str, ConceptOut] = {}
    replaced_by: dict[str, str] = {}
    missing: list[str] = []
    for id in ids:
        concept = linker.concept(id) if len(id) <= MAX_ID else None
        if concept is None:
            missing.append(printable(id[:MAX_ID]))
            continue
        if (asked := normalize_concept_id(id)) and asked != concept.concept_id:
            replaced_by[asked] = concept.concept_id
        if concept.concept_id not in concepts:
            detailed = response_format == "detailed"
            concepts[concept.concept_id] = concept_out(linker, concept, detailed=detailed)
    out = ConceptsOut(
        concepts=list(concepts.values()),
        replaced_by=replaced_by or None,
        not_found=missing or None,
        index=linker.manifest.index_id,
    )
    note(ids=len(ids), concepts=len(concepts), errors=len(missing))
    return answer(out, concepts_text(out))


def _filters(ontologies: Sequence[str], types: Sequence[str]) -> Filters:
    """What a search is confined to; the name of a semantic group among the types means its types."""
    return Filters(
        prefixes=tuple(ontologies),
        types=tuple(name for name in types if not is_group(name)),
        groups=tuple(name for name in types if is_group(name)),
    )


def _check_rows(count: int, limit: int, unit: str) -> None:
    if count * limit > MAX_ROWS:
        raise ToolError(
            f"{count} {unit} x limit {limit} = {count * limit} rows; one call returns at most "
            f"{MAX_ROWS}. Use limit <= {MAX_ROWS // count}, or send the {unit} in several calls."
        )


async def _in_chunks(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Out]],
    ctx: Context[LinkerState],
    unit: str,
    size: int,
    limiter: anyio.CapacityLimiter | None = None,
    stop: threading.Event | None = None,
) -> list[Out]:
    """Work off the items in threads, never on the event loop: it also carries progress and cancellation.

    A call that is cancelled sets `stop` and waits no longer for work that heeds it.
    """
    results: list[Out] = []
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        try:
            results += await anyio.to_thread.run_sync(
                work, chunk, limiter=limiter, abandon_on_cancel=stop is not None
            )
        except anyio.get_cancelled_exc_class():
            if stop is not None:
                stop.set()
            raise
        await ctx.report_progress(len(results), len(items), f"{len(results)}/{len(items)} {unit}")
    return results


def _mention_out(linker: "Linker", mention: str, found: Any, detailed: bool) -> MentionOut:
    if error := mention_error(mention):
        return MentionOut(mention=printable(mention[:80]), candidates=[], error=error)
    candidates: list[Candidate] = next(found)
    return MentionOut(
        mention=mention,
        candidates=[
            candidate_out(c, mention, linker.concept(c.concept_id) if detailed else None)
            for c in candidates
        ],
    )


def _rank_items(
    linker: "Linker",
    items: Sequence[RankItem],
    limit: int,
    rankers: set[str],
    stop: threading.Event,
) -> list[RankOut]:
    """One answer an item, in order; those that can be ranked are ranked together."""
    errors = [item_error(item) for item in items]
    bare = [
        item for item, error in zip(items, errors, strict=True) if not (error or item.candidates)
    ]
    found = iter(linker.search([_mention(item) for item in bare], SEARCHED_FOR_RANKING))
    ready: list[tuple[Mention, Sequence[Candidate]]] = []
    for place, item in enumerate(items):
        if errors[place]:
            continue
        try:
            given = (
                linker.candidates(item.mention, item.candidates) if item.candidates else next(found)
            )
            ready.append((_mention(item), given))
        except BioelxError as error:
            errors[place] = printable(str(error))
    rankings = linker.rank(ready, stop)
    rankers.update(ranking.ranker for ranking in rankings)
    ranked = iter(rankings)
    return [
        RankOut(mention=printable(item.mention[:80]), ranked=[], error=error)
        if error
        else rank_out(next(ranked), limit)
        for item, error in zip(items, errors, strict=True)
    ]


def _mention(item: RankItem) -> Mention:
    return Mention(item.mention, item.context)
