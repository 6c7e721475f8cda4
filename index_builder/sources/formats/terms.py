"""The terms of an ontology as its file states them: OBO text (parsed by obonet) and OBO Graph JSON.

OBO is read stanza by stanza, so that a broken one costs a term, not the file; obonet alone would merge stanzas
of one id without a word and stop at the first bad line.
"""

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from bioelx_mcp.errors import MissingExtraError, UsageError
from index_builder.sources.base import Rows

Scope = Literal["EXACT", "RELATED", "BROAD", "NARROW"]
_GRAPH_SCOPES: dict[str, Scope] = {
    "hasExactSynonym": "EXACT",
    "hasRelatedSynonym": "RELATED",
    "hasBroadSynonym": "BROAD",
    "hasNarrowSynonym": "NARROW",
}
_SYNONYM = re.compile(r'"(?P<text>(?:\\.|[^"\\])*)"\s*(?P<scope>EXACT|RELATED|BROAD|NARROW)?')
_QUOTED = re.compile(r'"(?P<text>(?:\\.|[^"\\])*)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "W": " "}  # any other character stands for itself
_DATA_VERSION = re.compile(rb"^data-version:\s*(.*\S)", re.MULTILINE)
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError)


def _utf8(text: str) -> str:
    if not text.isascii():
        text.encode()
    return text


_Text = Annotated[str, AfterValidator(_utf8)]  # without the surrogates that stand for broken bytes


class Term(BaseModel):
    """A term as the file states it, ids in the file's spelling."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: _Text
    line: int = 0
    name: _Text = ""
    namespace: _Text = ""
    definition: _Text = ""
    synonyms: list[tuple[_Text, Scope | None]] = []
    xrefs: list[_Text] = []
    alt_ids: list[_Text] = []
    exact: list[_Text] = []
    parents: list[_Text] = []
    replaced_by: list[_Text] = []
    obsolete: bool = False
    stub: bool = False  # known by its place in the hierarchy alone


def read_graphs(data: bytes) -> list[dict[str, Any]]:
    """The graphs of an OBO Graph document, each with lists of nodes and edges.

    Raises:
        UsageError: it is no such document.
    """
    try:
        document = json.loads(data.decode("utf-8-sig", "surrogateescape"))
        empty: dict[str, Any] = {"nodes": [], "edges": []}
        graphs = [{**empty, **graph} for graph in document["graphs"]]
        if not all(isinstance(graph[part], list) for graph in graphs for part in empty):
            raise TypeError("nodes and edges are lists")
    except (*_MALFORMED, RecursionError) as error:
        raise UsageError(f"cannot be read as OBO Graph JSON ({error!r})") from error
    return graphs


def graph_version(graphs: list[dict[str, Any]]) -> str:
    """The version of the first graph: the others are what it imports."""
    with suppress(*_MALFORMED):
        meta = graphs[0]["meta"]
        return str(next(_values(meta, "versionInfo"), "") or meta.get("version") or "")
    return ""


def text_version(data: bytes) -> str:
    """The data-version in an OBO header."""
    match = _DATA_VERSION.search(data.split(b"\n[", 1)[0])
    return match[1].decode(errors="replace") if match else ""


def text_terms(data: bytes, cut: bool, rows: Rows) -> Iterator[Term]:
    """The terms of OBO text; of a file that was cut short all but the last, which may lack a part."""
    parse_stanza, singular = stanza_parser()
    for start, (head, *lines) in _stanzas(data, cut):
        if not head.startswith("[Term]"):
            continue
        rows.read += 1
        number = start + 1 + next((n for n, line in enumerate(lines) if line[:3] == "id:"), -1)
        try:
            yield _text_term(parse_stanza(lines, singular), number)
        except _MALFORMED as error:
            text = "".join(lines).encode("utf-8", "surrogateescape")
            rows.set_aside(_reason(error), number, text.decode(errors="backslashreplace"))


def _stanzas(data: bytes, cut: bool) -> Iterator[tuple[int, list[str]]]:
    """The number of a stanza's first line, and its lines; bytes that are no UTF-8 become surrogates."""
    start, lines = 0, list[str]()
    for number, raw in enumerate(io.BytesIO(data), 1):
        line = raw.decode("utf-8-sig", "surrogateescape")
        if line.startswith("["):
            if start:
                yield start, lines
            start, lines = number, []
        if start and line.strip():
            lines.append(line)
    if start and not cut:
        yield start, lines


