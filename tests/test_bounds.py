"""What is read whole is no longer than such a file may be, and what is read by lines has lines that end."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NAMES, build_small, write_tsv
from model_server import ModelServer, Reply, Script, vllm_reranker

from bioelx_mcp.errors import BioelxError, InvalidArtifactError, UsageError
from bioelx_mcp.evaluation.datasets import base, mantra, read_dataset, records
from bioelx_mcp.evaluation.predictions import read_predictions
from bioelx_mcp.evaluation.results import read_runs
from bioelx_mcp.evaluation.run import evaluate_linker
from bioelx_mcp.files import MOST_BYTES
from bioelx_mcp.linker import Linker
from bioelx_mcp.manifest import IndexLayout, read_manifest
from bioelx_mcp.prompt import PointwisePrompt, load_prompt
from index_builder.config import BuildConfig

READERS: dict[str, Callable[[Path], Any]] = {
    "manifest.json": lambda path: read_manifest(IndexLayout(path.parent)),
    "prompt.toml": lambda path: load_prompt(str(path), PointwisePrompt),
    "build.toml": BuildConfig.read,
    "result.json": lambda path: read_runs([path]),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_read_whole_is_refused_beyond_its_bound(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)  # of no size on the disk
    with pytest.raises(BioelxError, match=f"{name}.*it is over 64 MiB long"):
        READERS[name](path)


@pytest.mark.parametrize("name", ["manifest.json", "result.json"])
def test_json_that_is_nested_without_end_is_no_json(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(BioelxError, match=f"{name} cannot be read.*nested too deeply"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("dataset", ["jsonl", "pubtator", "xlbel", "bigbio"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_a_benchmark_without_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, packed: bool
) -> None:
    monkeypatch.setattr(base, "MOST_LINE", 1 << 10)
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    data = b"\n" + b"x" * (1 << 20)
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UsageError, match=r"x\.jsonl(\.gz)?:2: a line of .* and more"):
        read_dataset(dataset, path)


def test_a_benchmark_that_is_parsed_whole_is_no_larger_than_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (records, mantra):
        monkeypatch.setattr(module, "MOST_WHOLE", 1 << 20)
    for name, dataset in (("x.json", "bigbio"), ("x.xml", "mantra")):
        (tmp_path / name).write_bytes(b" " * (1 << 20) + b"[]")
        with pytest.raises(UsageError, match=r"x\.(json|xml): .*over"):
            read_dataset(dataset, tmp_path / name)
    (tmp_path / "x.ann").touch()
    with (tmp_path / "x.txt").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match=r"x\.ann lacks its text x\.txt: it is over 64 MiB"):
        read_dataset("brat", tmp_path / "x.ann")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        read_dataset("bigbio", tmp_path / "deep.json")
    (tmp_path / "deep.jsonl").write_text("[" * 200_000 + "\n")
    with pytest.raises(UsageError, match=r"deep\.jsonl:1: no JSON"):
        read_dataset("bigbio", tmp_path / "deep.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_of_a_benchmark_are_not_expanded_however_it_is_encoded(
    tmp_path: Path, encoding: str
) -> None:
    text = '<?xml version="1.0" encoding="{}"?><!DOCTYPE x [<!ENTITY a "aaaa">]><Corpus lang="en"/>'
    (tmp_path / "x.xml").write_bytes(text.format(encoding).encode(encoding))
    with pytest.raises(UsageError, match="declares entities"):
        read_dataset("mantra", tmp_path / "x.xml")


def test_predictions_of_any_text_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A line ends at a newline, not at the other characters that Unicode ends lines with."""
    build_small(write_tsv(tmp_path / "names.tsv", NAMES), tmp_path / "index")
    odd = "red\u2028fever\x85and\x1cblue\u2029cough\u202e"
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"mention": "red fever", "gold": "C0000001", "context": odd}) + "\n")
    dataset = read_dataset("jsonl", path)
    out = tmp_path / "out.jsonl"
    evaluate_linker(Linker.open(tmp_path / "index"), dataset, predictions=out)
    (row,) = read_predictions(out)
    assert row.context == odd
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1


def test_an_answer_of_a_model_server_without_end_is_given_up(
    model_server: Callable[[Script], ModelServer],
    starter_index: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bioelx_mcp.backends.http._MOST_ANSWER", 1 << 20)
    server = model_server(
        lambda request: (
            Reply("[" + " " * (2 << 20))
            if request.path == "/score"
            else vllm_reranker(lambda query, document: 0.0)(request)
        )
    )
    ranked = Linker.open(starter_index, ranker_url=server.url)
    (ranking,) = ranked.link(["red fever"])
    assert "an answer of over 1 MiB" in ranking.degraded


def test_the_encoder_is_bounded_too(tmp_path: Path) -> None:
    build_small(write_tsv(tmp_path / "names.tsv", NAMES), tmp_path / "index")
    layout = IndexLayout(tmp_path / "index")
    config = layout.encoder(read_manifest(layout).index_id) / "encoder.json"
    with config.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InvalidArtifactError, match="it is over 64 MiB long"):
        Linker.open(tmp_path / "index")
