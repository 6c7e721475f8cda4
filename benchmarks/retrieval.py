"""Retrieval on the XL-BEL development half, beside its peers, in one run over one table of aliases.

    python benchmarks/retrieval.py --index build/open-kb --shared ../shared/data

Peers: exact match on the raw lower-cased name, and character 1-3-gram TF-IDF (scispaCy's candidate generator),
both over the aliases of the index. Then each channel of ours alone, and the whole retriever. Slices: *named*,
the gold concept has an alias in the mention's language; *unnamed*, it has none.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from peers import LIMIT, Peer, Search, distinct, exact_match, tfidf
from tune_fusion import without

from bioelx_mcp.evaluation.datasets import Query as Asked
from bioelx_mcp.evaluation.datasets import read_xlbel
from bioelx_mcp.evaluation.metrics import RECALL_AT, Outcome, average, first_right, summarize
from bioelx_mcp.fusion import Evidence, fuse
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Query, Retriever
from bioelx_mcp.schema import Mention
from bioelx_mcp.text import character_grams, normalize_alias


def over(peer: Peer) -> Callable[[AliasIndex], Search]:
    """A peer over the aliases of an index."""
    return lambda index: peer(index.alias_text.to_pylist(), index.alias_concept)


def lexical(index: AliasIndex) -> Search:
    return lambda texts: (
        distinct(
            index.alias_concept[
                index.search_lexical(character_grams(normalize_alias(text)), LIMIT * 8)
            ].tolist()
        )
        for text in texts
    )


def dense(index: AliasIndex) -> Search:
    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(texts), 64):
            vectors = index.encoder.encode(texts[start : start + 64])
            for rows, _ in index.search_dense(vectors, LIMIT * 8):
                yield distinct(index.alias_concept[rows].tolist())

    return search


def dense_fused(index: AliasIndex) -> Search:
    """The dense channel's hits, and nothing else, in the order of the fusion: further names and renown count."""
    retriever = Retriever(index)

    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(texts), 64):
            queries = [Query((text,), "") for text in texts[start : start + 64]]
            each = retriever.search_channels(queries, LIMIT * 8)
            for query, found in zip(queries, each, strict=True):
                every = retriever.gather(query, found)
                dense = np.isin(every.rows, found[0].near[0])
                columns = {f.name: getattr(every, f.name)[dense] for f in fields(Evidence)}
                evidence = without(without(Evidence(**columns), "lexical"), "exact")
                yield evidence.concept[fuse(evidence).places].tolist()

    return search


def whole(index: AliasIndex) -> Search:
    retriever = Retriever(index)

    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(texts), 64):
            for candidates in retriever.search_candidates(
                [Mention(t) for t in texts[start : start + 64]], LIMIT
            ):
                yield [index.find_concept(c.concept_id) or 0 for c in candidates]

    return search


SYSTEMS: dict[str, Callable[[AliasIndex], Search]] = {
    "exact match": over(exact_match),
    "character 1-3-gram TF-IDF": over(tfidf),
    "ours, lexical channel": lexical,
    "ours, dense channel": dense,
    "ours, dense channel, fused": dense_fused,
    "ours, whole": whole,
}


def measure(index: AliasIndex, search: Search, queries: Sequence[Asked]) -> dict[str, Any]:
    started = time.perf_counter()
    found = list(search([query.mention.text for query in queries]))
    seconds = time.perf_counter() - started
    ids = [
        frozenset((index.concept(row).concept_id, *index.concept(row).alt_ids))
        for row in range(index.manifest.concepts)
    ]
    languages: dict[int, set[str]] = defaultdict(set)
    codes = index.alias_language.dictionary.to_pylist()
    for concept, code in zip(
        index.alias_concept.tolist(), index.alias_language.indices.to_pylist(), strict=True
    ):
        languages[concept].add(codes[code])
    slices: dict[str, list[Outcome]] = defaultdict(list)
    for query, rows in zip(queries, found, strict=True):
        gold = {row for row in map(index.find_concept, query.gold) if row is not None}
        outcome = Outcome(
            query.language, first_right([ids[row] for row in rows], query.gold), bool(gold)
        )
        slices["all"].append(outcome)
        if gold:
            slices[
                "named" if any(query.language in languages[row] for row in gold) else "unnamed"
            ].append(outcome)
    by_language = {
        language: summarize([o for o in slices["all"] if o.language == language])
        for language in sorted({o.language for o in slices["all"]})
    }
    return {
        "languages": by_language,
        "average": average(list(by_language.values())),
        "named": summarize(slices["named"]),
        "unnamed": summarize(slices["unnamed"]),
        "milliseconds_per_mention": 1000 * seconds / len(queries),
    }


HEAD = (
    "| system | R@1 | R@5 | R@10 | R@64 | named R@1 | R@64 | unnamed R@1 | R@64 | ms |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def row(name: str, result: dict[str, Any]) -> str:
    """A line of the table: recall on covered queries, averaged over languages and of the slices."""
    cells = [result["average"][f"covered_recall@{k}"] for k in RECALL_AT]
    cells += [result[part][f"covered_recall@{k}"] for part in ("named", "unnamed") for k in (1, 64)]
    cells.append(result["milliseconds_per_mention"])
    return f"| {name} | " + " | ".join(f"{value:.1f}" for value in cells) + " |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    index = AliasIndex(args.index)
    queries = read_xlbel(args.shared / "eval" / "xlbel")
    results: dict[str, Any] = {}
    sys.stdout.write(
        f"XL-BEL dev, {len(queries)} mentions, index {index.manifest.index_id}, covered queries\n\n{HEAD}"
    )
    for name in args.systems:
        result = results[name] = measure(index, SYSTEMS[name](index), queries)
        sys.stdout.write(row(name, result))
        sys.stdout.flush()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"index": index.manifest.index_id, "systems": results}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
