"""Orphanet's nomenclature of rare diseases: Orphadata's product 1, one XML file a language.

A reference that Orphanet calls exact (and does not call unvalidated) merges; the others are cross-references.
Inactive entries are left out; what they moved to answers for them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import bare_name, blocks_of_files
from index_builder.sources.formats.records import cut_records, parse_records, text_of

RECORDS = ("Disorder",)
# Orphadata's own numbers, the same in every language; the names beside them are translated.
_EXACT, _VALIDATED, _MOVED_TO = "21527", "21611", "21471"
_INACTIVE = "8192"
_MERGING = {
    "ICD-10": "ICD10",
    "ICD-11": "ICD11",
    "MeSH": "MESH",
    "MONDO": "MONDO",
    "OMIM": "OMIM",
    "UMLS": "UMLS",
}
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")  # definitions hold escaped HTML


class OrphanetSource(Source):
    """One file, or a directory of files in several languages; what is not English counts as translated."""

    license: str = "CC-BY-4.0"

    @property
    def files(self) -> list[Path]:
        """English first: its names and definitions are the concepts' own."""
        if not self.path.is_dir():
            return [self.path]
        found = [p for p in self.path.iterdir() if bare_name(p).endswith("_product1.xml")]
        return sorted(found, key=lambda p: (not p.name.startswith("en_"), p.name))

    def check(self) -> None:
        super().check()
        if not self.files:
            raise UsageError(f"source {self.path}: holds no *_product1.xml")

    def blocks(self) -> Iterator[Block]:
        return blocks_of_files(self.files, lambda file: cut_records(file, RECORDS))

    def parse(self, block: Block, rows: Rows) -> None:
        for line, record in parse_records(block, RECORDS, rows):
            code, label = text_of(record.find("OrphaCode")), record.find("Name")
            name = text_of(label)
            if not code or label is None or not name:
                rows.set_aside("without an OrphaCode or a name", line, f"{code} {name}")
            elif any(
                text_of(flag) == _INACTIVE for flag in record.iterfind("DisorderFlagList//Value")
            ):
                for target in _moved_to(record):
                    rows.concept(target, alt_ids=[f"ORPHA:{code}"], line=line)
            else:
                self._active(f"ORPHA:{code}", name, label.get("lang", ""), record, line, rows)

    def _active(
        self, orpha: str, name: str, language: str, record: Element, line: int, rows: Rows
    ) -> None:
        exact, xrefs = _references(record)
        own = language in ("", "en")
        definition = text_of(record.find("SummaryInformationList//Contents"))
        rows.concept(
            orpha,
            name if own else "",
            definition=_MARKUP.sub("", definition),
            exact=exact,
            xrefs=xrefs,
            line=line,
        )
        rows.alias(orpha, name, language, "preferred" if own else "translation", rank=1, line=line)
        for synonym in record.iterfind("SynonymList/Synonym"):
            text, spoken = text_of(synonym), synonym.get("lang", language)
            if text:
                rows.alias(orpha, text, spoken, "synonym" if own else "translation", line=line)


def _references(record: Element) -> tuple[list[str], list[str]]:
    """Ids of other vocabularies that mean the same, and those that are only near."""
    exact: list[str] = []
    xrefs: list[str] = []
    for reference in record.iterfind("ExternalReferenceList/ExternalReference"):
        source, number = text_of(reference.find("Source")), text_of(reference.find("Reference"))
        if not source or not number:
            continue
        if source == "MONDO":
            number = number.zfill(7)  # written as bare numbers
        relation = reference.find("DisorderMappingRelation")
        status = reference.find("DisorderMappingValidationStatus")
        same = relation is not None and relation.get("id") == _EXACT
        sure = status is None or status.get("id") == _VALIDATED
        kept = exact if source in _MERGING and same and sure else xrefs
        kept.append(f"{_MERGING.get(source, source)}:{number}")
    return exact, xrefs


def _moved_to(record: Element) -> Iterator[str]:
    """The active entries that take this one's place."""
    path = "DisorderDisorderAssociationList/DisorderDisorderAssociation"
    for association in record.iterfind(path):
        kind = association.find("DisorderDisorderAssociationType")
        target = text_of(association.find("TargetDisorder/OrphaCode"))
        if target and kind is not None and kind.get("id") == _MOVED_TO:
            yield f"ORPHA:{target}"
