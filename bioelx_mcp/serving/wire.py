"""What the tools take and give: flat models, few fields, nothing empty on the wire; and their text form.

Both channels of a tool result carry the same facts, since clients show their model one or the other.
"""

from typing import TYPE_CHECKING, Annotated

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from bioelx_mcp.schema import Candidate, Concept, Ranking
from bioelx_mcp.text import MAX_NAME_LENGTH, has_surrogate, spaced

if TYPE_CHECKING:
    from bioelx_mcp.linker import Linker

MAX_CONTEXT = 4000
_DEFINITION = 200  # characters of it where brevity counts
_NAMES = 5  # of one language
_XREFS = 20
_NO_UNICODE = "a lone surrogate is no Unicode character"


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CandidateOut(Wire):
    id: str = Field(description="CURIE")
    label: str = Field(description="Preferred name")
    score: float = Field(description="0-1; compare within one mention only")
    matched: str | None = Field(default=None, description="Alias that matched, if another name")
    language: str | None = Field(default=None, description="detailed: of that alias, BCP-47")
    channel: str | None = Field(default=None, description="detailed: id, exact, lexical or dense")
    types: list[str] | None = Field(default=None, description="detailed: semantic types")
    definition: str | None = Field(default=None, description="detailed")


class MentionOut(Wire):
    mention: str
    candidates: list[CandidateOut]
    error: str | None = Field(
        default=None, description="Why this one failed; the others are unaffected"
    )


class SearchOut(Wire):
    results: list[MentionOut] = Field(description="In the order of `mentions`")
    index: str = Field(description="Cite it with the ids")


class RankItem(Wire):
    mention: str
    context: Annotated[
        str, Field(description=f"Sentence that holds the mention, {MAX_CONTEXT} characters at most")
    ] = ""
    candidates: Annotated[
        list[str], Field(max_length=100, description="Ids to order; empty: search first")
    ] = []


class RankedOut(Wire):
    id: str
    label: str
    score: float | None = Field(
        default=None, description="Probability that it is meant; absent if not ranked"
    )


class RankOut(Wire):
    mention: str
    best: str | None = Field(
        default=None, description="Id that is meant; absent when none fits (NIL)"
    )
    ranked: list[RankedOut]
    degraded: str | None = Field(
        default=None, description="Why the ranker did not answer: retrieval order stands"
    )
    error: str | None = None


class RankingsOut(Wire):
    results: list[RankOut] = Field(description="In the order of `items`")
    ranker: str = Field(
        description="What ordered them; `retrieval`: no ranker, the order of the search"
    )
    index: str


class ConceptOut(Wire):
    id: str
    label: str
    names: dict[str, list[str]] = Field(description="By language; concise: English only")
    types: list[str] | None = None
    definition: str | None = None
    parents: dict[str, str] | None = Field(default=None, description="Broader concepts: id, label")
    xrefs: list[str] | None = Field(default=None, description="detailed: ids elsewhere")


class ConceptsOut(Wire):
    concepts: list[ConceptOut] = Field(description="Each once, in the order of `ids`")
    replaced_by: dict[str, str] | None = Field(
        default=None, description="Merged or retired id asked for: the id that stands for it"
    )
    not_found: list[str] | None = Field(default=None, description="Ids the index does not hold")
    index: str


def candidate_out(
    candidate: Candidate, mention: str, concept: Concept | None = None
) -> CandidateOut:
    """Concise; detailed where the concept is given."""
    hit = candidate.hit
    other = hit.alias.casefold() not in (candidate.preferred_name.casefold(), mention.casefold())
    detailed = concept is not None
    return CandidateOut(
        id=candidate.concept_id,
        label=candidate.preferred_name,
        score=round(candidate.retrieval_score, 3),
        matched=hit.alias if other or detailed else None,
        language=(hit.language or None) if detailed else None,
        channel=hit.channel if detailed else None,
        types=list(concept.semantic_types) or None if concept else None,
        definition=concept.definition[:_DEFINITION] or None if concept else None,
    )


def rank_out(ranking: Ranking, limit: int) -> RankOut:
    return RankOut(
        mention=ranking.mention.text,
        best=ranking.best.candidate.concept_id if ranking.best else None,
        ranked=[
            RankedOut(
                id=ranked.candidate.concept_id,
                label=ranked.candidate.preferred_name,
                score=None if ranked.rank_score is None else round(ranked.rank_score, 3),
            )
            for ranked in ranking.candidates[:limit]
        ],
        degraded=ranking.degraded or None,
    )


