"""Embedding by the engines of the builder, in one run: seconds, CPU of all processes, memory, equal bytes or not.

    python benchmarks/engines.py --aliases OUT/build/tables/aliases.parquet [--rows 20000] [--shard-rows 2000]

Two workers and one thread each for Ray, two threads for the local engine; the first row of an engine starts it.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from index_builder import embed
from index_builder.engines import open_engine
from index_builder.starter import ENCODER

_TICK = os.sysconf("SC_CLK_TCK")


class Family:
    """CPU seconds, and memory at its most, of this process and all that it started."""

    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}
        self.memory = 0.0
        self._over = threading.Event()

    def look(self) -> None:
        told = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = path.read_text().rpartition(")")[2].split()
                told[int(path.parent.name)] = (int(words[1]), sum(map(int, words[11:13])) / _TICK)
            except OSError:
                continue
        ours, before = {os.getpid()}, 0
        while len(ours) > before:
            before = len(ours)
            ours |= {pid for pid, (parent, _) in told.items() if parent in ours}
        memory = 0
        for pid in ours & told.keys():
            self.cpu[pid] = told[pid][1]
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                memory += int(rollup.partition("Pss:")[2].split()[0])
            except (OSError, IndexError):
                continue
        self.memory = max(self.memory, memory / 1e3)

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.look()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aliases", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=2000)
    given = parser.parse_args()
    embed.SHARD_ROWS = given.shard_rows
    write = sys.stdout.write
    write(
        "| engine | aliases | seconds | aliases/s | CPU s | MB (PSS) | shards alike |\n|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as root:
        aliases = Path(root) / "aliases.parquet"
        pq.write_table(pq.read_table(given.aliases, columns=["text"])[: given.rows], aliases)
        rows = pq.read_metadata(aliases).num_rows
        first: list[bytes] = []
        for name in ("local", "ray"):
            with open_engine(name) as engine:
                for turn in range(2):
                    family, directory = Family(), Path(root) / f"{name}-{turn}"
                    family.look()
                    spent, begun = sum(family.cpu.values()), time.monotonic()
                    with family.watched():
                        embed.embed_aliases(aliases, ENCODER, directory, lambda *_: None, engine)
                    seconds = time.monotonic() - begun
                    family.look()
                    shards = [path.read_bytes() for path in embed.shard_paths(directory)]
                    first = first or shards
                    cpu = sum(family.cpu.values()) - spent
                    write(
                        f"| {name} | {rows:,} | {seconds:.1f} | {rows / seconds:.0f} | {cpu:.1f} "
                        f"| {family.memory:.0f} | {shards == first} |\n"
                    )
                    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
