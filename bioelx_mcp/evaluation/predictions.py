"""What a run answered, mention by mention, as JSON lines: written as it goes, so that a killed run goes on."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_mcp.errors import UsageError, problems
from bioelx_mcp.evaluation.datasets import Query
from bioelx_mcp.evaluation.datasets.base import numbered_lines
from bioelx_mcp.evaluation.metrics import Outcome
from bioelx_mcp.manifest import write_atomically
from bioelx_mcp.schema import RankedCandidate
from bioelx_mcp.text import visible_json

SHOWN = 10
_WINDOW = 160  # characters of context kept on either side


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConceptRow(_Row):
    """A concept that is right."""

    id: str
    name: str


class CandidateRow(_Row):
    """One candidate with its evidence; scores as in `schema.Candidate` and `schema.RankedCandidate`."""

    id: str
    name: str
    retrieval_score: float
    rank_score: float | None
    alias: str
    language: str
    source: str
    channel: str
    similarity: float

    @classmethod
    def of(cls, ranked: RankedCandidate) -> Self:
        one, hit = ranked.candidate, ranked.candidate.hit
        return cls(
            id=one.concept_id,
            name=one.preferred_name,
            retrieval_score=one.retrieval_score,
            rank_score=ranked.rank_score,
            alias=hit.alias,
            language=hit.language,
            source=hit.source,
            channel=hit.channel,
            similarity=hit.similarity,
        )


class Prediction(_Row):
    """What was asked, what is right, and what came: the first candidates, and the right one where it ranks lower.

    `number` is the query's place in the dataset; `right` the concepts of the index that are right (none: not covered);
    `rank` that of the first right one; `answer` the id that was answered, None for NIL. Equal mentions are asked once:
    the seconds of all but the first are 0.
    """

    run: str
    number: int
    where: str
    mention: str
    context: str
    start: int | None
    language: str
    group: str
    document: str
    gold: tuple[str, ...]
    right: tuple[ConceptRow, ...]
    rank: int | None
    answer: str | None
    candidates: tuple[CandidateRow, ...]
    ranker: str
    degraded: str
    seconds: float
    cpu_seconds: float

    @property
    def nil(self) -> bool:
        """Whether the corpus says that no concept fits."""
        return not self.gold

    @property
    def outcome(self) -> Outcome:
        answered = self.answer is not None and self.answer in {one.id for one in self.right}
        return Outcome(self.language, self.rank, bool(self.right), answered)


def window(query: Query) -> tuple[str, int | None]:
    """The part of the context around the mention that is kept, and where the mention starts in it."""
    context = query.mention.context
    if not context:
        return "", None
    middle = query.spans[0][0] if query.spans else max(context.find(query.mention.text), 0)
    low = max(0, middle - _WINDOW)
    start = query.mention.start
    kept = context[low : middle + len(query.mention.text) + _WINDOW]
    return kept, None if start is None else start - low


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a run, by the place of their queries.

    Raises:
        UsageError: the file cannot be read, or a line is no prediction.
    """
    rows = []
    for where, line in numbered_lines(path):
        try:
            rows.append(Prediction.model_validate_json(line))
        except ValidationError as error:
            field, what = problems(error)[0]
            raise UsageError(f"{where}: no prediction: {field} {what}") from error
    return sorted(rows, key=lambda row: row.number)


class PredictionFile:
    """Predictions of one run, kept in memory and, where there is a path, in a file as well.

    Of a file that is there, whole rows of the same run are kept; a row that is cut off, of another run, or that
    a silent ranker left in retrieval order is made anew.
    """

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self.rows: list[Prediction] = []
        if path is None:
            return
        if path.is_file():
            with path.open("rb") as lines:
                for line in lines:
                    try:
                        row = Prediction.model_validate_json(line)
                    except ValidationError:
                        continue
                    if row.run == run and not row.degraded:
                        self.rows.append(row)
        try:
            write_atomically(path, "".join(map(_line, self.rows)))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error}") from error

    @property
    def numbers(self) -> set[int]:
        return {row.number for row in self.rows}

    def add(self, rows: Iterable[Prediction]) -> None:
        """Keep rows; they are on the disk when this returns."""
        new = list(rows)
        self.rows += new
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as out:
                out.write("".join(map(_line, new)))
                out.flush()
                os.fsync(out.fileno())


def shown(candidates: Sequence[RankedCandidate], rank: int | None) -> tuple[CandidateRow, ...]:
    """The first candidates, and the right one where it stands lower."""
    kept = list(candidates[:SHOWN])
    if rank is not None and SHOWN < rank <= len(candidates):
        kept.append(candidates[rank - 1])
    return tuple(map(CandidateRow.of, kept))


def _line(row: Prediction) -> str:
    fields: dict[str, Any] = row.model_dump(mode="json")
    return visible_json(fields) + "\n"
