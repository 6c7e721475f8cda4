"""What the builder's tests share: reading of a source, a language learnt in seconds, a calm torch."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tsv

from bioelx_mcp.errors import UsageError
from index_builder.config import SourceConfig
from index_builder.sources import Record, Rejects, open_source


def read(kind: str, path: Path, rejects: Rejects | None = None, **options: Any) -> list[Record]:
    config = SourceConfig.model_validate({"kind": kind, "path": path, **options})
    return list(open_source(config).read(rejects or Rejects()))


def refusal(kind: str, path: Path, **options: Any) -> str:
    """The message of the UsageError that opening and reading raises."""
    with pytest.raises(UsageError) as caught:
        read(kind, path, **options)
    return str(caught.value)


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
