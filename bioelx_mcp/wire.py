"""What the tools take and give: flat models, few fields, nothing empty on the wire; and their text form.

Both channels of a tool result carry the same facts, since clients show their model one or the other.
"""

from collections.abc import Sequence
from typing import Annotated

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from bioelx_mcp.schema import Candidate, Concept, Ranking
from bioelx_mcp.text import MAX_NAME_LENGTH

MAX_CONTEXT = 4000
_DEFINITION = 200


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CandidateOut(Wire):
    id: str = Field(description="CURIE")
    label: str = Field(description="Preferred name")
    score: float = Field(description="0-1; compare within one mention only")
    matched: str | None = Field(default=None, description="Alias that matched, when not the label")
    language: str | None = Field(default=None, description="BCP-47 language of that alias")
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
    mention: Annotated[str, Field(min_length=1)]
    context: Annotated[
        str, Field(max_length=MAX_CONTEXT, description="Sentence or passage that holds the mention")
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
    names: dict[str, list[str]] = Field(description="By language")
    types: list[str] | None = None
    definition: str | None = None
    xrefs: list[str] | None = None


class ConceptsOut(Wire):
    concepts: list[ConceptOut]
    not_found: list[str] | None = Field(default=None, description="Ids the index does not hold")
    index: str


def candidate_out(candidate: Candidate, concept: Concept | None = None) -> CandidateOut:
    """Concise; detailed where the concept is given."""
    hit = candidate.hit
    other = hit.alias.casefold() != candidate.preferred_name.casefold()
    return CandidateOut(
        id=candidate.concept_id,
        label=candidate.preferred_name,
        score=round(candidate.retrieval_score, 3),
        matched=hit.alias if other else None,
        language=(hit.language or None) if other else None,
        channel=hit.channel if concept else None,
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


def concept_out(concept: Concept, names: Sequence[tuple[str, str]], most: int = 5) -> ConceptOut:
    by_language: dict[str, list[str]] = {}
    for name, language in names:
        if len(kept := by_language.setdefault(language or "und", [])) < most:
            kept.append(name)
    return ConceptOut(
        id=concept.concept_id,
        label=concept.preferred_name,
        names=by_language,
        types=list(concept.semantic_types) or None,
        definition=concept.definition or None,
        xrefs=list(concept.xrefs + concept.alt_ids) or None,
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
        cells = (
            c.id,
            c.label,
            "; ".join(c.types or ()),
            names,
            c.definition,
            " ".join(c.xrefs or ()),
        )
        lines.append("\t".join(_line(cell) for cell in cells if cell))
    lines += [f"{_line(missing)}\tNOT FOUND" for missing in out.not_found or ()]
    return "\n".join([*lines, f"index {out.index}"])


def answer(out: Wire, text: str) -> CallToolResult:
    """Both channels."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=out.model_dump(mode="json", exclude_none=True),
    )


def check_length(mention: str) -> str | None:
    """What is wrong with a mention, or None."""
    fine = mention.strip() and len(mention) <= MAX_NAME_LENGTH
    return None if fine else f"mention must have 1-{MAX_NAME_LENGTH} characters"


def _line(text: str) -> str:
    """A cell of the text form: no tab or line break, whatever a knowledge base or document says."""
    return " ".join(text.split())
