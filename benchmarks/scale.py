"""How an index grows: synthetic ones of 10 thousand to 5 million aliases, built and then searched in a process of its own.

    python benchmarks/scale.py --out benchmarks/results/scale.json

Names are recombined from the words of the starter knowledge base, language by language, about seven to a concept;
vectors from its real ones: a concept is a mixture of two of them, an alias lies near its concept. Everything after
the vectors is the builder's own `materialize_index`. Milliseconds are of CPU, with one thread for the encoder;
recall is that of the dense search, 64 hits, against exact search over the same vectors.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from memory import resident_mb, timed
from numpy.typing import NDArray

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.manifest import ALIASES_SCHEMA, CONCEPTS_SCHEMA, IndexLayout, vector_field
from bioelx_mcp.text import normalize_alias
from index_builder.config import STARTER_ENCODER, BuildLayout, IndexConfig
from index_builder.embed import SHARD_ROWS, read_vectors, vector_array
from index_builder.starter import CONCEPTS

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 5_000_000)
ALIASES_A_CONCEPT = 7
NOISE = 0.7  # length of what sets an alias apart from its concept, whose own is 1
TYPES = ("Disease or Syndrome", "Finding", "Pharmacologic Substance", "Bacterium", "Cell")
SOURCES = ("msh", "hpo", "ncit", "wikidata", "hpo|msh")
PREFIXES = ("UMLS", "MONDO", "HP")
QUERIES, FOUND = 200, 64


class Names:
    """Words of the starter knowledge base, from which further names are made."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        words: dict[str, Counter[str]] = defaultdict(Counter)
        for path in sorted(CONCEPTS.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                for language, names in json.loads(line)["names"].items():
                    self.texts += names
                    for name in names:
                        words[language].update(self.parts(name, language))
        self.languages = sorted(words)
        self.words = {language: list(words[language]) for language in self.languages}

    @staticmethod
    def parts(name: str, language: str) -> list[str]:
        spaced = language not in ("ja", "th", "zh")
        return (
            name.split()
            if spaced
            else [name[i : i + 2] for i in range(0, len(name), 2) if name[i : i + 2].strip()]
        )

    def make(self, language: str, numbers: Sequence[float]) -> str:
        """A name of a few words, chosen by numbers within 0 and 1."""
        words = self.words[language]
        chosen = [words[int(number * len(words))] for number in numbers]
        return (" " if language not in ("ja", "th", "zh") else "").join(chosen)


def write_build(size: int, build: BuildLayout, encoder: OnnxEncoder) -> None:
    """Tables and vectors of a synthetic knowledge base, where a build has them."""
    rng = np.random.default_rng(size)
    names = Names()
    build.tables.mkdir(parents=True)
    build.vectors.mkdir(parents=True)
    concept = np.sort(rng.integers(0, max(1, size // ALIASES_A_CONCEPT), size))
    ids, concept = np.unique(concept, return_inverse=True)
    told = [f"{PREFIXES[number % 3]}:{number:08d}" for number in range(len(ids))]
    order = np.argsort(told, kind="stable")
    concepts = pa.table(
        {
            "concept_id": np.array(told)[order],
            "preferred_name": np.array(told)[order],
            "semantic_types": [[TYPES[number % len(TYPES)]] for number in order],
            "definition": [""] * len(ids),
            "xrefs": [[]] * len(ids),
            "alt_ids": [[]] * len(ids),
            "parents": [[]] * len(ids),
            "popularity": np.zeros(len(ids), np.int32),
        },
        schema=CONCEPTS_SCHEMA,
    )
    pq.write_table(concepts, build.tables / "concepts.parquet")
    real = encoder.encode(names.texts[:: max(1, len(names.texts) // 5000)])
    languages = rng.choice(len(names.languages), size)
    with pq.ParquetWriter(build.tables / "aliases.parquet", ALIASES_SCHEMA) as writer:
        for number, start in enumerate(range(0, size, SHARD_ROWS)):
            of = concept[start : start + SHARD_ROWS]
            spoken = [names.languages[i] for i in languages[start : start + SHARD_ROWS]]
            lengths = rng.integers(1, 5, len(of))
            drawn = rng.random((len(of), 4))
            texts = [
                names.make(language, row[:length])
                for language, row, length in zip(spoken, drawn, lengths, strict=True)
            ]
            columns = {
                "concept": of.astype(np.int32),
                "text": texts,
                "normalized": [normalize_alias(text) for text in texts],
                "language": spoken,
                "kind": ["synonym"] * len(of),
                "source": [SOURCES[int(i)] for i in rng.integers(0, len(SOURCES), len(of))],
                "license": [""] * len(of),
                "disambiguation": [""] * len(of),
                "homonyms": np.zeros(len(of), np.int32),
            }
            writer.write_table(pa.table(columns, schema=ALIASES_SCHEMA))
            vectors = unit(
                mixtures(real, of) + NOISE * unit(rng.normal(size=(len(of), real.shape[1])))
            )
            path = build.vectors / f"{number:05d}.arrow"
            schema = pa.schema([vector_field(real.shape[1])])
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as shard:
                shard.write_batch(pa.record_batch([vector_array(vectors)], schema=schema))
    report = {
        "languages": dict.fromkeys(names.languages, 0),
        "sources": dict.fromkeys(SOURCES, 0),
        "source_licenses": {},
    }
    (build.tables / "report.json").write_text(json.dumps(report), encoding="utf-8")


def mixtures(real: NDArray[np.float32], concepts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of concepts, unit norm: two real ones each, chosen and weighed by the concept's number."""
    first, second = concepts * 7919 % len(real), concepts * 104_729 // 7 % len(real)
    share = (concepts % 97 / 96.0)[:, None]
    return unit(share * real[first] + (1.0 - share) * real[second])


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build_one(size: int, root: Path) -> dict[str, Any]:
    from index_builder.materialize import materialize_index

    layout, build = IndexLayout(root), BuildLayout(root / "build")
    if not layout.manifest.exists():
        shutil.rmtree(root, ignore_errors=True)
        write_build(size, build, OnnxEncoder(STARTER_ENCODER, threads=1))
    before = time.process_time()
    manifest, seconds, memory = timed(
        lambda: materialize_index(
            build, STARTER_ENCODER, layout, IndexConfig(), name="scale", index_id=f"scale-{size}"
        )
    )
    return {
        "aliases": manifest.aliases,
        "concepts": manifest.concepts,
        "dense_index": manifest.dense_index,
        "bits": manifest.bits,
        "partitions": manifest.partitions,
        "nprobes": manifest.nprobes,
        "build_seconds": seconds,
        "build_cpu_seconds": time.process_time() - before,
        "build_memory_mb": memory.resident / 1e6,
        "disk_mb": sum(manifest.files.values()) / 1e6,
    }


def measure(root: Path) -> dict[str, Any]:
    """Cold start, memory, time and recall of a process that only serves."""
    started, before = time.perf_counter(), time.process_time()
    from bioelx_mcp.index import AliasIndex
    from bioelx_mcp.retriever import Retriever
    from bioelx_mcp.schema import Mention

    index = AliasIndex(root, threads=1)
    retriever = Retriever(index)
    retriever.search_candidates([Mention("heart attack")])
    result = {
        "first_answer_seconds": time.perf_counter() - started,
        "first_answer_cpu_seconds": time.process_time() - before,
        "first_answer_mb": resident_mb(),
    }
    rng = np.random.default_rng(0)
    rows = rng.choice(index.manifest.aliases, QUERIES, replace=False)
    texts = index.alias_text.take(pa.array(rows)).to_pylist()
    mentions = [Mention(text[:-1] if len(text) > 3 else text) for text in texts]
    vectors = index.vectors.read(np.sort(rows))
    vectors = unit(vectors + 0.3 * unit(rng.normal(size=vectors.shape)))
    index.search_dense(vectors[:1], FOUND)
    result["dense_ms"] = cpu_ms(lambda: [index.search_dense(v[None], FOUND) for v in vectors])
    result["dense_batch_ms"] = cpu_ms(lambda: index.search_dense(vectors, FOUND))
    result["mention_ms"] = cpu_ms(lambda: [retriever.search_candidates([m]) for m in mentions])
    result["mention_batch_ms"] = cpu_ms(lambda: retriever.search_candidates(mentions))
    result["serving_mb"] = resident_mb()
    best = np.full((QUERIES, FOUND), -1.0, dtype=np.float32)
    for shard in shards(root):
        best = np.sort(np.hstack([best, vectors @ shard.T]), axis=1)[:, -FOUND:]
    hits = 0
    for vector, kth, (found, _) in zip(
        vectors, best[:, 0], index.search_dense(vectors, FOUND), strict=True
    ):
        hits += int(np.sum(index.vectors.read(np.sort(found)) @ vector >= kth - 1e-5))
    result["recall"] = hits / (QUERIES * FOUND)
    return result


def shards(root: Path) -> Iterator[NDArray[np.float32]]:
    for shard in read_vectors(BuildLayout(root / "build").vectors):
        flat = shard.flatten().to_numpy(zero_copy_only=False)
        yield flat.reshape(len(shard), -1).astype(np.float32)


def cpu_ms(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return 1000 * (time.process_time() - before) / QUERIES


COLUMNS = {
    "aliases": "{:,.0f}",
    "dense_index": "{}",
    "bits": "{}",
    "nprobes": "{}",
    "partitions": "{}",
    "recall": "{:.3f}",
    "mention_ms": "{:.1f}",
    "mention_batch_ms": "{:.1f}",
    "dense_ms": "{:.1f}",
    "dense_batch_ms": "{:.2f}",
    "first_answer_seconds": "{:.1f}",
    "first_answer_cpu_seconds": "{:.1f}",
    "serving_mb": "{:.0f}",
    "disk_mb": "{:.0f}",
    "build_cpu_seconds": "{:.0f}",
    "build_memory_mb": "{:.0f}",
}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time, memory, disk and building against the number of aliases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4))
    parts = (
        ("CPU ms of one mention", {"mention_ms": "alone", "mention_batch_ms": "in a batch"}),
        ("MB", {"serving_mb": "resident while serving", "disk_mb": "on disk"}),
        (
            "CPU seconds",
            {
                "build_cpu_seconds": "to materialise",
                "first_answer_cpu_seconds": "to the first answer",
            },
        ),
    )
    aliases = [row["aliases"] for row in rows]
    for axis, (label, lines) in zip(axes, parts, strict=True):
        for key, name in lines.items():
            axis.plot(aliases, [row[key] for row in rows], marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="aliases", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--work", type=Path, default=Path("build/scale"))
    parser.add_argument("--out", type=Path, help="JSON; beside it an SVG of the same name")
    parser.add_argument("--keep", action="store_true", help="leave the indexes in --work")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        sys.stdout.write(json.dumps(measure(args.measure)))
        return 0
    rows = json.loads(args.out.read_text())["rows"] if args.out and args.out.exists() else []
    sys.stdout.write("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS) + "\n")
    for size in args.sizes:
        root = args.work / str(size)
        row = build_one(size, root)
        command = [sys.executable, __file__, "--measure", str(root)]
        row |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        rows = sorted(
            [*(one for one in rows if one["aliases"] != size), row], key=lambda one: one["aliases"]
        )
        cells = [form.format(row[key]) for key, form in COLUMNS.items()]
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
        sys.stdout.flush()
        if args.out:
            args.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
            plot(rows, args.out.with_suffix(".svg"))
        if not args.keep:
            shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
