"""Records of a large XML file, cut out in bytes by their tag and parsed apart: a broken one costs itself.

A document type is never parsed, so there are no entities to expand: a record may use the five of XML alone.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block, Rows
from index_builder.sources.formats.reading import MOST_LINE_BYTES, read_blocks

_DECLARATION = re.compile(rb"<\?xml[^>]*\?>")
_SHOWN = 300  # bytes of a broken record that go into the report


@cache
def _patterns(tags: tuple[str, ...]) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """What begins and what ends a record."""
    names = "|".join(tags).encode()
    return re.compile(rb"<(?:%s)(?=[\s>])" % names), re.compile(rb"</(?:%s)\s*>" % names)


def cut_records(path: Path, tags: tuple[str, ...]) -> Iterator[Block]:
    """The file in blocks of whole records, each behind the declaration that tells how it is encoded.

    Raises:
        UsageError: no record is in it, or one is longer than any may be.
    """
    start, end = _patterns(tags)
    declaration, rest, line, found = b"", b"", 1, False
    for block in read_blocks(path):
        if block.problem:  # the record that it breaks off in is lost with it
            yield block
            return
        if block.line == 1 and (declared := _DECLARATION.search(block.data[:1000])):
            declaration = declared[0]
        data = rest + block.data
        ends = [match.end() for match in end.finditer(data)]
        rest = data[ends[-1] :] if ends else data
        if len(rest) > MOST_LINE_BYTES:
            raise UsageError(
                f"source {path}: no {' or '.join(f'</{tag}>' for tag in tags)} "
                f"in {MOST_LINE_BYTES >> 20} MiB behind line {line}"
            )
        if ends:
            found = True
            yield Block(block.file, line, declaration + data[: ends[-1]], block.position)
            line += data.count(b"\n", 0, ends[-1])
    if start.search(rest):
        size = path.stat().st_size
        yield Block(str(path), line, position=size, problem="the file ends inside a record")
    elif not found:
        raise UsageError(f"source {path}: holds no <{'> and no <'.join(tags)}>")


def parse_records(block: Block, tags: tuple[str, ...], rows: Rows) -> Iterator[tuple[int, Element]]:
    """(line, record) of a block of `cut_records`; records that are no XML are set aside."""
    start, end = _patterns(tags)
    declared = _DECLARATION.match(block.data)
    declaration = declared[0] if declared else b""
    done, line = len(declaration), block.line
    for match in end.finditer(block.data):
        begin = start.search(block.data, done, match.end())
        first = begin.start() if begin else done
        line += block.data.count(b"\n", done, first)
        record = block.data[first : match.end()]
        rows.read += 1
        try:
            yield line, fromstring(declaration + record)  # noqa: S314
        except (ParseError, LookupError, ValueError) as error:
            reason = "no XML" if isinstance(error, ParseError) else "in an unknown encoding"
            rows.set_aside(reason, line, record[:_SHOWN].decode(errors="backslashreplace"))
        line += record.count(b"\n")
        done = match.end()


def text_of(element: Element | None) -> str:
    """The text of an element and of what is marked up in it, its spacing evened out; empty where there is none."""
    return "" if element is None else " ".join("".join(element.itertext()).split())
