"""Mappings that merge ids: SSSOM tables (.tsv or .csv, plain or compressed), one mapping a row.

A row with a wanted predicate says that its subject and its object are one concept. Rows that deny it
(predicate_modifier `Not`), that found no counterpart or are less sure than asked are left out.
"""

from collections.abc import Iterator

from pydantic import Field

from bioelx_mcp.text import normalize_concept_id
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import read_blocks
from index_builder.sources.formats.tsv import read_head, read_table

_WANTED = ("subject_id", "predicate_id", "object_id")
_NONE_FOUND = "sssom:NoTermFound"
_VERSION = "mapping_set_version:"


class SssomSource(Source):
    """One mapping set. A row that states no confidence is as sure as its curator: it passes `min_confidence`."""

    predicates: tuple[str, ...] = Field(default=("skos:exactMatch",), min_length=1)
    min_confidence: float = Field(default=0.0, ge=0, le=1)

    def check(self) -> None:
        super().check()
        read_head(self.path, _WANTED)

    def blocks(self) -> Iterator[Block]:
        return read_blocks(self.path)

    def parse(self, block: Block, rows: Rows) -> None:
        for line, row in read_table(block, read_head(self.path, _WANTED), rows):
            if row["predicate_id"] not in self.predicates or row.get("predicate_modifier"):
                continue
            ends = (row["subject_id"].strip(), row["object_id"].strip())
            if _NONE_FOUND in ends:
                continue
            try:
                sure = float(row.get("confidence") or 1)
            except ValueError:
                rows.set_aside("confidence is no number", line, row)
                continue
            subject, object_ = map(normalize_concept_id, ends)
            if subject is None or object_ is None:
                rows.set_aside("subject or object is no CURIE", line, row)
            elif sure >= self.min_confidence:
                rows.concept(subject, exact=[object_], line=line)

    def versions(self) -> dict[str, str]:
        """The mapping set's version, as its metadata states it."""
        for text in read_head(self.path).metadata:
            if text.strip().startswith(_VERSION):
                return {self.label: text.split(_VERSION, 1)[1].strip(" \"'")}
        return {}
