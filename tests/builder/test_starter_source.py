"""The starter's format: concepts as JSON lines, names grouped by language."""

import gzip
import json
from pathlib import Path

import pytest

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, read_rows, refusal


def line(identifier: str, **names: list[str]) -> str:
    return json.dumps({"id": identifier, "type": "Sign", "definition": "Hot.", "names": names})


def test_a_line_gives_a_concept_and_its_names_by_language(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(
        line("MADE:1", en=["red fever", "RF"], de=["rotes Fieber", "RF"])
    )
    (tmp_path / "a.jsonl").write_text(line("MADE:2", en=["x"]) + "\n")
    assert read("starter", tmp_path, name="s", license="L") == [
        Concept("MADE:2", "x", ("Sign",), "Hot."),
        Concept("MADE:1", "red fever", ("Sign",), "Hot."),
        Alias("MADE:2", "x", "en", "preferred", "s", "L"),
        Alias("MADE:1", "red fever", "en", "preferred", "s", "L"),
        Alias("MADE:1", "RF", "en", "synonym", "s", "L"),
        Alias("MADE:1", "rotes Fieber", "de", "translation", "s", "L"),
        Alias("MADE:1", "RF", "de", "synonym", "s", "L"),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"[]",
        b'{"id": "MADE:9"}',
        line("MADE:9", de=["x"]).encode(),
        line("MADE:9", en=[]).encode(),
        line("MADE:9", en=["\ud800"]).encode(),
        line("MADE:9", en=["caf#"]).encode().replace(b"#", b"\xe9"),
    ],
    ids=str,
)
def test_a_line_that_is_no_concept_is_set_aside_with_its_place(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([line("MADE:1", en=["x"]).encode(), b"", bad]))
    rows = read_rows("starter", path)
    assert [row["text"] for row in rows.aliases] == ["x"]
    (rejected,) = rows.rejected
    assert (rejected.reason, rejected.where) == ("not a starter concept", f"{path}:3")
    assert rows.read == 2


def test_an_id_that_comes_twice_is_set_aside_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line("MADE:1", en=["x"]) + "\n" + line("MADE:1", en=["y"]))
    rows = read_rows("starter", path)
    assert [row["text"] for row in rows.aliases] == ["x"]
    assert [(one.reason, one.where) for one in rows.rejected] == [("duplicate id", f"{path}:2")]


def test_lines_that_were_cut_short_give_the_whole_ones(tmp_path: Path) -> None:
    lines = [line(f"MADE:{n}", en=[f"name {n * 7919 % 104729}"]) for n in range(2000)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    rows = read_rows("starter", path)
    assert 100 < len(rows.concepts) < 1900
    (reason,) = rows.counts.elements()
    assert "cut short" in reason


def test_a_directory_without_lines_is_a_usage_error(tmp_path: Path) -> None:
    assert "holds no *.jsonl" in refusal("starter", tmp_path)
