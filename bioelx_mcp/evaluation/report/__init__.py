"""Results to one HTML page: tables, plots and an error browser. Nothing in it is fetched from anywhere.

Mentions, contexts and names come from corpora and knowledge bases: every text is escaped by the template, set apart
from the direction of its neighbours, and a content security policy lets no script run but the page's own.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bioelx_mcp import __version__
from bioelx_mcp.evaluation.metrics import RECALL_AT
from bioelx_mcp.evaluation.predictions import Prediction
from bioelx_mcp.evaluation.report.plots import (
    Bar,
    Point,
    bar_chart,
    line_chart,
    reliability_chart,
)
from bioelx_mcp.evaluation.results import Run, compare_runs, published_beside
from bioelx_mcp.text import find_mention

_HERE = Path(__file__).parent
_ERRORS = 200  # of each run


@dataclass(frozen=True)
class Error:
    """A mention that was answered wrongly: its context in three parts, what kind of error it is and why."""

    row: Prediction
    before: str
    mention: str
    after: str
    kind: str
    why: str


def render_report(runs: Sequence[Run]) -> str:
    """The page, as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(percent=_percent, number=_number, language=lambda tag: tag or "und")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ordered = sorted(runs, key=lambda run: (run.result["dataset"]["name"], run.asked))
    sections = [_section(list(group)) for _, group in groupby(ordered, key=lambda run: run.asked)]
    return environment.get_template("page.html").render(
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        script_hash=f"sha256-{digest}",
        version=__version__,
        runs=ordered,
        sections=sections,
        latency=_latency(ordered),
        recall_at=RECALL_AT,
    )


def _section(runs: list[Run]) -> dict[str, Any]:
    """What the template needs of the runs over one dataset under one protocol."""
    first = runs[0]
    languages = [*first.result["languages"], "average"]
    numbers = published_beside(first)
    beside = [
        (
            language or "und",
            Bar(
                values["recall@1"],
                None,
                None,
                f"{number.system}: {values['recall@1']} ({number.source})",
            ),
        )
        for number in numbers
        for language, values in number.values.items()
        if "recall@1" in values
    ]
    part = "all" if numbers else "covered"
    bars = [
        (language or "und", [_bar(run, language, f"{part}_recall@1") for run in runs])
        for language in languages
    ]
    curves = [
        (f"s{i % 6}" + (" all" if column == 2 else ""), _curve(run, column))
        for i, run in enumerate(runs)
        for column in (1, 2)
    ]
    calibrated = [
        (f"s{i % 6}", _reliability(run))
        for i, run in enumerate(runs)
        if "calibration" in run.result
    ]
    return {
        "runs": runs,
        "title": f"{first.result['dataset']['name']}, protocol {first.result['protocol']}",
        "languages": languages,
        "numbers": numbers,
        "bars_over": part,
        "bars": bar_chart(f"recall@1 by language, {part} queries, percent", bars, beside),
        "curve": line_chart("recall@k", [c for c in curves if c[1]], (1, 5, 10, 64)),
        "reliability": reliability_chart("reliability", calibrated) if calibrated else "",
        "compared": compare_runs(runs),
        "errors": [(run, *errors_of(run)) for run in runs],
    }


def errors_of(run: Run) -> tuple[list[Error], int]:
    """The errors that are shown, spread evenly over the run, and how many there are."""
    wrong = [row for row in run.rows if not _right(row)]
    step = max(1, -(-len(wrong) // _ERRORS))
    return [_error(row) for row in wrong[::step]], len(wrong)


def _right(row: Prediction) -> bool:
    return row.answer is None if row.nil else row.outcome.right


def _error(row: Prediction) -> Error:
    kind, why = _why(row)
    start = find_mention(row.context, row.mention, row.start)
    if start is None:
        return Error(row, "", row.mention, row.context and f" {row.context}", kind, why)
    end = start + len(row.mention)
    context = row.context
    return Error(row, context[:start], context[start:end], context[end:], kind, why)


def _why(row: Prediction) -> tuple[str, str]:
    """The kind of an error, and what the evidence says."""
    first = row.candidates[0] if row.candidates else None
    if row.nil:
        return "NIL missed", "The corpus says that no concept fits, and one was answered."
    if not row.right:
        return (
            "not in the index",
            "No gold id is an id, an alternative id or a cross-reference here.",
        )
    if first is None:
        return "not searched", "The mention cannot be searched, or nothing was found."
    if row.rank is None:
        return "not found", "No name of a right concept came near enough to be a candidate."
    names = {one.id for one in row.right}
    if row.rank == 1 or row.answer is None:
        return "NIL answered", "A right concept came, and the ranker said that none fits."
    right = next((one for one in row.candidates if one.id in names), None)
    if right is None:
        return "ranked lower", f"A right concept is number {row.rank}."
    scores = (first.rank_score, right.rank_score)
    shown = (
        f"{scores[0]:.3f} against {scores[1]:.3f}"
        if scores[0] is not None and scores[1] is not None
        else f"{first.retrieval_score:.3f} against {right.retrieval_score:.3f}"
    )
    return (
        "ranked lower",
        f"A right concept is number {row.rank}, by the {right.channel} match of “{right.alias}”; "
        f"the first came by the {first.channel} match of “{first.alias}” ({shown}).",
    )


def _bar(run: Run, language: str, metric: str) -> Bar:
    result = run.result
    values = result["average"] if language == "average" else result["languages"].get(language, {})
    value = values.get(metric)
    low, high = result["intervals"].get(language, {}).get(metric, (None, None))
    told = "no query" if value is None else f"{value:.1f} ({low:.1f} to {high:.1f})"
    return Bar(value, low, high, f"{run.name}, {language or 'und'}: {told}")


def _latency(runs: Sequence[Run]) -> Markup:
    speeds = [(run, run.result["speed"]) for run in runs]
    bars = [
        (
            run.name[:9],
            [
                Bar(
                    s["p50_ms"],
                    s["p50_ms"],
                    s["p95_ms"],
                    f"{run.name}: {s['p50_ms']:.1f} to {s['p95_ms']:.1f} ms",
                )
            ],
        )
        for run, s in speeds
        if s["p50_ms"] is not None
    ]
    most = max((s["p95_ms"] for _, s in speeds if s["p95_ms"] is not None), default=1.0)
    return bar_chart("latency in milliseconds", bars, most=most)


def _curve(run: Run, column: int) -> list[Point]:
    part = "covered" if column == 1 else "all"
    return [
        Point(row[0], row[column], f"{run.name}, {part}: recall@{row[0]} {row[column]:.1f}")
        for row in run.result["curve"]
        if row[column] is not None
    ]


def _reliability(run: Run) -> list[Point]:
    return [
        Point(
            one["confidence"],
            one["accuracy"],
            f"{run.name}: {one['queries']} queries, score {one['confidence']:.2f}, right {one['accuracy']:.2f}",
        )
        for one in run.result["calibration"]["bins"]
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
