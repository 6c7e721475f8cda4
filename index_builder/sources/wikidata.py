"""Wikidata: the JSON dump, or answers of a SPARQL query (`sparql.py`); the first bytes of a file tell which.

Of the dump, items that carry an identifier of a biomedical vocabulary: labels, aliases, titles of Wikipedia
pages. Lines without one are thrown away by a search of bytes, before any JSON is read.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic_core import from_json

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats import sparql
from index_builder.sources.formats.entity import concept_id, read_item, wanted_tag
from index_builder.sources.formats.reading import (
    bare_name,
    blocks_of_files,
    decompressed,
    numbered_lines,
    open_raw,
    read_blocks,
)

PROPERTIES = {  # in this order: the first that an item has gives the concept id
    "P2892": "UMLS",
    "P486": "MESH",
    "P5270": "MONDO",
    "P699": "DOID",
    "P3841": "HP",
    "P1550": "ORPHA",
    "P492": "OMIM",
    "P494": "ICD10",
    "P683": "CHEBI",
    "P652": "UNII",
    "P685": "NCBITaxon",
    "P1748": "NCIT",
    "P715": "DRUGBANK",
}
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9.]*")
_DATE = re.compile(r"(20\d\d)-?([01]\d)-?([0-3]\d)")
_AROUND = b"[], \t\r\n"  # what the array of the dump leaves around an entity
_HEAD_BYTES = 2048
_DUMP_BYTES = 2 << 20  # of a block before it is sifted; more is no faster, and takes more memory
_BAD_ID = "identifier makes no CURIE"


class WikidataSource(Source):
    """A dump, an answer, or a directory of them. `properties` maps identifier properties to prefixes.

    An item's other identifiers become cross-references; where it has one of its own property and one of
    another, and the prefix of that is in `exact`, they mean the same. `prefix` is that of an answer's ids.
    """

    name: str = "wikidata"
    license: str = "CC0-1.0"
    properties: dict[str, str] = PROPERTIES
    exact: tuple[str, ...] = ("MESH", "MONDO", "DOID", "HP", "ORPHA")
    prefix: str = "UMLS"

    def check(self) -> None:
        super().check()
        if not self.properties:
            raise UsageError(f"source {self.path}: properties: at least one is wanted")
        for name in self.properties:
            if not sparql.PROPERTY.fullmatch(name):
                raise UsageError(
                    f"source {self.path}: properties: {name!r} is none; they look like P2892"
                )
        for prefix in (*self.properties.values(), self.prefix):
            if not _PREFIX.fullmatch(prefix):
                raise UsageError(
                    f"source {self.path}: {prefix!r} is no prefix of ids; they look like MESH"
                )
        if not self.files:
            raise UsageError(f"source {self.path}: no .json, .jsonl or .tsv file in it")
        for file in self.files:
            _form(file)

    @property
    def files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        endings = (".json", ".jsonl", ".tsv")
        return sorted(p for p in self.path.iterdir() if bare_name(p).endswith(endings))

    def blocks(self) -> Iterator[Block]:
        cuts = {"dump": self._dump_blocks, "tsv": _tsv_blocks, "json": _whole}
        return blocks_of_files(self.files, lambda file: cuts[_form(file)](file))

    def parse(self, block: Block, rows: Rows) -> None:
        if not block.data:
            self._parse_answer(sparql.read_json(Path(block.file), rows), rows)
        elif sparql.is_tsv_answer(block.data[:_HEAD_BYTES].partition(b"\n")[0]):
            self._parse_answer(sparql.read_tsv(block, rows), rows)
        else:
            self._parse_dump(block, rows)

    def versions(self) -> dict[str, str]:
        date = _DATE.search(self.path.name)
        return {"Wikidata": "-".join(date.groups())} if date else {}

    def _parse_answer(self, answer: Iterator[sparql.Named], rows: Rows) -> None:
        items: dict[str, dict[str, int]] = {}  # concept id: items, and where they are first named
        for row in answer:
            one = concept_id(row.identifier, self.prefix)
            if one is None:
                rows.set_aside(_BAD_ID, row.line, row.identifier)
                continue
            language = wanted_tag(row.language, self.languages)
            if language is not None:
                rows.alias(one, row.name, language, row.kind, line=row.line)
                items.setdefault(one, {}).setdefault(row.item, row.line)
        for one, lines in items.items():
            xrefs = [f"WIKIDATA:{item}" for item in lines if item]
            rows.concept(one, xrefs=xrefs, line=min(lines.values()))

    def _dump_blocks(self, file: Path) -> Iterator[Block]:
        """Blocks of whole lines; those that carry none of our properties are empty."""
        carrier = _carrier(tuple(self.properties))
        for block in read_blocks(file, _DUMP_BYTES):
            if block.problem:
                yield block
            elif kept := _sifted(block, carrier):
                yield kept

    def _parse_dump(self, block: Block, rows: Rows) -> None:
        rows.read += block.data.count(b"\n")
        for number, line in numbered_lines(block):
            self._parse_entity(line, number, rows)

    def _parse_entity(self, raw: bytes, line: int, rows: Rows) -> None:
        try:
            entity = from_json(raw.strip(_AROUND))
        except ValueError:
            rows.set_aside("broken JSON", line, raw[:300].decode(errors="replace"))
            return

        def refuse(name: str, value: str) -> None:
            rows.set_aside(_BAD_ID, line, {name: value})

        try:
            qid = f"WIKIDATA:{entity['id']}"
            item = read_item(entity, self.properties, self.languages, refuse)
        except (KeyError, TypeError, AttributeError):
            rows.set_aside("not an entity of Wikidata", line, raw[:300].decode(errors="replace"))
            return
        if item is None:
            return
        mine, *others = item.ids
        xrefs = [qid, *(other for several in others for other in several)]
        single = [other[0] for other in others if len(other) == len(mine) == 1]
        exact = [other for other in single if other.partition(":")[0] in self.exact]
        for one in mine:
            rows.concept(
                one,
                definition=item.definition,
                xrefs=xrefs,
                exact=exact,
                popularity=item.popularity,
                line=line,
            )
            for (text, language), (kind, source, disambiguation) in item.names.items():
                rows.alias(
                    one,
                    text,
                    language,
                    kind,
                    source=source,
                    disambiguation=disambiguation,
                    line=line,
                )


def _carrier(properties: Iterable[str]) -> re.Pattern[bytes]:
    """Finds one of the properties as a key of JSON; the quote before it would only slow the search."""
    numbers = "|".join(name.removeprefix("P") for name in properties)
    return re.compile(rf'P(?:{numbers})"[ \t]*:'.encode())


def _sifted(block: Block, carrier: re.Pattern[bytes]) -> Block | None:
    """A block of a dump without its brackets, in which only lines that carry a property are not empty.

    The main process does this, so that the workers are sent little. One search over the whole block is ten
    times as fast as one for every property in every line.
    """
    data, line = block.data, block.line
    data += b"" if data.endswith(b"\n") else b"\n"
    begin, end = 0, len(data)
    if line == 1 and data[:2].rstrip() == b"[":
        begin, line = data.find(b"\n") + 1, 2
    if data[-4:].rstrip()[-2:].lstrip() == b"]":
        end = data.rfind(b"]")
    kept, done = [], begin
    while match := carrier.search(data, done, end):
        start = data.rfind(b"\n", done, match.start()) + 1 or done
        kept.append(b"\n" * data.count(b"\n", done, start))
        done = data.find(b"\n", match.end())
        kept.append(data[start:done])
    kept.append(b"\n" * data.count(b"\n", done, end))
    sifted = b"".join(kept)
    return replace(block, line=line, data=sifted) if sifted else None


def _tsv_blocks(file: Path) -> Iterator[Block]:
    """Blocks of whole lines; each begins with the header."""
    header = b""
    for block in read_blocks(file):
        if header and block.data:
            block = replace(block, line=block.line - 1, data=header + block.data)
        header = header or block.data[: block.data.find(b"\n") + 1]
        yield block


def _whole(file: Path) -> Iterator[Block]:
    yield Block(str(file), position=file.stat().st_size)


def _form(file: Path) -> Literal["dump", "json", "tsv"]:
    """What a file holds.

    Raises:
        UsageError: neither a dump nor an answer.
    """
    raw, ending = open_raw(file)
    head = b""
    with raw, suppress(OSError, EOFError):  # byte by byte: of a file cut short, all that is left
        stream = decompressed(raw, ending)
        while len(head) < _HEAD_BYTES and (byte := stream.read(1)):
            head += byte
    if sparql.is_json_answer(head):
        return "json"
    if sparql.is_tsv_answer(head.partition(b"\n")[0]):
        return "tsv"
    if head.lstrip()[:1] in (b"{", b"["):
        return "dump"
    raise UsageError(
        f"source {file}: neither a JSON dump of Wikidata nor the answer of a query with the columns "
        f"item, lang, name, cui; it begins {bytes(head[:40])!r}"
    )
