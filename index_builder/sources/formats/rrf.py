"""The tables of a UMLS release where they lie: a META directory, the release zip, the `.nlm` archives inside.

Nothing is unpacked to disk. A table that was split (`MRCONSO.RRF.aa.gz`, `.ab.gz` ...) is one stream: its parts are
joined as raw bytes, in the order of their names. Rows end in a bar; cells are never quoted.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice, product
from pathlib import Path, PurePosixPath
from string import ascii_lowercase
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block, Rows
from index_builder.sources.formats.reading import check_member, cut_blocks, numbered_lines

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# UMLS Reference Manual, chapter 3; the same order stands in a release's MRFILES.RRF.
COLUMNS = {
    "MRCONSO": "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
    "MRSTY": "CUI TUI STN STY ATUI CVF",
    "MRDEF": "CUI AUI ATUI SATUI SAB DEF SUPPRESS CVF",
    "MRCUI": "CUI1 VER REL RELA MAPREASON CUI2 MAPIN",
    "MRRANK": "RANK SAB TTY SUPPRESS",
    "MRSAB": "VCUI RCUI VSAB RSAB SON SF SVER VSTART VEND IMETA RMETA SLC SCC SRL TFR CFR CXTY TTYL ATNL"
    " LAT CENC CURVER SABIN SSN SCIT",
}
CUI = "^C[0-9]{7}$"
_FILE = re.compile(rf"({'|'.join(COLUMNS)})\.RRF(?:\.(?!gz)([a-z]{{2}}))?(\.gz)?")

_Open = Callable[[], BinaryIO]


class _Part(NamedTuple):
    """One file of a release, whole table or split part."""

    folder: str
    name: str
    size: int  # bytes on disk
    length: int  # bytes once out of the archive
    open: _Open


class Table(NamedTuple):
    """A table of the release: where it lies (for people), its parts in order, how it is compressed."""

    file: str
    parts: tuple[_Part, ...]
    ending: str

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def blocks(self) -> Iterator[Block]:
        """Blocks of whole lines; positions are bytes on disk."""
        with _Joined(self.parts) as raw:
            yield from cut_blocks(cast(BinaryIO, raw), self.ending, self.file)


class Release:
    """The tables of a release by name, open for reading. A context manager.

    `path` is a META directory, one that holds META (or YEAR/META) or `.nlm` archives, or an archive.

    Raises:
        UsageError: there is no MRCONSO, or more than one, or a part of a table is missing.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as opened:
            try:
                self.tables = _tables(path, _parts(path, opened))
            except (OSError, zipfile.BadZipFile, zlib.error) as error:
                raise UsageError(f"source {path}: {error}") from error
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def _parts(path: Path, opened: ExitStack) -> list[_Part]:
    """What may belong to a table below a path; archives stay open as long as `opened`."""
    if not path.is_dir():
        if not zipfile.is_zipfile(path):
            raise UsageError(f"source {path}: neither a META directory nor a .zip or .nlm archive")
        return _archived(path, path, opened)
    places = (path, path / "META", *sorted(path.glob("*/META")))
    parts = [
        _Part(str(place), file.name, size, size, cast(_Open, partial(file.open, "rb")))
        for place in dict.fromkeys(places)
        for file in sorted(place.glob("MR*"))
        for size in [file.stat().st_size]
    ]
    if any(part.name.startswith("MRCONSO.RRF") for part in parts):
        return parts
    archives = sorted([*path.glob("*.nlm"), *path.glob("*/*.nlm")])
    return [part for archive in archives for part in _archived(path, archive, opened)] or parts


def _archived(path: Path, file: Path | BinaryIO, opened: ExitStack) -> list[_Part]:
    """The members of an archive, and of the archives in it; not of those in these, which no release has."""
    archive = opened.enter_context(zipfile.ZipFile(file))
    parts = []
    for info in archive.infolist():
        member = PurePosixPath(info.filename)
        open_member = cast(_Open, partial(archive.open, info))
        if member.suffix == ".nlm" and isinstance(file, Path):
            check_member(path, info)
            parts += _archived(path, opened.enter_context(open_member()), opened)
        elif member.name.startswith("MR"):
            check_member(path, info)
            sizes = (info.compress_size, info.file_size)
            parts.append(_Part(str(path / member.parent), member.name, *sizes, open_member))
    return parts


