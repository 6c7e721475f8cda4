"""A UMLS release to the two tables: rows of MRCONSO a second and memory.

    python benchmarks/umls_tables.py --rows 5000000 --out benchmarks/results/umls_tables.json

The release is made first, in a temporary directory, by umls_rows.py. Measured are the build's own stages: reading
into shards and merging. A reader that splits every line in Python stands beside it, in the same run.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from memory import timed
from umls_rows import write_release

from index_builder.config import MergeConfig
from index_builder.sources.umls import UmlsSource
from index_builder.staging import stage_source
from index_builder.tables import build_tables


def read_plainly(path: Path) -> int:
    """Names that are left of MRCONSO when each line is split and lower-cased, and nothing else done."""
    names: set[tuple[str, str, str]] = set()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = line.split("|")
            names.add((fields[0], fields[1], fields[14].lower()))
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="umls-") as name:
        directory = Path(name)
        write_release(given.rows, directory, 0)
        source = UmlsSource(path=directory)
        staged, reading, read_memory = timed(
            lambda: stage_source(
                source,
                directory / "shards",
                workers=given.workers,
                max_rejected=0.01,
                report=lambda *_: None,
            )
        )
        report, merging, memory = timed(
            lambda: build_tables([staged], directory / "tables", MergeConfig())
        )
        _, plain, plain_memory = timed(lambda: read_plainly(directory / "META" / "MRCONSO.RRF"))
    result = {
        "rows": given.rows,
        "concepts": report["concepts"],
        "aliases": report["aliases"],
        "reading_seconds": round(reading, 1),
        "merging_seconds": round(merging, 1),
        "rows_per_second": round(given.rows / (reading + merging)),
        "peak_memory_mb": round(max(memory.shared, read_memory.shared) / 1e6),
        "plain_rows_per_second": round(given.rows / plain),
        "plain_memory_mb": round(plain_memory.shared / 1e6),
    }
    told = json.dumps(result, indent=1)
    if given.out:
        given.out.write_text(told + "\n", encoding="utf-8")
    sys.stdout.write(told + "\n")


if __name__ == "__main__":
    main()
