"""How the weights of the fusion were chosen, and what each kind of evidence adds, on development halves.

    python benchmarks/tune_fusion.py --index build/open-kb --shared ../shared/data

XL-BEL (names in ten languages, without context) and two PubTator corpora (English abstracts, their abbreviations
written out). The channels are asked once for each mention; every choice orders the same evidence. Recall in percent
over distinct concepts, covered mentions; XL-BEL as the average of its languages.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from bioelx_mcp.evaluation.datasets import read_dataset
from bioelx_mcp.evaluation.gold import GoldMap
from bioelx_mcp.fusion import WEIGHTS, Evidence, Weights, fuse
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Query, Retriever, _dense_hits, forms_of
from bioelx_mcp.schema import Mention

CORPORA = {
    "XL-BEL": ("xlbel", "xlbel"),
    "BC5CDR": ("pubtator", "pubtator/bc5cdr_dev.pubtator.txt"),
    "NCBI disease": ("pubtator", "pubtator/ncbi_disease_dev.pubtator.txt"),
}
RECALL_AT = (1, 5, 64)
HITS = _dense_hits(10)
GRID = {
    "dense": (0.2, 0.3, 0.4, 0.5, 0.6),
    "dense_alone": (0.65, 0.7, 0.75, 0.8, 0.85),
    "further": (0.0, 0.02, 0.04, 0.06),
    "renown": (0.0, 0.02, 0.03, 0.05),
    "preferred": (0.0, 0.02, 0.05, 0.1),
    "spoken": (0.0, 0.02, 0.05),
}


@dataclass(frozen=True)
class Asked:
    """A mention's evidence, the concepts that are right, and how often the corpus asks for it."""

    language: str
    evidence: Evidence
    right: frozenset[int]
    times: int


def ask(retriever: Retriever, name: str, path: Path) -> Iterator[Asked]:
    queries = read_dataset(name, path).queries
    gold = GoldMap(retriever.index, {one for query in queries for one in query.gold})
    asked: Counter[tuple[tuple[str, ...], str, frozenset[int]]] = Counter()
    for query in queries:
        mention = query.mention
        if name == "xlbel":
            mention = Mention(mention.text)
        if right := gold.right(query.gold):
            asked[(forms_of(mention), query.language, right)] += 1
    for (forms, language, right), times in asked.items():
        query = Query(forms, language)
        (found,) = retriever.search_channels([query], HITS)
        yield Asked(language, retriever.gather(query, found), right, times)


def recall(asked: list[Asked], weights: Weights) -> list[float]:
    found: dict[str, list[int]] = defaultdict(list)
    for one in asked:
        concepts = one.evidence.concept[fuse(one.evidence, weights).places[: max(RECALL_AT)]]
        right = np.flatnonzero(np.isin(concepts, list(one.right)))
        found[one.language] += [int(right[0]) if len(right) else max(RECALL_AT)] * one.times
    return [
        100 * float(np.mean([np.mean(np.array(ranks) < k) for ranks in found.values()]))
        for k in RECALL_AT
    ]


def without(evidence: Evidence, channel: str) -> Evidence:
    """The evidence as if a channel had said nothing of it."""
    return replace(evidence, **{channel: np.zeros_like(getattr(evidence, channel))})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    retriever = Retriever(AliasIndex(args.index))
    asked = {
        name: list(ask(retriever, dataset, args.shared / "eval" / path))
        for name, (dataset, path) in CORPORA.items()
    }
    heads = [f"{name} R@{k}" for name in CORPORA for k in RECALL_AT]
    sys.stdout.write("| choice | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads) + "\n")

    def show(choice: str, weights: Weights, given: Mapping[str, list[Asked]] = asked) -> None:
        values = [f"{value:.1f}" for rows in given.values() for value in recall(rows, weights)]
        sys.stdout.write(f"| {choice} | " + " | ".join(values) + " |\n")
        sys.stdout.flush()

    show("**as it is**", WEIGHTS)
    for channel in ("cosine", "lexical", "exact"):
        silent = {
            name: [replace(one, evidence=without(one.evidence, channel)) for one in rows]
            for name, rows in asked.items()
        }
        show(f"without what the {channel} says", WEIGHTS, silent)
    for field in fields(Weights):
        for value in GRID[field.name]:
            if value != getattr(WEIGHTS, field.name):
                show(f"{field.name} {value}", replace(WEIGHTS, **{field.name: value}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
