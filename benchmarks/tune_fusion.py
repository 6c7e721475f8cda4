"""How the two weights of the fusion were chosen: recall of the whole retriever, on a development half.

    python benchmarks/tune_fusion.py --index build/open-kb --shared ../shared/data

The channels are asked once for each mention; every choice of weights orders the same evidence.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from bioelx_mcp.evaluation.datasets import read_xlbel
from bioelx_mcp.evaluation.metrics import RECALL_AT
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Retriever, fuse

LIMIT = max(RECALL_AT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    retriever = Retriever(AliasIndex(args.index))
    index = retriever.index
    weights = [(weight, 0.0) for weight in np.linspace(0.0, 1.0, 6)]
    weights += [
        (weight, alone) for weight in (0.4, 0.5, 0.6) for alone in (0.6, 0.65, 0.7, 0.75, 0.8)
    ]
    queries = [
        (query, gold)
        for query in read_xlbel(args.shared / "eval" / "xlbel")
        if (gold := {row for row in map(index.find_concept, query.gold) if row is not None})
    ]
    languages = sorted({query.language for query, _ in queries})
    found = np.zeros((len(weights), len(languages), len(RECALL_AT)))
    counts = np.zeros(len(languages))
    for start in range(0, len(queries), 64):
        chunk = queries[start : start + 64]
        texts = [query.mention.text for query, _ in chunk]
        near = index.search_dense(index.encoder.encode(texts), LIMIT * 8)
        for (query, gold), text, hits in zip(chunk, texts, near, strict=True):
            language = languages.index(query.language)
            counts[language] += 1
            evidence = retriever.gather(text, hits, LIMIT * 8)
            concepts = index.alias_concept[evidence.rows]
            for number, weight in enumerate(weights):
                places = retriever.order(evidence, fuse(evidence, *weight))[:LIMIT]
                right = np.flatnonzero(np.isin(concepts[places], list(gold)))
                if len(right):
                    found[number, language] += right[0] < np.array(RECALL_AT)
    sys.stdout.write(
        "| dense weight | dense alone | " + " | ".join(f"R@{k}" for k in RECALL_AT) + " |\n"
    )
    sys.stdout.write("|---|---|" + "---|" * len(RECALL_AT) + "\n")
    for number, (weight, alone) in enumerate(weights):
        recall = 100 * (found[number] / counts[:, None]).mean(axis=0)
        sys.stdout.write(
            f"| {weight:.2f} | {alone:.2f} | "
            + " | ".join(f"{value:.1f}" for value in recall)
            + " |\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
