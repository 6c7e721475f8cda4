"""What a search costs: one mention, many, the first answer, memory; and what the dense index loses against exact search.

    python benchmarks/latency.py --index build/open-kb --shared ../shared/data --out benchmarks/results/latency.json

Mentions of the XL-BEL development half, ten candidates each. CPU times are those of the whole process, encoding
included; the peer is character 1-3-gram TF-IDF over the same names.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from memory import resident_mb
from peers import tfidf

from bioelx_mcp.evaluation.datasets import read_xlbel
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Mention

LIMIT = 10
DEPTH = 64  # of the dense hits that are compared with exact search
FIRST = """
import sys
from bioelx_mcp import Linker
Linker.open(sys.argv[1]).search(["Herzinfarkt"], 10)
"""


def first_answer(index: Path) -> float:
    """CPU seconds from a new process to its first answer, imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", FIRST, index], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_by_one(search: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """CPU milliseconds of one mention."""
    spent = []
    for text in texts:
        began = time.process_time()
        search(text)
        spent.append(1000 * (time.process_time() - began))
    return {
        "median_ms": float(np.median(spent)),
        "p95_ms": float(np.percentile(spent, 95)),
    }


def dense_recall(index: AliasIndex, texts: Sequence[str]) -> float:
    """The share of the nearest aliases of exact search that the index finds."""
    queries = index.encoder.encode(texts)
    matrix = index.vectors.read()
    found = index.search_dense(queries, DEPTH)
    shares = []
    for query, (rows, _) in zip(queries, found, strict=True):
        similarity = matrix @ query
        least = np.partition(similarity, -DEPTH)[-DEPTH]
        shares.append(float(np.mean(similarity[rows[:DEPTH]] >= least - 1e-6)))
    return float(np.mean(shares))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--singles", type=int, default=300)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    told: dict[str, object] = {"first_answer_cpu_s": first_answer(args.index)}
    texts = [query.mention.text for query in read_xlbel(args.shared / "eval" / "xlbel")]
    some = texts[:: max(1, len(texts) // args.singles)]
    retriever = Retriever(AliasIndex(args.index))
    index = retriever.index
    told |= {"index": index.manifest.index_id, "aliases": index.manifest.aliases}
    retriever.search_candidates([Mention(text) for text in some[:20]], LIMIT)
    told["one"] = one_by_one(lambda text: retriever.search_candidates([Mention(text)], LIMIT), some)
    told["resident_mb_after_one_by_one"] = resident_mb()
    began, cpu = time.perf_counter(), time.process_time()
    retriever.search_candidates([Mention(text) for text in texts], LIMIT)
    told["batch"] = {
        "mentions_per_second": len(texts) / (time.perf_counter() - began),
        "cpu_ms": 1000 * (time.process_time() - cpu) / len(texts),
    }
    told["resident_mb_after_batch"] = resident_mb()
    told["dense_recall"] = dense_recall(index, some)
    peer = tfidf(index.alias_text.to_pylist(), index.alias_concept)
    told["one_tfidf"] = one_by_one(lambda text: list(peer([text])), some[:60])
    text = json.dumps(told, indent=1) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
