"""Bytes of a file, decompressed by its ending, and cut at line ends into blocks.

A stream that ends before its time gives what could be read, then a block that says so: one bad row. Nothing is
unpacked to disk, and what decompresses to more than any text does is refused.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 8 << 20
MOST_LINE_BYTES = 256 << 20  # a "line" beyond this is no line, but a file of another kind
MOST_WHOLE_BYTES = 4 << 30  # of a file that is read into memory as a whole
# Names in any format compress to a tenth, a dump of Wikidata to a twentieth; a bomb to a thousandth and less.
MOST_RATIO = 200
RATIO_FROM = 1 << 30  # bytes: below this a bomb does no harm
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
CUT_SHORT = "the compressed file is cut short or broken: what comes after is lost"


def bare_name(path: Path) -> str:
    """The file's name without the ending that says how it is compressed."""
    return path.name.removesuffix(path.suffix) if path.suffix in (*_CODECS, ".zip") else path.name


class _Borrowed:
    """A stream that its reader cannot close: PyArrow does, as soon as it lets go of one."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self.read = raw.read

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def decompressed(raw: BinaryIO, ending: str) -> BinaryIO:
    """The bytes behind a compressed stream; `ending` as in `.gz`. Several streams in a row are one."""
    codec = _CODECS.get(ending)
    return (
        pa.CompressedInputStream(pa.PythonFile(_Borrowed(raw), mode="r"), codec) if codec else raw
    )


def open_raw(path: Path) -> tuple[BinaryIO, str]:
    """A file (of a zip archive: its only member) and the ending that says how its bytes are compressed.

    Raises:
        UsageError: it cannot be opened, or the archive holds several files.
    """
    try:
        if path.suffix != ".zip":
            return path.open("rb"), path.suffix
        archive = zipfile.ZipFile(path)
        members = [
            info
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            names = ", ".join(info.filename for info in members[:5])
            raise UsageError(f"source {path}: an archive of one file is wanted, this holds {names}")
        check_member(path, members[0])
        return cast(BinaryIO, archive.open(members[0])), Path(members[0].filename).suffix
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"source {path}: {error}") from error


def check_member(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise UsageError where a member of an archive says that it grows beyond any text; no more than it says is read."""
    if info.file_size > max(RATIO_FROM, MOST_RATIO * info.compress_size):
        raise UsageError(
            f"source {path}: {info.filename} would grow from {info.compress_size:,} to {info.file_size:,} bytes: "
            "no text compresses so well"
        )


def read_blocks(path: Path, block_bytes: int = 0) -> Iterator[Block]:
    """The lines of a text file, plain or compressed, in blocks of whole lines."""
    raw, ending = open_raw(path)
    with raw:
        yield from cut_blocks(raw, ending, str(path), block_bytes)


def cut_blocks(raw: BinaryIO, ending: str, file: str, block_bytes: int = 0) -> Iterator[Block]:
    """The lines of an open stream in blocks of whole lines; `position` is where the raw stream stands.

    Raises:
        UsageError: a line is longer than any line may be, or the stream grows beyond any text.
    """
    line, rest, problem, grown = 1, b"", "", 0
    for data in _pieces(raw, ending, block_bytes or BLOCK_BYTES):
        if isinstance(data, str):
            problem = data
            break
        grown += len(data)
        if ending in _CODECS and grown > max(RATIO_FROM, MOST_RATIO * raw.tell()):
            raise UsageError(
                f"source {file}: grows from {raw.tell():,} to {grown:,} bytes and more: no text compresses so well"
            )
        end = data.rfind(b"\n") + 1
        if end:
            whole = rest + data[:end]
            yield Block(file, line, whole, raw.tell())
            line += whole.count(b"\n")
            rest = data[end:]
        else:
            rest += data
        if len(rest) > MOST_LINE_BYTES:
            raise UsageError(f"source {file}: line {line} is over {MOST_LINE_BYTES >> 20} MiB long")
    if problem:  # the last line was cut, too
        yield Block(file, line, position=raw.tell(), problem=problem)
    elif rest:
        yield Block(file, line, rest, raw.tell())


def _pieces(raw: BinaryIO, ending: str, size: int) -> Iterator[bytes | str]:
    """The decompressed bytes; where the stream breaks, all that comes before, then what is wrong."""
    stream, done = decompressed(raw, ending), 0
    try:
        while data := stream.read(size):
            yield data
            done += len(data)
        return
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        if ending not in _CODECS:
            yield str(error)
            return
    # The piece that failed is lost with its readable part: go there again and read byte by byte.
    raw.seek(0)
    stream = decompressed(raw, ending)
    while done > 0:
        done -= len(stream.read(min(done, size)))
    last = bytearray()
    with suppress(OSError, EOFError, zipfile.BadZipFile):
        while byte := stream.read(1):
            last += byte
    yield bytes(last)
    yield CUT_SHORT


def blocks_of_files(
    files: Iterable[Path], cut: Callable[[Path], Iterable[Block]]
) -> Iterator[Block]:
    """The blocks of several files, one file after the other; their positions run on."""
    before = 0
    for file in files:
        for block in cut(file):
            yield replace(block, position=before + block.position)
        before += file.stat().st_size


def read_all(path: Path) -> tuple[bytes, str]:
    """All bytes of a small file, decompressed, and what is wrong with it (or nothing).

    Raises:
        UsageError: it is no small file.
    """
    parts, problem, size = [], "", 0
    for block in read_blocks(path):
        parts.append(block.data)
        size += len(block.data)
        if size > MOST_WHOLE_BYTES:
            raise UsageError(f"source {path}: is over {MOST_WHOLE_BYTES >> 30} GiB long")
        problem = block.problem or problem
    return b"".join(parts), problem


def numbered_lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """(number, line without its end) of a block; empty lines are left out."""
    for number, line in enumerate(block.data.split(b"\n"), block.line):
        if stripped := line.rstrip(b"\r"):
            yield number, stripped
