"""What a source is: something that yields concepts and aliases, and sets bad rows aside."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Alias, Concept

Record = Concept | Alias


class Rejects:
    """Rows set aside: how many for each reason, and the first examples of each."""

    def __init__(self, examples: int = 20) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._most = examples

    def add(self, reason: str, where: str, row: object) -> None:
        self.counts[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < self._most:
            kept.append(f"{where}: {json.dumps(row, ensure_ascii=False, default=str)[:300]}")


class Source(BaseModel, ABC):
    """A source with its options. `name` and `license` mark the aliases that carry none of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    name: str = ""
    license: str = ""

    @property
    def label(self) -> str:
        return self.name or self.path.name.split(".")[0]

    def check(self) -> None:
        """Raise UsageError when the source cannot be read at all: before any work is done."""
        if not self.path.exists():
            raise UsageError(f"source {self.path}: no such file or directory")

    @abstractmethod
    def read(self, rejects: Rejects) -> Iterator[Record]:
        """Concepts and aliases in any order; an alias may name a concept that no row describes.

        Raises:
            UsageError: the input as a whole cannot be read as this kind.
        """
