"""Public files a build can fetch: the catalog, the plan (what is here, what is to come, under which licence),
and the fetching, one file after the other.

A file lies in the cache by its local name; those of an entry that holds several, in a directory of its name.
A mirror is laid out like a cache (or is the copy of one): with it, nothing is fetched.
"""

import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import httpx2
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bioelx_mcp.errors import UsageError, problems
from index_builder.config import PRESETS, Report
from index_builder.downloads.cache import WORK, Record, Wanted, sha256_of, size_of
from index_builder.downloads.transfer import Told, open_client, transfer
from index_builder.sources.formats.sparql import sparql_query

CATALOG = PRESETS / "catalog.toml"
_MOST_TIMES_EXPECTED = 20
State = Literal["mirror", "cached", "check", "resume", "fetch"]
_TOLD: dict[State, str] = {
    "mirror": "in the mirror",
    "cached": "in the cache",
    "check": "in the cache, asks for a newer one",
    "resume": "goes on",
    "fetch": "to be fetched",
}


class Download(BaseModel):
    """An entry of the catalog. `{}` in addresses and file name is replaced by each of `each`.

    `identifier` makes it a question to SPARQL endpoints: all names of the items that have this identifier of
    Wikidata, in one language at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str  # of the source that reads it
    url: tuple[str, ...] = Field(min_length=1)  # one after the other, until one gives it
    file: str
    each: tuple[str, ...] = ()
    identifier: str = ""  # as in P2892
    size: int = Field(gt=0)  # bytes of all its files, about
    sha256: str = ""
    license: str
    license_url: str
    homepage: str

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_many(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.each) != ("{}" in self.file):
            raise ValueError("`each` and `{}` in `file` belong together")
        if self.sha256 and self.each:
            raise ValueError("one sha256 cannot be that of several files")
        return self

    @property
    def local(self) -> str:
        """The file, or the directory of its files, below a cache or mirror."""
        return self.name if self.each else self.file

    def wanted(self, root: Path) -> list[Wanted]:
        """Its files, each with what it is fetched by."""
        size = self.size // max(1, len(self.each))
        return [
            Wanted(
                name=self.name,
                urls=tuple(url.replace("{}", one) for url in self.url),
                root=root,
                file=f"{self.name}/{self.file.replace('{}', one)}" if self.each else self.file,
                size=size,
                limit=_MOST_TIMES_EXPECTED * self.size,
                sha256=self.sha256,
                query=sparql_query(self.identifier, (one,)) if self.identifier else "",
            )
            for one in self.each or ("",)
        ]


@dataclass(frozen=True, slots=True)
class Planned:
    """A file of an entry: where it will be read, and what has to be done before."""

    download: Download
    wanted: Wanted
    state: State
    size: int  # bytes; of what is not here, about

    @property
    def fetches(self) -> bool:
        return self.state in ("check", "resume", "fetch")


def read_catalog(path: Path = CATALOG) -> dict[str, Download]:
    """Name -> entry."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    languages = data.pop("wikidata_languages", [])
    catalog = {}
    for name, entry in data.items():
        if "identifier" in entry:
            entry = {"each": languages, **entry}
        try:
            catalog[name] = Download(name=name, **entry)
        except ValidationError as error:
            where, what = problems(error)[0]
            raise UsageError(f"{path}: {name}: {where}: {what}") from error
    return catalog


def plan_downloads(
    names: Iterable[str], cache: Path, mirror: Path | None = None, *, refresh: bool = False
) -> list[Planned]:
    """What each file of these entries needs, in order and once; nothing is fetched or written yet.

    Raises:
        UsageError: a name is not in the catalog, or a file not in the mirror.
    """
    catalog = read_catalog()
    wanted_names = list(dict.fromkeys(names))
    if unknown := [name for name in wanted_names if name not in catalog]:
        raise UsageError(f"fetch: unknown name {unknown[0]!r}; known: {', '.join(catalog)}")
    plan = []
    for download in (catalog[name] for name in wanted_names):
        for wanted in download.wanted(mirror or cache):
            state: State = "mirror" if mirror else _state(wanted, refresh)
            size = size_of(wanted.path) if state in ("mirror", "cached", "check") else wanted.size
            plan.append(Planned(download, wanted, state, size))
    if missing := [
        p.wanted.file for p in plan if p.state == "mirror" and not p.wanted.path.exists()
    ]:
        raise UsageError(
            f"--mirror {mirror}: lacks {len(missing)} of {len(plan)} files ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}); with a mirror nothing is fetched"
        )
    return plan


