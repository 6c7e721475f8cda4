"""MeSH in XML, as NLM gives it out: descriptors (`desc2026.gz`) or supplementary records (`supp2026.gz`).

The terms of a record's preferred concept are its synonyms, those of its other concepts are broader, narrower
or related. Permuted terms are left out. Parents are found by tree number.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from xml.etree.ElementTree import Element

from bioelx_mcp.schema import AliasKind
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import MOST_LINE_BYTES, read_blocks
from index_builder.sources.formats.records import cut_records, parse_records, text_of

RECORDS = ("DescriptorRecord", "SupplementalRecord")
# What the second concept of a relation is to the first one, and the first to the second.
_RELATIONS: dict[str, tuple[AliasKind, AliasKind]] = {
    "NRW": ("narrow", "broad"),
    "BRD": ("broad", "narrow"),
    "REL": ("related", "related"),
}
_YEAR = re.compile(r"(?:19|20)\d\d")
_TREE = re.compile(rb"<DescriptorRecord\b.*?<DescriptorUI>\s*(\w+)|<TreeNumber>\s*([\w.]+)", re.S)
# How registry numbers look; `0` and free text stand for none.
_REGISTRIES = {
    "EC": re.compile(r"EC ([\d.n-]+)"),
    "CAS": re.compile(r"(\d{2,7}-\d\d-\d)"),
    "UNII": re.compile(r"([A-Z0-9]{10})"),
    "NCBITaxon": re.compile(r"txid(\d+)"),
}


class MeshSource(Source):
    """Descriptors, or supplementary records, of one year."""

    license: str = "NLM MeSH terms"

    def blocks(self) -> Iterator[Block]:
        return cut_records(self.path, RECORDS)

    def parse(self, block: Block, rows: Rows) -> None:
        for line, record in parse_records(block, RECORDS, rows):
            stem = record.tag.removesuffix("Record")
            tag = record.tag if stem == "Supplemental" else stem
            ui, name = text_of(record.find(f"{tag}UI")), text_of(record.find(f"{tag}Name/String"))
            concepts = record.findall("ConceptList/Concept")
            if not ui or not name or not concepts:
                rows.set_aside("without an id, a name or a concept", line, f"{ui} {name}")
                continue
            first = next((c for c in concepts if c.get("PreferredConceptYN") == "Y"), concepts[0])
            note = first.find("ScopeNote")
            rows.concept(
                f"MESH:{ui}",
                name,
                semantic_types=[text_of(e) for e in first.iter("SemanticTypeName")],
                definition=text_of(record.find("Note") if note is None else note),
                xrefs=_xrefs(first),
                parents=self._parents(record),
                line=line,
            )
            rows.alias(f"MESH:{ui}", name, "en", "preferred", line=line)
            kinds = _kinds(first)
            for concept in concepts:
                kind: AliasKind = kinds.get(text_of(concept.find("ConceptUI")), "related")
                for term in concept.iterfind("TermList/Term"):
                    text = text_of(term.find("String"))
                    if text and text != name and term.get("IsPermutedTermYN") != "Y":
                        rows.alias(f"MESH:{ui}", text, "en", kind, line=line)

    def _parents(self, record: Element) -> list[str]:
        """The descriptors right above it, once each."""
        numbers = [text_of(number) for number in record.iterfind("TreeNumberList/TreeNumber")]
        if not numbers:
            return []
        tree = _tree(self.path, self.path.stat().st_mtime_ns)
        above = (number.rpartition(".")[0] for number in numbers)
        return list(dict.fromkeys(f"MESH:{tree[number]}" for number in above if number in tree))

    def versions(self) -> dict[str, str]:
        """The year, as the file's name states it."""
        year = _YEAR.search(self.path.name)
        return {self.label: year[0]} if year else {}


def _kinds(first: Element) -> dict[str, AliasKind]:
    """What a record's concepts are to its preferred one, by ConceptUI."""
    ui = text_of(first.find("ConceptUI"))
    kinds: dict[str, AliasKind] = {ui: "synonym"}
    for relation in first.iter("ConceptRelation"):
        ends = text_of(relation.find("Concept1UI")), text_of(relation.find("Concept2UI"))
        second, opposite = _RELATIONS.get(relation.get("RelationName", ""), _RELATIONS["REL"])
        if ends[0] == ui:
            kinds.setdefault(ends[1], second)
        elif ends[1] == ui:
            kinds.setdefault(ends[0], opposite)
    return kinds


def _xrefs(concept: Element) -> list[str]:
    """Registry numbers as CURIEs."""
    xrefs = []
    for number in concept.iter("RegistryNumber"):
        for prefix, pattern in _REGISTRIES.items():
            if match := pattern.fullmatch(text_of(number)):
                xrefs.append(f"{prefix}:{match[1]}")
                break
    return xrefs


@lru_cache(maxsize=2)
def _tree(path: Path, stamp: int) -> dict[str, str]:
    """Tree number -> DescriptorUI, from the file as a whole: read once in each process, in seconds."""
    tree, rest, ui = {}, b"", ""
    for block in read_blocks(path):
        data = rest + block.data
        end = data.rfind(b"</DescriptorRecord>") + 1
        for match in _TREE.finditer(data, 0, end):
            if match[1]:
                ui = match[1].decode()
            else:
                tree[match[2].decode()] = ui
        rest = data[end:]
        if len(rest) > MOST_LINE_BYTES:  # no MeSH: the cutting of its records says so
            break
    return tree
