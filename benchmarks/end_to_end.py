"""A whole build at size: synthetic names of real shape, from a file to an index in service, stage by stage.

    python benchmarks/end_to_end.py --out benchmarks/results/end_to_end.json [--encoder DIRECTORY] [--aliases 5000000]

Names are those of `scale.py`, about seven to a concept, in a Parquet table as a user would bring it; the build is
`bioelx-mcp build-index` with the encoder that ships, in a process of its own. Each stage is told with its
seconds, its CPU seconds, and the most memory of all processes meanwhile (PSS: pages that they share count once).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from memory import family, held
from results_file import tell
from scale import ALIASES_A_CONCEPT, PREFIXES, SOURCES, Names

from bioelx_mcp.evaluation.run import checkout_commit

BLOCK = 200_000  # names that are written at once
STAGE = re.compile(r"[a-z ]+: ")  # what the builder says, not what its libraries warn of
CONFIG = """name = "synthetic"
out = "index"
encoder = "{encoder}"
[[sources]]
kind = "table"
path = "names.parquet"
license = "CC0-1.0"
"""


def write_names(aliases: int, path: Path) -> None:
    """So many rows of concept_id, text, language, source."""
    rng = np.random.default_rng(aliases)
    names = Names()
    concept = np.sort(rng.integers(0, max(1, aliases // ALIASES_A_CONCEPT), aliases))
    writer: pq.ParquetWriter | None = None
    for start in range(0, aliases, BLOCK):
        of = concept[start : start + BLOCK].tolist()
        spoken = [names.languages[i] for i in rng.integers(0, len(names.languages), len(of))]
        lengths, drawn = rng.integers(1, 5, len(of)), rng.random((len(of), 4))
        table = pa.table(
            {
                "concept_id": [f"{PREFIXES[number % 3]}:{number:08d}" for number in of],
                "text": [
                    names.make(language, row[:length])
                    for language, row, length in zip(spoken, drawn, lengths, strict=True)
                ],
                "language": spoken,
                "source": [SOURCES[0]] * len(of),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def build(work: Path) -> list[dict[str, Any]]:
    """Run the build; a row for each stage that it tells of.

    The builder says each stage's line when the stage ends, and what it spent since the line before is the stage's.
    """
    command = [
        sys.executable, "-m", "bioelx_mcp", "build-index", "--config", str(work / "build.toml"),
    ]  # fmt: skip
    log = work / "progress.txt"
    stages: list[dict[str, Any]] = []
    began, spent, most, seen = time.perf_counter(), 0.0, 0, 0
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL)
        while True:
            ended = process.poll() is not None
            members = family() - {os.getpid()}
            most = max(most, sum(held(member)[0] for member in members))
            lines = [line for line in log.read_text().splitlines() if STAGE.match(line)]
            if len(lines) > seen or ended:
                now, cpu = time.perf_counter(), cpu_seconds(members) if not ended else spent
                told = {
                    "said": lines[seen:],
                    "seconds": now - began,
                    "cpu_seconds": cpu - spent,
                    "memory_mb": most / 1e6,
                }
                stages.append(told)
                began, spent, most, seen = now, cpu, 0, len(lines)
            if ended:
                break
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(log.read_text())
    return stages


def cpu_seconds(members: set[int]) -> float:
    """Of these processes and those that they have waited for."""
    ticks = 0
    for member in members:
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aliases", type=int, default=5_000_000)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--work", type=Path, default=Path("build/end-to-end"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the index in --work")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    write_names(args.aliases, args.work / "names.parquet")
    (args.work / "build.toml").write_text(CONFIG.format(encoder=args.encoder))
    stages = build(args.work)
    index = args.work / "index"
    manifest = json.loads((index / "manifest.json").read_text())
    told = {
        "commit": checkout_commit(),
        "cores": os.cpu_count(),
        "rows": args.aliases,
        "encoder": args.encoder,
        "stages": stages,
        "memory_mb": max(stage["memory_mb"] for stage in stages),
        "manifest": {
            key: manifest[key]
            for key in ("aliases", "concepts", "dense_index", "bits", "partitions", "nprobes")
        },
        "index_mb": sum(manifest["files"].values()) / 1e6,
        "disk_mb": sum(p.stat().st_size for p in args.work.rglob("*") if p.is_file()) / 1e6,
    }
    tell(told, args.out)
    if not args.keep:
        shutil.rmtree(args.work)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
