"""Time and memory of a piece of work over this process and all below it."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Memory:
    """Samples the memory of this process and all below it: the most of PSS and of RSS, in bytes."""

    def __enter__(self) -> "Memory":
        self.shared, self.resident, self._stop = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            shared, resident = map(sum, zip(*map(held, family()), strict=True))
            self.shared, self.resident = max(self.shared, shared), max(self.resident, resident)


def family() -> set[int]:
    """This process, its children, theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    members, found = {os.getpid()}, 0
    while found < len(members):
        found = len(members)
        members |= {child for child, parent in parents.items() if parent in members}
    return members


def held(process: int) -> tuple[int, int]:
    """PSS and RSS of a process, in bytes; nothing of one that has ended."""
    try:
        told = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split()[0]: int(line.split()[1]) << 10 for line in told[1:]}
    return sizes.get("Pss:", 0), sizes.get("Rss:", 0)


def resident_mb() -> float:
    """RSS of this process alone."""
    return held(os.getpid())[1] / 1e6


def timed(work: Callable[[], T]) -> tuple[T, float, Memory]:
    """Result, seconds, and the memory of all processes meanwhile."""
    with Memory() as memory:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    return result, seconds, memory
