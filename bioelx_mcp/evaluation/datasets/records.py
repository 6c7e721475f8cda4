"""Benchmarks in JSON: BigBIO's knowledge-base schema, and lines of {mention, context, gold}."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_mcp.errors import UsageError, problems
from bioelx_mcp.evaluation.datasets.base import (
    MOST_WHOLE,
    NO_ID,
    Query,
    Remark,
    files_of,
    group_of,
    make_query,
    malformed,
    numbered_lines,
    parse_gold,
)
from bioelx_mcp.files import read_json


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mention: str
    gold: str | list[str] | None
    context: str = ""
    start: int | None = None
    language: str = ""
    group: str = ""
    document: str = ""


class _Normalized(BaseModel):
    db_name: str
    db_id: str


class _Entity(BaseModel):
    id: str
    type: str = ""
    text: list[str]
    offsets: list[tuple[int, int]]
    normalized: list[_Normalized] = []


class _Passage(BaseModel):
    text: list[str]
    offsets: list[tuple[int, int]]


class _Document(BaseModel):
    document_id: str
    passages: list[_Passage]
    entities: list[_Entity]


def read_jsonl(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    """JSON lines {mention, gold} with context, start, language, group and document where they are known.

    `gold` is an id, a list of ids any of which is right, or null for NIL.

    Raises:
        UsageError: nothing to read, or a line of another form.
    """
    for file in files_of(path, "*.jsonl", "*.jsonl.gz"):
        for where, line in numbered_lines(file):
            if not line.strip():
                continue
            try:
                row = _Line.model_validate_json(line)
            except ValidationError as error:
                field, what = problems(error)[0]
                raise malformed(where, f"{field}: {what}" if field else what, line) from error
            gold = [row.gold] if isinstance(row.gold, str) else row.gold or []
            query = make_query(
                row.mention,
                row.context,
                [] if row.start is None else [(row.start, row.start + len(row.mention))],
                frozenset().union(*(parse_gold(where, one) for one in gold)),
                language=row.language or language,
                where=where,
                group=row.group,
                document=row.document,
                remark=remark,
            )
            if query:
                yield query


def read_bigbio(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    """Documents of BigBIO's knowledge-base schema: a JSON list of them, or one a line.

    Raises:
        UsageError: nothing to read, or a document of another form.
    """
    for file in files_of(path, "*.json", "*.jsonl", "*.jsonl.gz"):
        for where, raw in _documents(file):
            try:
                document = _Document.model_validate(raw)
            except ValidationError as error:
                field, what = problems(error)[0]
                raise malformed(where, f"{field}: {what}" if field else what) from error
            context = _context(where, document.passages)
            for entity in document.entities:
                place = f"{where} ({entity.id})"
                if not entity.normalized:
                    remark(place, NO_ID)
                    continue
                gold = (parse_gold(place, one.db_id, one.db_name) for one in entity.normalized)
                query = make_query(
                    " ".join(entity.text),
                    context,
                    entity.offsets,
                    frozenset().union(*gold),
                    language=language,
                    where=place,
                    group=group_of(entity.type),
                    document=document.document_id,
                    remark=remark,
                )
                if query:
                    yield query


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".json":
        try:
            documents = read_json(path, MOST_WHOLE)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: no JSON ({error})") from error
        if not isinstance(documents, list):
            raise malformed(str(path), "no list of documents")
        yield from ((f"{path}: document {n}", one) for n, one in enumerate(documents, 1))
        return
    for where, line in numbered_lines(path):
        if line.strip():
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise malformed(where, f"no JSON ({error})", line) from error


def _context(where: str, passages: list[_Passage]) -> str:
    """The text of a document: each passage at its offset, spaces between them."""
    text = ""
    for passage in sorted(passages, key=lambda one: one.offsets[:1]):
        start = passage.offsets[0][0] if passage.offsets else -1
        if start < len(text):
            raise malformed(where, "passages without offsets, or that overlap")
        text = text.ljust(start) + " ".join(passage.text)
    return text
