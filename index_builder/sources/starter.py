"""Concepts as JSON lines, names grouped by language: the format of the starter knowledge base.

{"id": "UMLS:C0000000", "type": "...", "definition": "...", "names": {"en": ["preferred", "synonym"], ...}}
One `.jsonl` file, or a directory of them; a line that is no such concept, or has an id twice, is set aside.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError, field_validator

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import AliasKind
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.reading import blocks_of_files, numbered_lines, read_all


class _Concept(BaseModel):
    id: str
    type: str
    definition: str
    names: dict[str, list[str]]

    @field_validator("names")
    @classmethod
    def _in_english(cls, names: dict[str, list[str]]) -> dict[str, list[str]]:
        if not names.get("en"):
            raise ValueError("names one in English")
        return names


class StarterSource(Source):
    """One file is one block, and the place in which an id is unique."""

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.jsonl")) if self.path.is_dir() else [self.path]

    def check(self) -> None:
        super().check()
        if not self.files:
            raise UsageError(f"source {self.path}: holds no *.jsonl")

    def blocks(self) -> Iterator[Block]:
        return blocks_of_files(self.files, _whole)

    def parse(self, block: Block, rows: Rows) -> None:
        seen: set[str] = set()
        for line, text in numbered_lines(block):
            rows.read += 1
            try:
                concept = _Concept.model_validate_json(text)
            except ValidationError:
                rows.set_aside("not a starter concept", line, text.decode(errors="replace"))
                continue
            if concept.id in seen:
                rows.set_aside("duplicate id", line, concept.id)
                continue
            seen.add(concept.id)
            rows.concept(
                concept.id,
                concept.names["en"][0],
                semantic_types=[concept.type],
                definition=concept.definition,
                line=line,
            )
            for language, names in concept.names.items():
                first: AliasKind = "preferred" if language == "en" else "translation"
                for place, name in enumerate(names):
                    rows.alias(concept.id, name, language, "synonym" if place else first, line=line)


def _whole(file: Path) -> Iterator[Block]:
    data, problem = read_all(file)
    size = file.stat().st_size
    yield Block(str(file), data=data, position=size)
    if problem:
        yield Block(str(file), data.count(b"\n") + 1, position=size, problem=problem)
