"""Results that were written: read back with their predictions, compared, and set beside published numbers."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.predictions import Prediction, read_predictions
from bioelx_mcp.evaluation.run import FORMAT, finite
from bioelx_mcp.evaluation.statistics import paired_test
from bioelx_mcp.files import read_json
from bioelx_mcp.manifest import write_atomically
from bioelx_mcp.text import visible_json

_SETS = re.compile("EMEA|Patent|Medline", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """A result and its predictions; `name` tells it from the others of a report."""

    name: str
    result: dict[str, Any]
    rows: list[Prediction]

    @property
    def asked(self) -> tuple[str, str]:
        """What two runs must share to be compared: the checksum of the dataset, and the protocol."""
        return self.result["dataset"]["checksum"], self.result["protocol"]


class PublishedNumber(BaseModel):
    """What others published: values by language (or `average`) and metric, in percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    protocol: str
    system: str
    searched: str
    source: str
    values: dict[str, dict[str, float]]
    set: str = ""
    queries: int | None = None


def predictions_path(result: Path) -> Path:
    """Where the predictions of a result lie: beside it, as JSON lines."""
    return result.with_suffix(".jsonl")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        write_atomically(path, visible_json(finite(result), indent=1) + "\n")
    except OSError as error:
        raise UsageError(f"--out {path}: {error}") from error


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Results with the predictions beside them.

    Raises:
        UsageError: a file cannot be read, or was not written by `bioelx-mcp evaluate`.
    """
    runs = []
    for path in paths:
        try:
            result = read_json(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        theirs = result.get("format") if isinstance(result, dict) else None
        if theirs != FORMAT:
            raise UsageError(
                f"{path} is no result of `bioelx-mcp evaluate` (format {theirs}, this program reads {FORMAT})"
            )
        rows = read_predictions(predictions_path(path))
        if any(row.run != result["run"] for row in rows):
            raise UsageError(f"{predictions_path(path)} is of another run than {path}")
        runs.append(Run(path.stem, result, rows))
    return runs


def compare_runs(runs: Sequence[Run]) -> list[tuple[Run, Run, dict[str, dict[str, float]]]]:
    """For each pair of runs over the same queries: the later against the earlier, see `paired_test`."""
    pairs = []
    for earlier, later in combinations(runs, 2):
        if earlier.asked == later.asked:
            linked = [(a, b) for a, b in zip(later.rows, earlier.rows, strict=True) if not a.nil]
            tested = paired_test(
                [a.outcome for a, _ in linked],
                [b.outcome for _, b in linked],
                [a.document for a, _ in linked],
            )
            pairs.append((earlier, later, tested))
    return pairs


def render_comparison(runs: Sequence[Run]) -> str:
    """The comparisons as a Markdown table; empty where no two runs asked the same."""
    pairs = compare_runs(runs)
    if not pairs:
        return ""
    metrics = list(pairs[0][2])
    lines = ["| all queries | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    for earlier, later, tested in pairs:
        cells = [f"{t['difference']:+.2f} (p {t['p']:.4f})" for t in tested.values()]
        lines.append(f"| {later.name} against {earlier.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@cache
def published_numbers() -> tuple[PublishedNumber, ...]:
    """All that `published.toml` holds."""
    table = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    return tuple(PublishedNumber.model_validate(one) for one in tomllib.loads(table)["number"])


def published_beside(run: Run) -> list[PublishedNumber]:
    """The published numbers that a run may stand beside: of its dataset, set, protocol and number of queries."""
    languages = run.result["languages"]
    sets = {found[0].lower() for row in run.rows if (found := _SETS.search(row.where))}
    beside = []
    for number in published_numbers():
        wanted = [language for language in number.values if language != "average"]
        if (
            (number.dataset, number.protocol) == (run.result["dataset"]["name"], run.asked[1])
            and (not number.set or sets == {number.set.lower()})
            and all(number.queries in (None, row["queries"]) for row in languages.values())
            and all(language in languages for language in wanted)
        ):
            beside.append(number)
    return beside