def _tables(path: Path, parts: list[_Part]) -> dict[str, Table]:
    """The tables of the one folder that holds MRCONSO; whole files go before split, plain before compressed."""
    forms: dict[tuple[str, str], dict[tuple[bool, str], list[_Part]]] = {}
    for part in parts:
        if match := _FILE.fullmatch(part.name):
            form = (match[2] is not None, match[3] or "")
            forms.setdefault((part.folder, match[1]), {}).setdefault(form, []).append(part)
    folders = [folder for folder, name in forms if name == "MRCONSO"]
    if len(folders) != 1:
        found = ", ".join(folders or sorted({part.name for part in parts})[:10]) or "no MR* file"
        raise UsageError(
            f"source {path}: one META that holds MRCONSO.RRF (or MRCONSO.RRF.gz, or .aa.gz, .ab.gz ...) "
            f"is wanted there or in .nlm archives; found: {found}"
        )
    tables = {}
    for name in COLUMNS:
        if of_table := forms.get((folders[0], name)):
            (split, ending), chosen = min(of_table.items())
            chosen.sort(key=lambda part: part.name)
            pairs = map("".join, product(ascii_lowercase, repeat=2))
            infixes = [f".{pair}" for pair in islice(pairs, len(chosen))] if split else [""]
            found = ", ".join(part.name for part in chosen)
            wanted = ", ".join(f"{name}.RRF{infix}{ending}" for infix in infixes)
            if found != wanted:
                raise UsageError(f"source {path}: {wanted} should be there; found: {found}")
            tables[name] = Table(f"{folders[0]}/{name}.RRF", tuple(chosen), ending)
    return tables


class _Joined(io.RawIOBase):
    """The bytes of several files as one stream; it goes forward, and back to the start.

    `tell` says how many bytes on disk are used up, which is fewer than were read where they lie in an archive.
    """

    def __init__(self, parts: tuple[_Part, ...]) -> None:
        self._parts = parts
        self._turn = 0
        self._read = 0  # bytes of the part at turn
        self._stream: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        while self._turn < len(self._parts):
            try:
                if self._stream is None:
                    self._stream = self._parts[self._turn].open()
                data = self._stream.read(len(view))
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise OSError(str(error)) from error
            if data:
                view[: len(data)] = data
                self._read += len(data)
                return len(data)
            self._leave(self._turn + 1)
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset or whence:
            raise io.UnsupportedOperation("only back to the start")
        self._leave(0)
        return 0

    def tell(self) -> int:
        done = sum(part.size for part in self._parts[: self._turn])
        if self._read:
            part = self._parts[self._turn]
            done += part.size * self._read // max(part.length, 1)
        return done

    def close(self) -> None:
        self._leave(self._turn)
        super().close()

    def _leave(self, turn: int) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._turn, self._read = None, turn, 0


def read_rows(block: Block, rows: Rows, *wanted: str) -> pa.Table:
    """The wanted columns of a block as strings, and `line`; bad rows are set aside.

    A row is bad that has another number of fields than its table, or no CUI where the first wanted column is
    one, or a wanted cell that is not UTF-8. Clean blocks are read at once, others line by line.
    """
    name = Path(block.file).name.removesuffix(".RRF")
    columns = COLUMNS[name].split()
    try:
        table = _read_at_once(block.data, columns, wanted)
        lines = pa.array(np.arange(block.line, block.line + table.num_rows))
    except pa.ArrowInvalid:
        table, lines = _read_by_line(block, rows, name, wanted)
    rows.read += table.num_rows
    return table.append_column("line", lines)


def _read_at_once(data: bytes, columns: list[str], wanted: tuple[str, ...]) -> pa.Table:
    """Raises pa.ArrowInvalid where any row is bad."""
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=len(data), column_names=[*columns, "behind the bar"]
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="|", quote_char=False, double_quote=False, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
        ),
    ).combine_chunks()
    first = table.column(0)
    if wanted[0].startswith("CUI") and not pc.all(pc.match_substring_regex(first, CUI)).as_py():
        raise pa.ArrowInvalid("not a CUI")
    return table


def _read_by_line(
    block: Block, rows: Rows, name: str, wanted: tuple[str, ...]
) -> tuple[pa.Table, pa.Array]:
    columns = COLUMNS[name].split()
    places = [columns.index(column) for column in wanted]
    with_cui = wanted[0].startswith("CUI")
    kept: list[list[str]] = []
    lines: list[int] = []
    for number, line in numbered_lines(block):
        cells = line.split(b"|")
        reason = ""
        if len(cells) != len(columns) + 1:
            reason = f"not the {len(columns)} fields of {name}"
        else:
            try:
                row = [cells[place].decode() for place in places]
                reason = "not a CUI" if with_cui and not re.fullmatch(CUI, row[0]) else ""
            except UnicodeDecodeError:
                reason = "not UTF-8"
        if reason:
            rows.read += 1
            rows.set_aside(reason, number, line.decode(errors="backslashreplace"))
        else:
            kept.append(row)
            lines.append(number)
    cells_of = zip(*kept, strict=True) if kept else ((),) * len(wanted)
    arrays = [pa.array(column, pa.string()) for column in cells_of]
    return pa.Table.from_arrays(arrays, list(wanted)), pa.array(lines, pa.int64())
