"""The whole way on the development data: ontologies, a million aliases to an index, XL-BEL."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builder.conftest import tables_of

from bioelx_mcp.evaluation.datasets import read_dataset, read_xlbel
from bioelx_mcp.evaluation.datasets.base import NO_MENTION
from index_builder.config import BuildConfig, SourceConfig
from index_builder.sources import open_source

pytestmark = pytest.mark.shared
ROOT = Path(__file__).parents[2]
# Recall in percent, average of ten languages, covered queries; a little below what benchmarks/LOG.md records.
FLOORS = {"covered_recall@1": 46.3, "covered_recall@5": 59.0, "covered_recall@64": 71.7}


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def open_kb(shared_data: Path) -> Path:
    """The index of the open knowledge base, built by the README's command; a finished one is reused."""
    run("-m", "bioelx_mcp", "build-index", "--config", "examples/open-kb.toml")
    return ROOT / "build" / "open-kb"


@pytest.mark.parametrize(
    ("name", "concepts", "aliases"),
    [
        ("gard.obo", 6000, 30_000),
        ("doid-2016.obo", 6800, 18_000),
        ("doid.json.gz", 14_000, 28_000),
        ("ordo.json.gz", 13_000, 35_000),
        ("ncit-disease.json.gz", 20_000, 58_000),
    ],
)
def test_real_ontologies_are_read(
    shared_data: Path, tmp_path: Path, name: str, concepts: int, aliases: int
) -> None:
    source = open_source(SourceConfig(kind="obo", path=shared_data / "sources" / name))
    report = tables_of([source], tmp_path, max_rejected=0.01)
    assert report["concepts"] >= concepts
    assert report["aliases"] >= aliases
    assert sum(entry["rows"] for entry in report["rejected"].values()) < 10


def test_ontologies_mappings_and_translations_merge_as_the_example_says(
    shared_data: Path, tmp_path: Path
) -> None:
    config = BuildConfig.read(ROOT / "examples" / "ontologies.toml")
    report = tables_of([open_source(source) for source in config.sources], tmp_path, 0.01)
    assert 60_000 < report["concepts"] < 67_000
    assert 295_000 < report["aliases"] < 320_000
    assert len(report["languages"]) == 11
    assert report["merged_ids"] > 50_000
    assert report["conflicts"]["mappings"] < 1500
    concepts = pq.read_table(tmp_path / "concepts.parquet")["concept_id"].to_pylist()
    assert sum(concept.startswith("UMLS:") for concept in concepts) > 12_000


def test_the_starter_agrees_with_the_open_knowledge_base(shared_data: Path) -> None:
    last = run(
        "benchmarks/check_starter.py", "--open-kb", str(shared_data / "open_kb")
    ).splitlines()[-1]
    agree, elsewhere = map(float, re.findall(r"\(([\d.]+)%\)", last))
    assert agree >= 98.0, last
    assert elsewhere <= 5.0, last


def test_every_xlbel_line_is_read(shared_data: Path) -> None:
    queries = read_xlbel(shared_data / "eval" / "xlbel")
    assert len(queries) == 4095
    assert len({query.language for query in queries}) == 10
    marked = [q for q in queries if q.mention.start is not None]
    assert len(marked) > 0.99 * len(queries)
    for query in marked:
        start = query.mention.start or 0
        found = query.mention.context[start : start + len(query.mention.text)]
        assert found.casefold() == query.mention.text.casefold(), query.where


@pytest.mark.parametrize(
    ("name", "path", "queries", "multiple", "nil", "discontinuous"),
    [
        ("mantra", "mantra", 1808, 296, 0, 57),
        ("pubtator", "pubtator/bc5cdr_dev.pubtator.txt", 9684, 11, 60, 0),
        ("pubtator", "pubtator/ncbi_disease_dev.pubtator.txt", 787, 30, 0, 0),
        ("wikimed-de-bel", "wikimed_de_bel", 19_561, 196, 0, 0),
    ],
)
def test_real_benchmarks_are_read_whole_with_every_offset_where_it_says(
    shared_data: Path,
    name: str,
    path: str,
    queries: int,
    multiple: int,
    nil: int,
    discontinuous: int,
) -> None:
    dataset = read_dataset(name, shared_data / "eval" / path)
    assert len(dataset.queries) == queries
    assert sum(len(query.gold) > 1 for query in dataset.queries) == multiple
    assert sum(not query.gold for query in dataset.queries) == nil
    assert sum(len(query.spans) > 1 for query in dataset.queries) == discontinuous
    assert set(dataset.reasons) <= {NO_MENTION}
    for query in dataset.queries:
        parts = " ".join(query.mention.context[start:end] for start, end in query.spans)
        assert not query.spans or parts.split() == query.mention.text.split(), query.where


def test_the_open_knowledge_base_is_indexed_and_found_in(
    open_kb: Path, shared_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    printed = run(
        *("-m", "bioelx_mcp", "evaluate", "xlbel", str(shared_data / "eval" / "xlbel")),
        *("--index", str(open_kb), "--out", str(out)),
    )
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["average"]["queries"] == 4095
    for language in ("de", "en", "es", "fi", "ja", "ko", "ru", "th", "tr", "zh"):
        assert f"| {language} |" in printed
    for metric, floor in FLOORS.items():
        assert result["average"][metric] >= floor, result["average"]
