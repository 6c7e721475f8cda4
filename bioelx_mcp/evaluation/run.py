"""One evaluation: a dataset through a Linker, scored, with all that is needed to repeat it."""

import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioelx_mcp import __version__
from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Dataset, Query
from bioelx_mcp.evaluation.gold import GoldMap
from bioelx_mcp.evaluation.metrics import (
    RECALL_AT,
    average,
    calibration,
    nil_scores,
    recall_curve,
    summarize,
)
from bioelx_mcp.evaluation.predictions import (
    ConceptRow,
    Prediction,
    PredictionFile,
    shown,
    window,
)
from bioelx_mcp.evaluation.protocols import LIMIT, DistinctConcepts, PublishedNames, Scoring
from bioelx_mcp.evaluation.statistics import SEED, intervals
from bioelx_mcp.linker import Linker
from bioelx_mcp.ranker import RETRIEVAL
from bioelx_mcp.schema import Mention, Ranking

FORMAT = 1
PROTOCOLS = ("distinct", "published")
_CHUNK = 64
_TIMED = 50  # mentions asked one by one for the latency
Progress = Callable[[int, int], None]


def evaluate_linker(
    linker: Linker,
    dataset: Dataset,
    *,
    protocol: str = "distinct",
    ranked: int = 0,
    limit: int = LIMIT,
    retired: Mapping[str, str] | None = None,
    predictions: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The scores of a Linker on a dataset, and what they were made with, as a JSON-able result.

    Equal mentions in equal contexts are asked once. A mention that cannot be searched (it is too long) counts as
    missed.

    Args:
        linker: what is measured.
        dataset: on what; see `datasets.read_dataset`.
        protocol: `distinct`, or `published`: see `protocols`.
        ranked: how many candidates the Linker's ranker orders; 0 measures retrieval alone.
        limit: how many candidates are searched.
        retired: retired CUIs and what they became; see `gold.read_retired`.
        predictions: a file of JSON lines that is written as the run goes; a run that was killed goes on from it.
        progress: told (done, of how many) queries.

    Raises:
        UsageError: an unknown protocol, or one that is not published for this dataset; the predictions cannot be
            written, or were made with another ranker.
    """
    scoring: Scoring
    if protocol == "distinct":
        scoring = DistinctConcepts(linker, limit=limit, ranked=ranked)
    elif protocol == "published":
        scoring = PublishedNames(linker, dataset.name, limit=limit)
    else:
        raise UsageError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    queries = scoring.queries(dataset.queries)
    gold = GoldMap(linker.index, {one for query in queries for one in query.gold}, retired)
    system = {
        "index": linker.manifest.index_id,
        "encoder": f"{linker.manifest.encoder.name}-{linker.manifest.encoder.checksum[:12]}",
        "limit": limit,
        "ranked": ranked,
        "version": __version__,
        "commit": checkout_commit(),
    }
    run = _run_id(protocol, dataset.checksum, system, retired)
    file = PredictionFile(predictions, run)
    done = file.numbers
    resumed = len(done)
    asked: dict[Mention, list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        if number not in done:
            asked[query.mention].append(number)
    waiting = list(asked)
    answer = _Answer(linker, scoring, gold, run)
    for start in range(0, len(waiting), _CHUNK):
        chunk = waiting[start : start + _CHUNK]
        file.add(answer.rows(queries, [(mention, asked[mention]) for mention in chunk]))
        _one_ranker(file.rows, predictions)
        if progress is not None:
            progress(len(file.rows), len(queries))
    rows = sorted(file.rows, key=lambda row: row.number)
    rankers = [row.ranker for row in rows if row.ranker != RETRIEVAL]
    ranker, _, prompt = rankers[0].rpartition("/") if rankers else ("", "", "")
    return {
        "format": FORMAT,
        "run": run,
        "dataset": {
            "name": dataset.name,
            "file": dataset.path.name,
            "checksum": dataset.checksum,
            "queries": len(queries),
            "remarks": dataset.reasons,
        },
        "protocol": protocol,
        "system": system | {"ranker": ranker, "prompt": prompt},
        "machine": _machine(),
        "seed": SEED,
        "resumed": resumed,
        "gold": dict(Counter(gold.basis.values()).most_common()),
        **score(rows),
        "speed": _speed(rows, scoring),
    }


def score(rows: Sequence[Prediction]) -> dict[str, Any]:
    """Every score of a run: by language, averaged, by semantic group and channel, with intervals, NIL, calibration."""
    linked = [row for row in rows if not row.nil]
    outcomes = [row.outcome for row in linked]
    languages = sorted({outcome.language for outcome in outcomes})
    by_language = {
        language: summarize([o for o in outcomes if o.language == language])
        for language in languages
    }

    def by(keys: Sequence[str]) -> dict[str, Any]:
        return {
            key: summarize([o for o, k in zip(outcomes, keys, strict=True) if k == key])
            for key, _ in Counter(keys).most_common()
            if key
        }

    tops = [row.candidates[0] if row.candidates else None for row in rows]
    scored = [
        (top.rank_score, any(top.id == one.id for one in row.right))
        for row, top in zip(rows, tops, strict=True)
        if top is not None and top.rank_score is not None
    ]
    result: dict[str, Any] = {
        "languages": by_language,
        "average": average(list(by_language.values())),
        "intervals": intervals(outcomes, [row.document for row in linked]),
        "groups": by([row.group for row in linked]),
        "channels": by([row.candidates[0].channel if row.candidates else "" for row in linked]),
        "curve": recall_curve(outcomes),
        "degraded": sum(bool(row.degraded) for row in rows),
    }
    if len(linked) < len(rows):
        result["nil"] = nil_scores([(r.nil, r.answer is None, r.outcome.right) for r in rows])
    if scored:
        result["calibration"] = calibration(scored)
    return result


@dataclass(frozen=True)
class _Answer:
    """Mentions to rows of predictions."""

    linker: Linker
    scoring: Scoring
    gold: GoldMap
    run: str

    def rows(
        self, queries: Sequence[Query], chunk: Sequence[tuple[Mention, Sequence[int]]]
    ) -> list[Prediction]:
        wall, cpu = time.perf_counter(), time.process_time()
        answers = self.scoring.answer([mention for mention, _ in chunk])
        spent = (
            (time.perf_counter() - wall) / len(chunk),
            (time.process_time() - cpu) / len(chunk),
        )
        return [
            self._row(number, queries[number], rankings, spent if place == 0 else (0.0, 0.0))
            for (_, numbers), rankings in zip(chunk, answers, strict=True)
            for place, number in enumerate(numbers)
        ]

    def _row(
        self, number: int, query: Query, rankings: Sequence[Ranking], spent: tuple[float, float]
    ) -> Prediction:
        right = [self.linker.index.concept(row) for row in sorted(self.gold.right(query.gold))]
        ids = {concept.concept_id for concept in right}
        ranks = [_rank(ranking, ids) for ranking in rankings]
        known = [rank for rank in ranks if rank is not None]
        rank = max(known) if len(known) == len(ranks) else None
        first = rankings[0]
        context, start = window(query)
        return Prediction(
            run=self.run,
            number=number,
            where=query.where,
            mention=query.mention.text,
            context=context,
            start=start,
            language=query.language,
            group=query.group,
            document=query.document,
            gold=tuple(sorted(query.gold)),
            right=tuple(ConceptRow(id=c.concept_id, name=c.preferred_name) for c in right),
            rank=rank,
            answer=first.best.candidate.concept_id if first.best else None,
            candidates=shown(first.candidates, ranks[0]),
            ranker=first.ranker,
            degraded=first.degraded,
            seconds=spent[0],
            cpu_seconds=spent[1],
        )


def _rank(ranking: Ranking, right: set[str]) -> int | None:
    ids = (ranked.candidate.concept_id for ranked in ranking.candidates)
    return next((rank for rank, one in enumerate(ids, 1) if one in right), None)


def _one_ranker(rows: Sequence[Prediction], path: Path | None) -> None:
    """Raise UsageError where a resumed run meets another ranker than it began with."""
    names = sorted({row.ranker for row in rows if not row.degraded and row.candidates})
    if len(names) > 1:
        raise UsageError(
            f"{path} was begun with the ranker {names[0]!r}, now it is {names[1]!r}: "
            "give the same one, or another --out"
        )


def _speed(rows: Sequence[Prediction], scoring: Scoring) -> dict[str, Any]:
    """Throughput of the run, and the latency of some mentions asked one by one."""
    asked = [row for row in rows if row.seconds > 0]
    seconds = sum(row.seconds for row in asked)
    step = max(1, len(asked) // _TIMED)
    walls = []
    for row in asked[::step][:_TIMED]:
        started = time.perf_counter()
        scoring.answer([Mention(row.mention, row.context, row.start)])
        walls.append(1000 * (time.perf_counter() - started))
    return {
        "mentions": len(asked),
        "seconds": seconds,
        "mentions_per_second": len(asked) / seconds if seconds else math.nan,
        "cpu_ms": 1000 * sum(row.cpu_seconds for row in asked) / len(asked) if asked else math.nan,
        "one_by_one": len(walls),
        "p50_ms": _percentile(walls, 0.5),
        "p95_ms": _percentile(walls, 0.95),
    }


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def _run_id(
    protocol: str, checksum: str, system: Mapping[str, Any], retired: Mapping[str, str] | None
) -> str:
    """What a prediction depends on, as 16 hexadecimal digits; the commit is not among it, the version is."""
    known = {key: value for key, value in system.items() if key != "commit"}
    told = json.dumps([protocol, checksum, known, sorted((retired or {}).items())], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = named[0] if named else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def checkout_commit() -> str:
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


def finite(value: Any) -> Any:
    """The value with None for each number that JSON cannot say."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def render_table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table: recall in percent, covered / all, and the interval of the covered recall@1."""
    head = ["", "queries", "covered", *(f"R@{k}" for k in RECALL_AT), "MRR", "R@1, 95%"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in [*result["languages"].items(), ("average", result["average"])]:
        recalls = [
            f"{row[f'covered_recall@{k}']:.1f} / {row[f'all_recall@{k}']:.1f}" for k in RECALL_AT
        ]
        low, high = result["intervals"][name]["covered_recall@1"]
        cells = [
            name or "und",
            f"{row['queries']:.0f}",
            f"{row['covered']:.0f}",
            *recalls,
            f"{row['covered_mrr']:.3f}",
            f"{low:.1f} to {high:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
