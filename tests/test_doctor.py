"""What `bioelx-mcp doctor` finds, what it says to do, and how it ends."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from callers import Cli
from model_server import ModelServer, Script, vllm_reranker

from bioelx_mcp import doctor
from bioelx_mcp.linker import Linker
from bioelx_mcp.manifest import IndexLayout


def test_all_is_well_with_an_index_and_a_note_says_how_to_rank(cli: Cli, served: Path) -> None:
    result = cli("doctor")
    assert (result.code, result.err) == (0, "")
    header, *rows = result.rows
    assert header == ["check", "state", "seen", "what to do"]
    assert [(row[0], row[1]) for row in rows] == [
        ("versions", "ok"), ("settings", "ok"), ("prompt", "ok"), ("index", "ok"), ("encoder", "ok"), ("ranker", "note"),
    ]  # fmt: skip
    seen = {row[0]: row[2] for row in rows}
    assert "mcp 2." in seen["versions"] and "lancedb 0." in seen["versions"]
    assert f"in {served}: 3 concepts, 8 aliases" in seen["index"]
    assert "BIOELX_RANKER_URL" in rows[-1][3]


def test_the_starter_index_is_noted(cli: Cli, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIOELX_INDEX")
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    found = {line["check"]: line for line in cli("doctor", "--json").lines}
    assert found["index"]["state"] == "note" and "build-index" in found["index"]["mend"]


@pytest.mark.parametrize(
    ("variables", "check", "code", "told"),
    [
        ({"BIOELX_THREADS": "many"}, "settings", 2, "BIOELX_THREADS"),
        ({"BIOELX_PROMPT": "nope"}, "prompt", 4, "no prompt 'nope'"),
        ({"BIOELX_INDEX": "/no/index"}, "index", 4, "bioelx-mcp build-index --out /no/index"),
        ({"BIOELX_RANKER_URL": "http://127.0.0.1:9", "BIOELX_RANKER_MODEL": "m"}, "ranker", 6, "127.0.0.1:9"),
    ],
)  # fmt: skip
def test_what_is_broken_is_told_last_and_is_the_exit_status(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    check: str,
    code: int,
    told: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = cli("doctor", "--json")
    assert result.code == code
    *before, last = result.lines
    assert all(finding["state"] in ("ok", "note") for finding in before)
    assert (last["check"], last["state"], last["exit_code"]) == (check, "broken", code)
    assert told in last["seen"]


def test_an_encoder_that_is_not_the_index_s_is_an_invalid_artifact(
    cli: Cli, served: Path, tmp_path: Path
) -> None:
    index = Path(shutil.copytree(served, tmp_path / "copy"))
    (config,) = IndexLayout(index).generations.glob("*/encoder/encoder.json")
    config.write_text(config.read_text() + "\n")
    result = cli("doctor", "--index", str(index), "--json")
    assert result.code == 5 and "is not the one that made the index" in result.lines[-1]["seen"]


def test_a_ranker_that_answers_is_named(
    cli: Cli, model_server: Callable[[Script], ModelServer]
) -> None:
    server = model_server(vllm_reranker(lambda query, document: 1.0))
    result = cli("doctor", "--ranker-url", server.url, "--json")
    assert result.code == 0 and result.lines[-1]["state"] == "ok"
    assert result.lines[-1]["seen"].startswith(f"reader/qwen3-reranker@2 at {server.url}: ")


def test_a_package_that_is_missing_and_a_crash_are_findings(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ImportError("no such kernel")

    monkeypatch.setattr(doctor, "PACKAGES", ("mcp", "no-such-package"))
    monkeypatch.setattr(Linker, "from_settings", crash)
    result = cli("doctor", "--json")
    versions, *_, last = result.lines
    assert result.code == 3 and versions["seen"] == "not installed: no-such-package"
    assert (last["check"], last["seen"], last["exit_code"]) == (
        "index",
        "ImportError: no such kernel",
        1,
    )
