"""Translations of an ontology's names: Babelon tables, and synonym tables as templates for ROBOT.

One file, or a directory of `*.babelon.tsv` and `*.synonyms.tsv`, plain or compressed. What is translated but
no name (definitions, comments), empty or of a status that is not wanted is left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import AliasKind
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import bare_name, blocks_of_files, read_blocks
from index_builder.sources.formats.tsv import Head, read_head, read_table

Status = Literal["OFFICIAL", "CANDIDATE", "UNDER_REVIEW", "NOT_TRANSLATED"]
_STATUSES = frozenset(get_args(Status))
_ENDINGS = (".babelon.tsv", ".synonyms.tsv")
_BABELON = ("subject_id", "predicate_id", "translation_language", "translation_value")
# What a predicate (its local name, letters only, without `has`) says of a name ...
_PREDICATES: dict[str, AliasKind] = {
    "label": "translation",
    "exactsynonym": "translation",
    "relatedsynonym": "related",
    "broadsynonym": "broad",
    "narrowsynonym": "narrow",
}
# ... unless the translation itself is not exact.
_PRECISIONS: dict[str, AliasKind] = {"CLOSE": "related", "BROADER": "broad", "NARROWER": "narrow"}
# The template row above a column of Czech synonyms: `AL oboInOwl:hasExactSynonym@cs SPLIT=|`.
_TEMPLATE = re.compile(r"AL\s+(?P<predicate>.+?)@(?P<language>[\w-]+)(?:\s+SPLIT=(?P<split>.+))?")
_NOTHING = ("", "NA")
_BAR = "|"  # parts several names also where a template does not say so, as in HPO's French table


class TranslationsSource(Source):
    """Names in other languages; a row that states no status is kept.

    `source_names` also takes the names that were translated: for a build without the ontology itself.
    """

    statuses: tuple[Status, ...] = Field(default=("OFFICIAL", "CANDIDATE"), min_length=1)
    source_names: bool = False

    @property
    def files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(p for p in self.path.rglob("*") if bare_name(p).endswith(_ENDINGS))

    def check(self) -> None:
        super().check()
        if not self.files:
            raise UsageError(f"source {self.path}: holds no *{_ENDINGS[0]} and no *{_ENDINGS[1]}")
        for file in self.files:
            _head(file)

    def blocks(self) -> Iterator[Block]:
        return blocks_of_files(self.files, read_blocks)

    def parse(self, block: Block, rows: Rows) -> None:
        head = _head(Path(block.file))
        if _is_template(head):
            self._parse_template(block, head, rows)
        else:
            self._parse_babelon(block, head, rows)

    def _parse_babelon(self, block: Block, head: Head, rows: Rows) -> None:
        for line, row in read_table(block, head, rows):
            kind = _kind(row["predicate_id"])
            if kind is None:
                continue
            original = row.get("source_value", "")
            if self.source_names and original not in _NOTHING:
                own: AliasKind = "synonym" if kind == "translation" else kind
                language = row.get("source_language", "")
                rows.alias(row["subject_id"], original, language, own, line=line)
            status = row.get("translation_status", "").strip().upper()
            if status and status not in _STATUSES:
                rows.set_aside("unknown translation_status", line, row)
            elif row["translation_value"] not in _NOTHING and self._wants({status}):
                precision = row.get("translation_precision", "").strip().upper()
                kind = _PRECISIONS.get(precision, kind)
                language = row["translation_language"]
                rows.alias(row["subject_id"], row["translation_value"], language, kind, line=line)

    def _parse_template(self, block: Block, head: Head, rows: Rows) -> None:
        subject = head.columns[head.first.index("ID")]
        names = [
            (column, kind, match["language"], (match["split"] or _BAR).strip())
            for column, cell in zip(head.columns, head.first, strict=True)
            if (match := _TEMPLATE.fullmatch(cell.strip())) and (kind := _kind(match["predicate"]))
        ]
        for line, row in read_table(block, head, rows):
            # HPO's tables keep the status in a column of any name: comment, Status.
            if tuple(row.values()) == head.first or not self._wants(set(row.values())):
                continue
            for column, kind, language, bar in names:
                for text in map(str.strip, row[column].split(bar)):
                    if text not in _NOTHING:
                        rows.alias(row[subject], text, language, kind, line=line)

    def _wants(self, cells: set[str]) -> bool:
        """Whether these cells of a row state no status, or a wanted one."""
        return cells.isdisjoint(_STATUSES) or not cells.isdisjoint(self.statuses)


def _head(file: Path) -> Head:
    """How a file begins.

    Raises:
        UsageError: it is neither a Babelon table nor a template.
    """
    head = read_head(file)
    return head if _is_template(head) else read_head(file, _BABELON)


def _is_template(head: Head) -> bool:
    fits = len(head.first) == len(head.columns)
    return fits and "ID" in head.first and "predicate_id" not in head.columns


def _kind(predicate: str) -> AliasKind | None:
    """How a name under this predicate stands to its concept; None where it is no name."""
    local = re.sub("[^a-z]", "", re.split("[:#/]", predicate)[-1].lower())
    return _PREDICATES.get(local.removeprefix("has"))