def concept_out(
    linker: "Linker", concept: Concept, *, detailed: bool = False, most: int = _NAMES
) -> ConceptOut:
    """The card of a concept: English names (or those of the first language), or all where detailed."""
    by_language: dict[str, list[str]] = {}
    for name, language in linker.names(concept.concept_id):
        if len(kept := by_language.setdefault(language or "und", [])) < most:
            kept.append(name)
    if not detailed:
        shown = "en" if "en" in by_language else next(iter(by_language), "")
        by_language = {shown: by_language[shown]} if shown else {}
    parents = {
        id: parent.preferred_name for id in concept.parents if (parent := linker.concept(id))
    }
    definition = concept.definition if detailed else concept.definition[:_DEFINITION]
    xrefs = (concept.alt_ids + concept.xrefs)[: max(_XREFS, most)] if detailed else ()
    return ConceptOut(
        id=concept.concept_id,
        label=concept.preferred_name,
        names=by_language,
        types=list(concept.semantic_types) or None,
        definition=definition or None,
        parents=parents or None,
        xrefs=list(xrefs) or None,
    )


def search_text(out: SearchOut) -> str:
    lines = []
    for result in out.results:
        note = (
            f"\tERROR: {_line(result.error)}"
            if result.error
            else ""
            if result.candidates
            else "\tno candidate"
        )
        lines.append(f"# {_line(result.mention)}{note}")
        for c in result.candidates:
            via = (
                f"via {_line(c.matched)}" + (f" ({c.language})" if c.language else "")
                if c.matched
                else None
            )
            cells = (
                c.id,
                _line(c.label),
                f"{c.score:g}",
                via,
                c.channel,
                "; ".join(c.types or ()),
                c.definition,
            )
            lines.append("\t".join(_line(cell) for cell in cells if cell))
    return "\n".join([*lines, f"index {out.index}"])


def rank_text(out: RankingsOut) -> str:
    lines = []
    for result in out.results:
        note = f"ERROR: {_line(result.error)}" if result.error else result.best or "NIL"
        lines.append(f"# {_line(result.mention)}\t{note}")
        for r in result.ranked:
            lines.append(
                f"{r.id}\t{_line(r.label)}" + ("" if r.score is None else f"\t{r.score:g}")
            )
        if result.degraded:
            lines.append(f"degraded: {_line(result.degraded)}")
    return "\n".join([*lines, f"ranker {out.ranker}; index {out.index}"])


def concepts_text(out: ConceptsOut) -> str:
    lines = []
    for c in out.concepts:
        names = "; ".join(f"{language}: {', '.join(names)}" for language, names in c.names.items())
        parents = "; ".join(f"{id} {label}" for id, label in (c.parents or {}).items())
        cells = (
            c.id,
            c.label,
            "; ".join(c.types or ()),
            names,
            c.definition,
            f"parents {parents}" if parents else None,
            " ".join(c.xrefs or ()),
        )
        lines.append("\t".join(_line(cell) for cell in cells if cell))
    lines += [f"{old}\treplaced by {new}" for old, new in (out.replaced_by or {}).items()]
    lines += [f"{_line(missing)}\tNOT FOUND" for missing in out.not_found or ()]
    return "\n".join([*lines, f"index {out.index}"])


def answer(out: Wire, text: str) -> CallToolResult:
    """Both channels."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=out.model_dump(mode="json", exclude_none=True),
    )


def mention_error(mention: str) -> str | None:
    """What is wrong with a mention, or None."""
    if not mention.strip() or len(mention) > MAX_NAME_LENGTH:
        return f"mention must have 1-{MAX_NAME_LENGTH} characters"
    return _NO_UNICODE if has_surrogate(mention) else None


def item_error(item: RankItem) -> str | None:
    """What is wrong with an item to rank, or None."""
    if error := mention_error(item.mention):
        return error
    if len(item.context) > MAX_CONTEXT:
        return (
            f"context has {len(item.context)} characters, at most {MAX_CONTEXT}: send the sentence"
        )
    return _NO_UNICODE if has_surrogate(item.context) else None


def printable(text: str) -> str:
    """The text with `?` for what no UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode() if has_surrogate(text) else text


def _line(text: str) -> str:
    """A cell of the text form: no tab, line break, control or direction mark, whatever a name or document says."""
    return " ".join(spaced(text).split())
