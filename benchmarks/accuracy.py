"""Every development half beside its peers in one run over one index: recall, intervals, and what is significant.

    python benchmarks/accuracy.py --index build/open-kb --shared ../shared/data --out benchmarks/results/accuracy.json

Peers answer the same mentions over the same aliases: exact match, and character 1-3-gram TF-IDF (scispaCy's
candidate generator). All are scored by `bioelx_mcp.evaluation`, on distinct concepts; `--every 4` asks every fourth
mention of sets of more than 5,000.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers import Search, exact_match, tfidf
from retrieval import over

from bioelx_mcp.evaluation.datasets import Dataset, read_dataset
from bioelx_mcp.evaluation.gold import GoldMap
from bioelx_mcp.evaluation.metrics import RECALL_AT, Outcome, average, summarize
from bioelx_mcp.evaluation.predictions import read_predictions
from bioelx_mcp.evaluation.results import write_result
from bioelx_mcp.evaluation.run import evaluate_linker
from bioelx_mcp.evaluation.statistics import intervals, paired_test
from bioelx_mcp.linker import Linker

SETS = {
    "XL-BEL": ("xlbel", "xlbel"),
    "Mantra EMEA": ("mantra", "mantra"),
    "BC5CDR": ("pubtator", "pubtator/bc5cdr_dev.pubtator.txt"),
    "NCBI disease": ("pubtator", "pubtator/ncbi_disease_dev.pubtator.txt"),
    "WikiMed-DE-BEL": ("wikimed-de-bel", "wikimed_de_bel"),
}
LARGE = 5000


def peer_outcomes(search: Search, dataset: Dataset, gold: GoldMap) -> tuple[list[Outcome], float]:
    """What a peer makes of the mentions that have a concept, and its CPU milliseconds for each that it was asked."""
    asked = [query for query in dataset.queries if query.gold]
    texts = list(dict.fromkeys(query.mention.text for query in asked))
    started = time.process_time()
    found = dict(zip(texts, search(texts), strict=True))
    spent = 1000 * (time.process_time() - started) / len(texts)
    outcomes = []
    for query in asked:
        right = gold.right(query.gold)
        ranks = (n for n, row in enumerate(found[query.mention.text], 1) if row in right)
        outcomes.append(Outcome(query.language, next(ranks, None), bool(right)))
    return outcomes, spent


def scores(outcomes: Sequence[Outcome], units: Sequence[str], cpu: float) -> dict[str, Any]:
    languages = sorted({outcome.language for outcome in outcomes})
    by_language = {
        language: summarize([o for o in outcomes if o.language == language])
        for language in languages
    }
    return {
        "languages": by_language,
        "average": average(list(by_language.values())),
        "interval": intervals(outcomes, units)["average"],
        "cpu_ms": cpu,
    }


def measure(
    linker: Linker, peers: dict[str, Search], dataset: Dataset, predictions: Path
) -> dict[str, Any]:
    """Ours and each peer's scores on one set, and the paired tests of ours against theirs."""
    result = evaluate_linker(linker, dataset, predictions=predictions)
    rows = [row for row in read_predictions(predictions) if not row.nil]
    ours = [row.outcome for row in rows]
    units = [row.document for row in rows]
    told: dict[str, Any] = {
        "queries": len(dataset.queries),
        "remarks": dataset.reasons,
        "checksum": dataset.checksum,
        "gold": result["gold"],
        "speed": result["speed"],
        "groups": result["groups"],
        "systems": {"BioELX-MCP, retrieval only": scores(ours, units, result["speed"]["cpu_ms"])},
        "tests": {},
    }
    gold = GoldMap(linker.index, {one for query in dataset.queries for one in query.gold})
    for name, search in peers.items():
        theirs, cpu = peer_outcomes(search, dataset, gold)
        told["systems"][name] = scores(theirs, units, cpu)
        told["tests"][name] = paired_test(ours, theirs, units)
    return told | {key: result[key] for key in ("system", "machine", "seed")}


def table_lines(name: str, told: dict[str, Any]) -> list[str]:
    lines = []
    for system, row in told["systems"].items():
        low, high = row["interval"]["covered_recall@1"]
        values = row["average"]
        recalls = " | ".join(f"{values[f'covered_recall@{k}']:.1f}" for k in RECALL_AT)
        p = told["tests"].get(system, {}).get("recall@1", {}).get("p")
        lines.append(
            f"| {name} | {system} | {recalls} | {low:.1f} to {high:.1f} | {values['all_recall@1']:.1f} "
            f"| {values['covered_mrr']:.3f} | {'' if p is None else f'{p:.4f}'} | {row['cpu_ms']:.1f} |"
        )
        name = ""
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--predictions", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    linker = Linker.open(args.index)
    build: dict[str, Callable[..., Search]] = {
        "exact match": over(exact_match),
        "character 1-3-gram TF-IDF": over(tfidf),
    }
    peers = {name: make(linker.index) for name, make in build.items()}
    args.predictions.mkdir(parents=True, exist_ok=True)
    head = [
        "set",
        "system",
        *(f"R@{k}" for k in RECALL_AT),
        "R@1, 95%",
        "all R@1",
        "MRR",
        "p",
        "ms",
    ]
    sys.stdout.write(f"index {linker.manifest.index_id}, covered queries, percent\n\n")
    sys.stdout.write("| " + " | ".join(head) + " |\n|" + "---|" * len(head) + "\n")
    results: dict[str, Any] = {}
    for name in args.sets:
        format, path = SETS[name]
        dataset = read_dataset(format, args.shared / "eval" / path)
        if len(dataset.queries) > LARGE and args.every > 1:
            dataset = replace(dataset, queries=dataset.queries[:: args.every])
        predictions = args.predictions / f"{name.lower().replace(' ', '-')}.jsonl"
        results[name] = measure(linker, peers, dataset, predictions)
        sys.stdout.write("\n".join(table_lines(name, results[name])) + "\n")
        sys.stdout.flush()
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_result(args.out, {"every": args.every, "sets": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