def _text_term(stanza: dict[str, Any], line: int) -> Term:
    definition = _QUOTED.match(stanza.get("def", ""))
    properties = [value.split() for value in stanza.get("property_value", ())]
    return Term(
        id=stanza["id"],
        line=line,
        name=_unescape(stanza.get("name", "")),
        namespace=stanza.get("namespace", ""),
        definition=_unescape(definition["text"]) if definition else "",
        synonyms=[_text_synonym(value) for value in stanza.get("synonym", ())],
        xrefs=[_unescape(value.split(" ")[0]) for value in stanza.get("xref", ())],
        alt_ids=stanza.get("alt_id", []),
        exact=[_unescape(v[1].strip('"')) for v in properties if v[0].endswith("exactMatch")],
        parents=stanza.get("is_a", []),
        replaced_by=stanza.get("replaced_by", []),
        obsolete=stanza.get("is_obsolete") == "true",
    )


def _text_synonym(value: str) -> tuple[str, Any]:
    match = _SYNONYM.match(value)
    if match is None:
        raise ValueError("a synonym without quotes")
    return _unescape(match["text"]), match["scope"]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text)


def graph_terms(graphs: list[dict[str, Any]], rows: Rows) -> Iterator[Term]:
    """The classes of all graphs; what only edges speak of is known by its parents alone."""
    parents: defaultdict[str, list[str]] = defaultdict(list)
    for edge in (edge for graph in graphs for edge in graph["edges"]):
        try:
            if edge["pred"] == "is_a":
                (edge["sub"] + edge["obj"]).encode()  # both are texts
                parents[edge["sub"]].append(edge["obj"])
        except _MALFORMED:
            rows.read += 1
            rows.set_aside("malformed edge", 0, json.dumps(edge))
    told: set[str] = set()  # by graphs before: one that imports another may repeat its terms
    for graph in graphs:
        here = set()
        for node in graph["nodes"]:
            rows.read += 1
            try:
                if node["id"] in told or not ("lbl" in node or "meta" in node):
                    continue
                here.add(node["id"])
                above = parents.pop(node["id"], [])
                if node.get("type", "CLASS") == "CLASS":
                    yield _graph_term(node, above)
            except _MALFORMED as error:
                rows.set_aside(_reason(error), 0, json.dumps(node))
        told |= here
    for identifier, above in parents.items():
        rows.read += 1
        yield Term(id=identifier, parents=above, stub=True)


def _graph_term(node: dict[str, Any], parents: list[str]) -> Term:
    meta: dict[str, Any] = node.get("meta") or {}
    return Term(
        id=node["id"],
        name=node.get("lbl") or "",
        namespace=next(_values(meta, "hasOBONamespace"), ""),
        definition=(meta.get("definition") or {}).get("val", ""),
        synonyms=[(s["val"], _GRAPH_SCOPES.get(s["pred"])) for s in meta.get("synonyms") or ()],
        xrefs=[xref["val"].strip() for xref in meta.get("xrefs") or ()],
        alt_ids=list(_values(meta, "hasAlternativeId")),
        exact=list(_values(meta, "exactMatch")),
        parents=parents,
        replaced_by=list(_values(meta, "IAO_0100001")),
        # Orphanet and EFO mark what is obsolete by its reason alone.
        obsolete=bool(meta.get("deprecated") or any(_values(meta, "reason_for_obsolescence"))),
    )


def _values(meta: dict[str, Any], predicate: str) -> Iterator[str]:
    """The values of a property, named by the end of its address."""
    for item in meta.get("basicPropertyValues") or ():
        if item["pred"].endswith(predicate):
            yield item["val"]


def _reason(error: Exception) -> str:
    causes = error.errors() if isinstance(error, ValidationError) else []
    broken = any(isinstance(c.get("ctx", {}).get("error"), UnicodeError) for c in causes)
    return "not UTF-8" if broken else "malformed term"


def stanza_parser() -> tuple[Any, Any]:
    """The parser of one stanza, and which of its tags stand but once."""
    try:
        from obonet.read import parse_stanza, term_tag_singularity
    except ImportError:
        raise MissingExtraError(
            "reading .obo files needs obonet: pip install 'bioelx-mcp[build]'"
        ) from None
    return parse_stanza, term_tag_singularity
