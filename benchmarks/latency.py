"""What a search costs: one mention, many, the first answer, memory; and what the dense index loses against exact search.

    python benchmarks/latency.py --index build/open-kb --shared ../shared/data --out benchmarks/results/latency.json

Mentions of the XL-BEL development half, ten candidates each; one by one on one core, together on all. CPU times are those
of the whole process, encoding included; the peers are character 1-3-gram TF-IDF and RapidFuzz over the same names. The dense search alone is
compared with FAISS over the same vectors, flat and HNSW, one thread each: as many hits as the retriever asks for, ours of
the cosine that it asks for.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from memory import resident_mb
from numpy.typing import NDArray
from peers import rapidfuzz, tfidf
from results_file import tell

from bioelx_mcp.evaluation.datasets import read_xlbel
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import _LEAST_COSINE, Retriever, _dense_hits
from bioelx_mcp.schema import Mention

LIMIT = 10
DEPTH = 64  # of the dense hits that are compared with exact search
HITS = _dense_hits(LIMIT)  # that the retriever asks for
HNSW = {"neighbours": 16, "ef_construction": 40, "ef_search": 256}
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


def on_cores(cores: set[int]) -> None:
    """Let all threads of this process run on these cores alone."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def dense_searches(index: AliasIndex, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Our dense search and FAISS's over the same vectors: CPU milliseconds of a mention, recall against exact search."""
    import faiss

    queries = index.encoder.encode(texts)
    matrix = index.vectors.read()
    flat = faiss.IndexFlatIP(matrix.shape[1])
    flat.add(matrix)
    hnsw = faiss.IndexHNSWFlat(matrix.shape[1], HNSW["neighbours"], faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction, hnsw.hnsw.efSearch = HNSW["ef_construction"], HNSW["ef_search"]
    began = time.process_time()
    hnsw.add(matrix)
    built = time.process_time() - began
    faiss.omp_set_num_threads(1)
    exact = [np.partition(matrix @ query, -DEPTH)[-DEPTH] for query in queries]
    searches: dict[str, Callable[[int], NDArray[np.int64]]] = {
        "ours": lambda i: index.search_dense(queries[i : i + 1], HITS, least=_LEAST_COSINE)[0][0],
        "faiss_flat": lambda i: flat.search(queries[i : i + 1], HITS)[1][0],
        "faiss_hnsw": lambda i: hnsw.search(queries[i : i + 1], HITS)[1][0],
    }
    told: dict[str, dict[str, float]] = {}
    for name, search in searches.items():
        spent, found = [], []
        for i in range(len(queries)):
            began = time.process_time()
            rows = search(i)
            spent.append(1000 * (time.process_time() - began))
            found.append(np.sum(matrix[rows[:DEPTH]] @ queries[i] >= exact[i] - 1e-6) / DEPTH)
        told[name] = {"median_ms": float(np.median(spent)), "recall": float(np.mean(found))}
    told["faiss_hnsw"] |= {"build_cpu_s": built, **HNSW}
    return told


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
    cores = os.sched_getaffinity(0)
    on_cores({min(cores)})
    told["one"] = one_by_one(lambda text: retriever.search_candidates([Mention(text)], LIMIT), some)
    on_cores(cores)
    told["resident_mb_after_one_by_one"] = resident_mb()
    retriever.search_candidates([Mention(text) for text in texts[:1000]], LIMIT)
    began, cpu = time.perf_counter(), time.process_time()
    retriever.search_candidates([Mention(text) for text in texts], LIMIT)
    told["batch"] = {
        "mentions_per_second": len(texts) / (time.perf_counter() - began),
        "cpu_ms": 1000 * (time.process_time() - cpu) / len(texts),
    }
    told["resident_mb_after_batch"] = resident_mb()
    names = index.alias_text.to_pylist()
    for peer in (tfidf, rapidfuzz):
        search = peer(names, index.alias_concept)
        told[f"one_{peer.__name__}"] = one_by_one(lambda text: list(search([text])), some[:60])  # noqa: B023
    told["dense"] = dense_searches(index, some)
    tell(told, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
