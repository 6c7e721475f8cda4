"""What the builder's tests share: reading of a source, a language learnt in seconds, a calm torch."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tsv

from bioelx_mcp.errors import UsageError
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import IndexLayout
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Alias, Concept, Mention
from index_builder.config import MergeConfig, SourceConfig
from index_builder.sources import Rejected, Source, open_source
from index_builder.staging import stage_source
from index_builder.tables import build_tables


@dataclass
class Gathered:
    """All that a source gives: raw rows as dictionaries, and what it sets aside."""

    aliases: list[dict[str, Any]] = field(default_factory=list)
    concepts: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    read: int = 0


def read_rows(kind: str, path: Path, **options: Any) -> Gathered:
    config = SourceConfig.model_validate({"kind": kind, "path": path, **options})
    source, all_of_it = open_source(config), Gathered()
    for block in source.blocks():
        rows = source.read(block)
        all_of_it.aliases += rows.aliases().to_pylist()
        all_of_it.concepts += rows.concepts().to_pylist()
        all_of_it.rejected += rows.rejected
        all_of_it.counts += rows.counts
        all_of_it.read += rows.read
    return all_of_it


def read(kind: str, path: Path, **options: Any) -> list[Concept | Alias]:
    """The concepts, then the aliases of a source, as the schema's values."""
    rows = read_rows(kind, path, **options)
    return [
        *(_made(Concept, row) for row in rows.concepts),
        *(_made(Alias, row) for row in rows.aliases),
    ]


def _made(kind: type[Any], row: dict[str, Any]) -> Any:
    known = [one.name for one in fields(kind)]
    values = {name: tuple(v) if isinstance(v := row[name], list) else v for name in known}
    return kind(**values)


def tables_of(
    sources: Sequence[Source], directory: Path, max_rejected: float = 1.0, **merge: Any
) -> dict[str, Any]:
    """Read and merge sources into the tables of a directory; the report."""
    shutil.rmtree(directory / "sources", ignore_errors=True)
    staged = [
        stage_source(
            source,
            directory / "sources" / str(number),
            workers=1,
            max_rejected=max_rejected,
            report=lambda *_: None,
        )
        for number, source in enumerate(sources)
    ]
    return build_tables(staged, directory, MergeConfig(**merge))


def refusal(kind: str, path: Path, **options: Any) -> str:
    """The message of the UsageError that opening and reading raises."""
    with pytest.raises(UsageError) as caught:
        read_rows(kind, path, **options)
    return str(caught.value)


def content(root: Path) -> dict[str, Any]:
    """All that an index holds, but for when and where it was made."""
    index = AliasIndex(root, threads=1)
    manifest = index.manifest.model_dump(exclude={"index_id", "created", "files"})
    rows = IndexLayout(root).rows(index.manifest.index_id)
    mentions = [Mention(text) for text in ("red fever", "gruner Ausschlg", "versoin 7", "発疹")]
    return {
        "manifest": manifest,
        "rows": {path.name: path.read_bytes() for path in sorted(rows.iterdir())},
        "vectors": index.vectors.read().tobytes(),
        "found": Retriever(index).search_candidates(mentions, 3),
    }


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch on one thread: on busy cores, threads that wait for each other cost ten times the work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def invented_tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 concepts in three invented languages: each is one of ten adjectives with one of twelve nouns."""
    rows = [["id", "name", "lang"]]
    for language in ("en", "de", "es"):
        rng = random.Random(language)
        words = [
            "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2))
            for _ in range(22)
        ]
        for number in range(120):
            adjective, noun = words[number // 12], words[10 + number % 12]
            name = f"{adjective} {noun}" if language == "en" else f"{noun} {adjective}"
            rows.append([f"MADE:{number}", name, language])
    return write_tsv(tmp_path_factory.mktemp("invented") / "names.tsv", rows)
