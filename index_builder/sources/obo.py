"""Ontologies: OBO 1.2/1.4 text (read by obonet) and OBO Graph JSON, plain or gzip.

Obsolete terms are left out. Exact and related synonyms by default; broad and narrow ones on request.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Literal

from bioelx_mcp.errors import MissingExtraError, UsageError
from bioelx_mcp.schema import Alias, Concept
from bioelx_mcp.text import normalize_concept_id
from index_builder.sources.base import Record, Rejects, Source

Scope = Literal["EXACT", "RELATED", "BROAD", "NARROW"]
_SYNONYM = re.compile(r'"(?P<text>(?:\\.|[^"\\])*)"\s*(?P<scope>EXACT|RELATED|BROAD|NARROW)?')
_QUOTED = re.compile(r'"(?P<text>(?:\\.|[^"\\])*)"')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "W": " "}  # any other character stands for itself
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zlib.error)
_GRAPH_SCOPES = {
    "hasExactSynonym": "EXACT",
    "hasRelatedSynonym": "RELATED",
    "hasBroadSynonym": "BROAD",
    "hasNarrowSynonym": "NARROW",
}


def _curie(text: str) -> str:
    """An OBO or Orphanet address as a CURIE; anything else unchanged."""
    tail = text.rsplit("/", 1)[-1] if "://" in text else text
    return normalize_concept_id(tail.replace("UMLS_CUI:", "UMLS:")) or text


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text)


class OboSource(Source):
    """One ontology. `prefixes` keeps the terms whose id starts so (an ontology imports others' terms)."""

    language: str = "en"
    scopes: tuple[Scope, ...] = ("EXACT", "RELATED")
    prefixes: tuple[str, ...] = ()

    def check(self) -> None:
        super().check()
        if not self._is_graph and self.path.suffixes[-1:] not in ([".obo"], [".gz"]):
            raise UsageError(
                f"source {self.path}: an ontology ends in .obo or .json (with or without .gz)"
            )
        if not self._is_graph:
            _obonet()

    @property
    def _is_graph(self) -> bool:
        return self.path.name.removesuffix(".gz").endswith(".json")

    def read(self, rejects: Rejects) -> Iterator[Record]:
        terms = self._graph_terms(rejects) if self._is_graph else self._text_terms()
        found = False
        for concept, synonyms in terms:
            if self.prefixes and not concept.concept_id.startswith(self.prefixes):
                continue
            if not concept.preferred_name:
                rejects.add("term without a name", str(self.path), concept.concept_id)
                continue
            found = True
            yield concept
            yield Alias(
                concept.concept_id,
                concept.preferred_name,
                self.language,
                "preferred",
                self.label,
                self.license,
            )
            for text, scope in synonyms:
                if scope in self.scopes:
                    yield Alias(
                        concept.concept_id, text, self.language, "synonym", self.label, self.license
                    )
        if not found:
            raise UsageError(f"source {self.path}: no term in it")

    def _text_terms(self) -> Iterator[tuple[Concept, list[tuple[str, str]]]]:
        try:
            graph = _obonet().read_obo(self.path, ignore_obsolete=True)
        except _UNREADABLE as error:
            raise UsageError(f"source {self.path}: cannot be read as OBO ({error!r})") from error
        for identifier, term in graph.nodes(data=True):
            if "name" not in term and len(term) == 0:
                continue  # only named as a parent
            synonyms = []
            for line in term.get("synonym", ()):
                if match := _SYNONYM.match(line):
                    synonyms.append((_unescape(match["text"]), match["scope"] or "RELATED"))
            definition = _QUOTED.match(term.get("def", ""))
            yield (
                Concept(
                    concept_id=_curie(identifier),
                    preferred_name=_unescape(term.get("name", "")),
                    semantic_types=(term["namespace"],) if "namespace" in term else (),
                    definition=_unescape(definition["text"]) if definition else "",
                    xrefs=tuple(_curie(xref.split(" ")[0]) for xref in term.get("xref", ())),
                    alt_ids=tuple(_curie(other) for other in term.get("alt_id", ())),
                ),
                synonyms,
            )

    def _graph_terms(self, rejects: Rejects) -> Iterator[tuple[Concept, list[tuple[str, str]]]]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opened(self.path, "rt", encoding="utf-8") as file:
                graphs = json.load(file)["graphs"]
        except _UNREADABLE as error:
            raise UsageError(
                f"source {self.path}: cannot be read as OBO Graph JSON ({error!r})"
            ) from error
        for node in (node for graph in graphs for node in graph.get("nodes", ())):
            try:
                if term := _graph_term(node):
                    yield term
            except (KeyError, TypeError, AttributeError) as error:
                rejects.add(f"malformed node ({error!r})", str(self.path), node)


def _graph_term(node: dict[str, Any]) -> tuple[Concept, list[tuple[str, str]]] | None:
    """A class of an OBO Graph and its synonyms with their scopes; None for properties and obsolete terms."""
    meta: dict[str, Any] = node.get("meta") or {}
    if node.get("type", "CLASS") != "CLASS" or meta.get("deprecated"):
        return None
    properties = meta.get("basicPropertyValues") or ()
    namespaces = [p["val"] for p in properties if p["pred"].endswith("#hasOBONamespace")]
    concept = Concept(
        concept_id=_curie(node["id"]),
        preferred_name=node.get("lbl") or "",
        semantic_types=tuple(namespaces[:1]),
        definition=(meta.get("definition") or {}).get("val", ""),
        xrefs=tuple(_curie(xref["val"]) for xref in meta.get("xrefs") or ()),
        alt_ids=tuple(
            _curie(p["val"]) for p in properties if p["pred"].endswith("#hasAlternativeId")
        ),
    )
    synonyms = [
        (synonym["val"], _GRAPH_SCOPES.get(synonym.get("pred", ""), "RELATED"))
        for synonym in meta.get("synonyms") or ()
    ]
    return concept, synonyms


def _obonet() -> Any:
    try:
        import obonet
    except ImportError:
        raise MissingExtraError(
            "reading .obo files needs obonet: pip install 'bioelx-mcp[build]'"
        ) from None
    return obonet
