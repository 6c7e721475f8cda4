"""Ontologies: OBO 1.2/1.4 text (read by obonet) and OBO Graph JSON, plain or compressed.

An obsolete term is no concept: its id goes to the living term that replaces it, or nowhere. What is stated
as `skos:exactMatch` means the same; other cross-references do where `exact_xrefs` names their prefix.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import AliasKind
from bioelx_mcp.text import normalize_concept_id
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import bare_name, read_all, read_blocks
from index_builder.sources.formats.terms import (
    Scope,
    Term,
    graph_terms,
    graph_version,
    read_graphs,
    stanza_parser,
    text_terms,
    text_version,
)

_KINDS: dict[Scope, AliasKind] = {
    "EXACT": "synonym",
    "RELATED": "related",
    "BROAD": "broad",
    "NARROW": "narrow",
}


class OboSource(Source):
    """One ontology. `prefixes` keeps the terms with these (an ontology imports others' terms).

    `language` is that of all names, `unscoped` the scope of synonyms that state none.
    """

    language: str = "en"
    scopes: tuple[Scope, ...] = ("EXACT", "RELATED")
    unscoped: Scope = "RELATED"
    prefixes: tuple[str, ...] = ()

    def check(self) -> None:
        super().check()
        if not bare_name(self.path).endswith((".obo", ".json")):
            raise UsageError(
                f"source {self.path}: an ontology ends in .obo or .json (then .gz, .bz2, .zst or .zip)"
            )
        if not self._is_graph:
            stanza_parser()
        self._wanted()

    @property
    def _is_graph(self) -> bool:
        return bare_name(self.path).endswith(".json")

    def _wanted(self) -> tuple[str, ...]:
        """How the ids begin that are kept."""
        wanted = []
        for prefix in self.prefixes:
            curie = normalize_concept_id(f"{prefix.removesuffix(':')}:1")
            if curie is None:
                raise UsageError(
                    f"source {self.path}: {prefix!r} is no prefix; one reads like MONDO"
                )
            wanted.append(curie.removesuffix("1"))
        return tuple(wanted) or ("",)

    def parse(self, block: Block, rows: Rows) -> None:
        data, problem = read_all(self.path)
        if self._is_graph:
            terms = self._kept(graph_terms(self._graphs(data, problem), rows), rows)
        else:
            terms = self._kept(text_terms(data, bool(problem), rows), rows)
        if not terms:
            which = f" of {', '.join(self.prefixes)}" if self.prefixes else ""
            why = f" ({problem})" if problem else ""
            raise UsageError(f"source {self.path}: no term{which} in it{why}")
        if problem:
            rows.read += 1
            rows.set_aside(problem, data.count(b"\n") + 1, "")
        retired = self._retired(terms, rows)
        for curie, term in terms.items():
            if not term.obsolete:
                self._tell(curie, term, retired[curie], rows)

    def _kept(self, terms: Iterable[Term], rows: Rows) -> dict[str, Term]:
        """The wanted terms by their CURIE; what is no term, or one twice, is set aside."""
        kept: dict[str, Term] = {}
        wanted = self._wanted()
        for term in terms:
            curie = normalize_concept_id(term.id)
            if not (curie or term.id).startswith(wanted):
                continue
            if curie is None:
                rows.set_aside("id is no CURIE", term.line, term.id)
            elif curie in kept:
                rows.set_aside("duplicate id", term.line, f"{term.id} {term.name}")
            elif not (term.name or term.obsolete or term.stub):
                rows.set_aside("term without a name", term.line, term.id)
            else:
                kept[curie] = term
        return kept

    def _retired(self, terms: dict[str, Term], rows: Rows) -> defaultdict[str, list[str]]:
        """Living term -> the obsolete ones that it replaces, also through others.

        A term that several replace has no one successor: it is left out as if none did.
        """
        retired = defaultdict(list)
        for curie, term in terms.items():
            path, here = [curie], term
            while here.obsolete and len(here.replaced_by) == 1:
                target = normalize_concept_id(here.replaced_by[0])
                if target in path:
                    rows.set_aside("cycle of replaced_by", term.line, " -> ".join([*path, target]))
                    break
                if target is None or target not in terms:
                    if target is None or target.startswith(self._wanted()):
                        row = " -> ".join([*path, here.replaced_by[0]])
                        rows.set_aside("replaced_by a term that is not there", term.line, row)
                    break
                path.append(target)
                here = terms[target]
            if len(path) > 1 and not here.obsolete:
                retired[path[-1]].append(curie)
        return retired

    def _tell(self, curie: str, term: Term, retired: list[str], rows: Rows) -> None:
        rows.concept(
            curie,
            term.name,
            semantic_types=[term.namespace] if term.namespace else [],
            definition=term.definition,
            xrefs=term.xrefs,
            alt_ids=dict.fromkeys([*term.alt_ids, *retired]),
            exact=term.exact,
            parents=filter(None, map(normalize_concept_id, term.parents)),
            line=term.line,
        )
        if term.name:
            rows.alias(curie, term.name, self.language, "preferred", line=term.line)
        for text, stated in term.synonyms:
            scope = stated or self.unscoped
            if scope in self.scopes:
                rows.alias(curie, text, self.language, _KINDS[scope], line=term.line)

    def versions(self) -> dict[str, str]:
        """What an OBO header, or the first of the graphs, says of its version."""
        if self._is_graph:
            stated = graph_version(self._graphs(*read_all(self.path)))
        else:
            stated = next((text_version(b.data) for b in read_blocks(self.path, 1 << 16)), "")
        return {self.label: stated} if stated else {}

    def _graphs(self, data: bytes, problem: str) -> list[dict[str, Any]]:
        try:
            return read_graphs(data)
        except UsageError as error:
            raise UsageError(f"source {self.path}: {problem or error}") from error