def _state(wanted: Wanted, refresh: bool) -> State:
    if wanted.kept():
        return "check" if refresh else "cached"
    part = Record.read(wanted.part_record)
    return "resume" if part and part.url in wanted.urls and size_of(wanted.part) else "fetch"


def render_plan(plan: Sequence[Planned]) -> str:
    """A table for people: each entry with its size, its licence, and from where it comes."""
    rows = [("source", "size", "licence", "")]
    for name, files in _by_entry(plan).items():
        states = dict.fromkeys(file.state for file in files)
        where = ", ".join(
            f"{count} {_TOLD[state]}"
            if (count := sum(file.state == state for file in files)) < len(files) or count > 1
            else _TOLD[state]
            for state in states
        )
        if any(file.fetches for file in files):
            where += f" from {httpx2.URL(files[0].wanted.urls[0]).host}"
        size = sum(file.size for file in files)
        about = "" if all(file.state in ("mirror", "cached") for file in files) else "~"
        rows.append((name, about + _bytes(size), files[0].download.license, where))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]
    licences = dict.fromkeys((p.download.license, p.download.license_url) for p in plan)
    lines += ["licences:", *(f"  {license}: {url}" for license, url in licences)]
    coming = sum(p.size for p in plan if p.state in ("resume", "fetch"))
    lines.append(f"to be fetched: about {_bytes(coming)}" if coming else "nothing is to be fetched")
    return "\n".join(lines) + "\n"


def fetch(plan: Sequence[Planned], report: Report, *, wait: float = 1.0) -> dict[str, Path]:
    """Do what the plan says; entry -> its file, or the directory of its files.

    Between two questions to a SPARQL endpoint `wait` seconds pass, after a failure longer and longer ones.

    Raises:
        UsageError: a file cannot be had, is not what it should be, or cannot be written.
    """
    for planned in plan:
        if planned.state == "mirror":
            _check_mirrored(planned.wanted)
    coming = [planned for planned in plan if planned.fetches]
    if coming:
        work = coming[0].wanted.root / WORK
        try:
            work.mkdir(parents=True, exist_ok=True)
            held = FileLock(work / ".lock").acquire()  # one that fetches already goes first
        except OSError as error:
            raise UsageError(f"{work} cannot be written: {error}") from error
        with held, open_client() as client:
            _fetch_all(client, coming, report, wait)
    return {p.download.name: p.wanted.root / p.download.local for p in plan}


def _fetch_all(
    client: httpx2.Client, coming: Sequence[Planned], report: Report, wait: float
) -> None:
    before, total, asked = 0, sum(planned.size for planned in coming), False
    for planned in coming:
        wanted, again = planned.wanted, planned.state == "check"
        record = None if again else wanted.kept()  # another build may have been here
        if record is None:
            if asked and wanted.query:
                time.sleep(wait)
            asked = asked or bool(wanted.query)
            told = _teller(report, planned, before, total)
            record = transfer(client, wanted, told, wait=wait, refresh=again)
        before += record.size
        total += record.size - planned.size
    report(total, total, f"{len(coming)} files")


def _teller(report: Report, planned: Planned, before: int, total: int) -> Told:
    """Tells of one file as a part of all."""
    text = planned.wanted.file if planned.download.each else planned.wanted.name

    def told(here: int, size: int) -> None:
        report(before + here, total - planned.size + max(size or planned.size, here), text)

    return told


def _check_mirrored(wanted: Wanted) -> None:
    """Compare a file of the mirror with the hash that the catalog, or the mirror's own record, states."""
    record = Record.read(wanted.record)
    stated = wanted.sha256 or (record.sha256 if record else "")
    if stated and sha256_of(wanted.path) != stated:
        raise UsageError(
            f"{wanted.name}: {wanted.path} has not the SHA-256 {stated}: copy it anew, or remove {wanted.record}"
        )


def _by_entry(plan: Sequence[Planned]) -> dict[str, list[Planned]]:
    entries: dict[str, list[Planned]] = {}
    for planned in plan:
        entries.setdefault(planned.download.name, []).append(planned)
    return entries


def _bytes(size: float) -> str:
    """A size to be read."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
