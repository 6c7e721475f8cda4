"""One evaluation: a dataset through a Linker, scored by language, with all that is needed to repeat it."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bioelx_mcp import __version__
from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Query
from bioelx_mcp.evaluation.metrics import RECALL_AT, Outcome, average, first_right, summarize
from bioelx_mcp.linker import Linker
from bioelx_mcp.retriever import check_mention
from bioelx_mcp.schema import Candidate

_CHUNK = 256
Progress = Callable[[int, int], None]


def evaluate_retrieval(
    linker: Linker,
    queries: Sequence[Query],
    *,
    limit: int = max(RECALL_AT),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Recall and MRR of `Linker.search`, by language and averaged, as a JSON-able result.

    A mention that cannot be searched (it is too long) counts as missed.
    """
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        searchable = [_searchable(query) for query in chunk]
        mentions = [query.mention for query, fine in zip(chunk, searchable, strict=True) if fine]
        found = iter(linker.search(mentions, limit))
        for query, fine in zip(chunk, searchable, strict=True):
            candidates = next(found) if fine else []
            predicted = [_ids(linker, candidate) for candidate in candidates]
            covered = any(linker.concept(gold) is not None for gold in query.gold)
            outcomes.append(Outcome(query.language, first_right(predicted, query.gold), covered))
        if progress is not None:
            progress(len(outcomes), len(queries))
    seconds = time.perf_counter() - started
    languages = sorted({outcome.language for outcome in outcomes})
    by_language = {
        lang: summarize([o for o in outcomes if o.language == lang]) for lang in languages
    }
    return {
        "index": linker.manifest.index_id,
        "encoder": linker.manifest.encoder.name,
        "limit": limit,
        "languages": by_language,
        "average": average(list(by_language.values())),
        "mentions_per_second": len(queries) / seconds if seconds else float("nan"),
        "version": __version__,
        "commit": _commit(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


def _searchable(query: Query) -> bool:
    try:
        check_mention(query.mention.text)
    except UsageError:
        return False
    return True


def _ids(linker: Linker, candidate: Candidate) -> frozenset[str]:
    concept = linker.concept(candidate.concept_id)
    return frozenset((candidate.concept_id, *(concept.alt_ids if concept else ())))


def _commit() -> str:
    """The commit of the checkout that this package was run from; empty where it was installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whatever git the user has
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def render_table(result: dict[str, Any]) -> str:
    """The result as a Markdown table: recall in percent, covered | all."""
    head = ["", "queries", "covered", *(f"R@{k}" for k in RECALL_AT), "MRR"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in [*result["languages"].items(), ("average", result["average"])]:
        recalls = [
            f"{row[f'covered_recall@{k}']:.1f} / {row[f'all_recall@{k}']:.1f}" for k in RECALL_AT
        ]
        cells = [
            name,
            f"{row['queries']:.0f}",
            f"{row['covered']:.0f}",
            *recalls,
            f"{row['covered_mrr']:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
