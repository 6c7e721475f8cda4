"""Files of a cache of downloads, and what is known of them.

Beside the files lies `.downloads/` in the same layout: `NAME.part` while a file comes, with `NAME.part.json`,
which version it is a part of; then `NAME.json`, the record of a file that came whole.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_mcp.manifest import write_atomically

WORK = ".downloads"


class Record(BaseModel):
    """What is known of a file, or of the part of one: where it came from, which version it is."""

    model_config = ConfigDict(frozen=True)

    url: str
    query: str = ""
    etag: str = ""
    last_modified: str = ""
    size: int = 0  # of the whole file; 0: not known
    sha256: str = ""
    fetched: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record, or None where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, path: Path) -> None:
        write_atomically(path, self.model_dump_json(indent=1) + "\n")

    @property
    def validator(self) -> str:
        """What If-Range takes: a strong ETag, else the date; empty where a part cannot be trusted."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to lie at `root / file`; an address is asked if those before it do not give the file."""

    name: str  # the catalog's entry
    urls: tuple[str, ...]
    root: Path
    file: str
    size: int  # about
    limit: int  # what is larger is another file
    sha256: str = ""
    query: str = ""  # SPARQL, if the addresses are endpoints

    @property
    def path(self) -> Path:
        return self.root / self.file

    @property
    def record(self) -> Path:
        return self.root / WORK / f"{self.file}.json"

    @property
    def part(self) -> Path:
        return self.root / WORK / f"{self.file}.part"

    @property
    def part_record(self) -> Path:
        return self.root / WORK / f"{self.file}.part.json"

    def kept(self) -> Record | None:
        """The record of the file that is there; None unless it is the one that is wanted, and whole."""
        record = Record.read(self.record)
        if record is None or record.url not in self.urls or record.query != self.query:
            return None
        whole = size_of(self.path) == record.size
        return record if whole and self.sha256 in ("", record.sha256) else None

    def discard(self) -> None:
        """Throw away the part."""
        self.part.unlink(missing_ok=True)
        self.part_record.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
