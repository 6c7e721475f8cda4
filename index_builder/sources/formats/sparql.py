"""The query that asks Wikidata for names, and its answers: rows of item, lang, name, cui (and kind).

Answers come as TSV with the marks of RDF (`<http://...>`, `"name"@en`) or without, as SPARQL JSON results, or as
the list of objects that the Wikidata Query Service hands out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from bioelx_mcp.errors import UsageError
from bioelx_mcp.language import wanted_language
from bioelx_mcp.schema import ALIAS_KINDS, AliasKind
from index_builder.sources.base import Block, Rows
from index_builder.sources.formats.reading import BOM, numbered_lines, read_all

_ITEM = re.compile(r"Q[1-9]\d*$")
PROPERTY = re.compile(r"P[1-9]\d*")
_JSON_ANSWER = re.compile(
    rb'\s*(?:\{\s*"(?:head|results)"|\[\s*\{\s*"(?:item|lang|name|cui|kind)")\s*:'
)
# QLever leaves quotes within a literal as they are: what ends it is the last one.
_LITERAL = re.compile(r'"(?P<text>.*)"(?:@(?P<language>[A-Za-z0-9-]+)|\^\^\S+)?', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})|(?P<one>.))")
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_QUERY = """\
# Names of the Wikidata items that have {property}. Save the answer as TSV (or JSON): a source of kind wikidata.
PREFIX wdt: <http://www.wikidata.org/prop/direct/>
PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>
PREFIX skos: <http://www.w3.org/2004/02/skos/core#>
SELECT ?item ?lang ?name ?cui ?kind WHERE {{
  {items}
  {{ ?item rdfs:label ?name . BIND("preferred" AS ?kind) }}
  UNION
  {{ ?item skos:altLabel ?name . BIND("synonym" AS ?kind) }}
  BIND(LCASE(LANG(?name)) AS ?lang)
{languages}}}
"""


class Named(NamedTuple):
    """A row of an answer: one name of one item that has one identifier."""

    item: str
    language: str
    name: str
    identifier: str
    kind: AliasKind
    line: int


def sparql_query(
    property: str = "P2892", languages: Sequence[str] = (), *, limit: int = 0, offset: int = 0
) -> str:
    """The SPARQL query for all labels and aliases of the items with an identifier property.

    It keeps to what the Wikidata Query Service and QLever both understand. `limit` and `offset` count
    identifiers, not names, and cut the answer into parts that stay below an endpoint's time limit.

    Raises:
        UsageError: `property` is none, a language is no BCP-47 tag, or a number is negative.
    """
    if not PROPERTY.fullmatch(property):
        raise UsageError(f"property {property!r}: a Wikidata property is wanted, such as P2892")
    if limit < 0 or offset < 0:
        raise UsageError(f"limit {limit} and offset {offset} must not be negative")
    items = f"?item wdt:{property} ?cui ."
    if limit or offset:
        part = (f" LIMIT {limit}" if limit else "") + (f" OFFSET {offset}" if offset else "")
        items = f"{{ SELECT ?item ?cui WHERE {{ {items} }} ORDER BY ?item ?cui{part} }}"
    spoken = _filter(languages) if languages else ""
    return _QUERY.format(property=property, items=items, languages=spoken)


def _filter(languages: Sequence[str]) -> str:
    tags = ["mul"]  # a name that stands for all languages
    for language in languages:
        tag = wanted_language(language)
        tags += ["no", "nb"] if tag == "no" else [tag.lower()]
    listed = ", ".join(f'"{tag}"' for tag in tags)
    started = "".join(f' || STRSTARTS(?lang, "{tag}-")' for tag in tags[1:])
    return f"  FILTER(?lang IN ({listed}){started})\n"


def is_json_answer(head: bytes) -> bool:
    """Whether a file that begins so holds the JSON answer of a query."""
    return _JSON_ANSWER.match(head.removeprefix(BOM)) is not None


def is_tsv_answer(line: bytes) -> bool:
    """Whether a file whose first line this is holds the TSV answer of a query."""
    return {"name", "cui"} <= set(_columns(line))


def _columns(line: bytes) -> list[str]:
    text = line.removeprefix(BOM).decode(errors="replace")
    return [cell.strip(' "\r\n').removeprefix("?") for cell in text.split("\t")]


def read_tsv(block: Block, rows: Rows) -> Iterator[Named]:
    """The rows of a block whose first line is the header."""
    lines = numbered_lines(block)
    _, header = next(lines)
    columns, marked = _columns(header), b"?" in header
    for number, line in lines:
        rows.read += 1
        try:
            cells = line.decode().split("\t")
        except UnicodeDecodeError:
            rows.set_aside("not UTF-8", number, line.decode(errors="replace"))
            continue
        if len(cells) != len(columns):
            rows.set_aside("too few or too many fields", number, "\t".join(cells))
            continue
        values = [_unmarked(cell) for cell in cells] if marked else [(cell, "") for cell in cells]
        yield from _named(dict(zip(columns, values, strict=True)), number, rows)


def read_json(path: Path, rows: Rows) -> Iterator[Named]:
    """The rows of a JSON answer; line numbers count its rows.

    Raises:
        UsageError: it is broken before its end, or holds no rows.
    """
    data, problem = read_all(path)
    answer = _load(data.removeprefix(BOM), path, problem, rows)
    try:
        bindings = answer["results"]["bindings"] if isinstance(answer, dict) else answer
        for number, binding in enumerate(bindings, 1):
            rows.read += 1
            yield from _named({name: _cell(v) for name, v in binding.items()}, number, rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"source {path}: no SPARQL JSON results ({error!r})") from error


def _load(data: bytes, path: Path, problem: str, rows: Rows) -> Any:
    """The JSON, or of a text that ends before its time, what is whole."""
    try:
        return from_json(data)
    except ValueError:
        rows.read += 1
        rows.set_aside(problem or "the answer is cut short: what comes after is lost", 0, "")
    try:
        return from_json(data, allow_partial=True)
    except ValueError as error:  # the Query Service writes its errors right into the answer
        raise UsageError(
            f"source {path}: broken JSON ({error}); ask again, for less at a time, or for TSV"
        ) from error


def _named(cells: Mapping[str, tuple[str, str]], number: int, rows: Rows) -> Iterator[Named]:
    name, language = cells.get("name", ("", ""))
    identifier, kind = cells.get("cui", ("", ""))[0], cells.get("kind", ("", ""))[0]
    if not name or not identifier:
        rows.set_aside("no name or no identifier", number, {k: v for k, (v, _) in cells.items()})
        return
    item = _ITEM.search(cells.get("item", ("", ""))[0])
    yield Named(
        item=item[0] if item else "",
        language=cells.get("lang", ("", ""))[0] or language,
        name=name,
        identifier=identifier,
        kind=kind if kind in ALIAS_KINDS else "synonym",
        line=number,
    )


def _cell(value: Any) -> tuple[str, str]:
    """Value and language of a cell in JSON: an RDF term, or the value alone."""
    if isinstance(value, dict):
        return str(value.get("value", "")), str(value.get("xml:lang", ""))
    return "" if value is None else str(value), ""


def _unmarked(cell: str) -> tuple[str, str]:
    """Value and language of a cell in SPARQL TSV."""
    if match := _LITERAL.fullmatch(cell):
        text = match["text"]
        return _ESCAPE.sub(_unescape, text) if "\\" in text else text, match["language"] or ""
    return (cell[1:-1] if cell.startswith("<") and cell.endswith(">") else cell), ""


def _unescape(match: re.Match[str]) -> str:
    if match["one"]:
        return _ESCAPED.get(match["one"], match[0])
    code = int(match["short"] or match["long"], 16)
    return match[0] if 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)
