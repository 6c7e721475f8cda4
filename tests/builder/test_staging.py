"""Staging: shards that are clean, the same however they were read, and resumed where a run stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bioelx_mcp.errors import UsageError
from index_builder import staging
from index_builder.sources import Block, Rows, Source
from index_builder.staging import Staged, stage_source


class Numbers(Source):
    """Ten blocks of three names; a block can be bad, a name can be anything."""

    blocks_of: int = 10
    bad: tuple[int, ...] = ()
    names: tuple[str, ...] = ("red fever {}", "Rotes  Fieber {}", "赤热 {}")
    tags: tuple[str, ...] = ("ENG", "de_AT", "und")

    @property
    def size(self) -> int:
        return self.blocks_of

    def blocks(self) -> Iterator[Block]:
        for number in range(1, self.blocks_of + 1):
            problem = "cut short" if number in self.bad else ""
            yield Block("numbers.txt", number, position=number, problem=problem)

    def parse(self, block: Block, rows: Rows) -> None:
        rows.read += 1
        concept = f"made_{block.line}"
        for name, tag in zip(self.names, self.tags, strict=True):
            rows.alias(concept, name.format(block.line), tag, line=block.line)
        rows.concept(concept, xrefs=["UMLS_CUI:C0000001", "X:1"], exact=["bad"], line=block.line)


def stage(directory: Path, source: Source | None = None, **options: Any) -> Staged:
    settings: dict[str, Any] = {"workers": 1, "max_rejected": 0.01, "report": lambda *_: None}
    source = source or Numbers(path=Path("numbers.txt"))
    return stage_source(source, directory, **(settings | options))


def aliases(staged: Staged) -> list[dict[str, Any]]:
    return [row for path in staged.files("aliases") for row in pq.read_table(path).to_pylist()]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SHARD_ROWS", 12)


def test_ids_languages_and_texts_come_out_canonical(tmp_path: Path) -> None:
    staged = stage(tmp_path, Numbers(path=Path("numbers.txt"), exact_xrefs=("UMLS",), license="L"))
    rows = aliases(staged)
    assert [row["row"] for row in rows] == list(range(30))
    told = ("concept_id", "text", "normalized", "language", "kind", "source", "license")
    assert [tuple(row[key] for key in told) for row in rows[:3]] == [
        ("MADE:1", "red fever 1", "red fever 1", "en", "synonym", "numbers", "L"),
        ("MADE:1", "Rotes Fieber 1", "rotes fieber 1", "de-AT", "synonym", "numbers", "L"),
        ("MADE:1", "赤热 1", "赤热 1", "", "synonym", "numbers", "L"),
    ]
    concept = pq.read_table(staged.files("concepts")[0]).to_pylist()[0]
    assert concept["xrefs"] == ["UMLS:C0000001", "X:1"]
    assert concept["exact"] == ["UMLS:C0000001"]


def test_of_several_cross_references_of_a_prefix_none_is_exact(tmp_path: Path) -> None:
    class Crossed(Numbers):
        def parse(self, block: Block, rows: Rows) -> None:
            rows.read += 1
            rows.alias("A:1", "fever", "en")
            rows.concept("A:1", xrefs=["UMLS:C0000001", "X:1", "X:2"], exact=["Y:1"])
            rows.concept("A:2", xrefs=["X:3", "Z:1"])

    source = Crossed(path=Path("crossed.txt"), blocks_of=1, exact_xrefs=("UMLS", "X"))
    (path,) = stage(tmp_path, source).files("concepts")
    assert pq.read_table(path)["exact"].to_pylist() == [["Y:1", "UMLS:C0000001"], ["X:3"]]


def test_asked_for_languages_and_names_without_one_are_kept(tmp_path: Path) -> None:
    source = Numbers(path=Path("numbers.txt"), languages=("de",))
    assert {row["language"] for row in aliases(stage(tmp_path, source))} == {"de-AT", ""}
    with pytest.raises(UsageError, match="'german' is no BCP-47 tag"):
        stage(tmp_path / "other", source.model_copy(update={"languages": ("german",)}))


def test_a_broken_run_goes_on_at_its_shard_and_ends_like_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path / "unbroken")
    expected = contents(tmp_path / "unbroken")
    assert len([name for name in expected if name.endswith("aliases.parquet")]) == 3
    right, read = Numbers.parse, []

    def parse(self: Numbers, block: Block, rows: Rows) -> None:
        if block.line == 7 and 7 not in read:
            read.append(7)
            raise KeyboardInterrupt
        read.append(block.line)
        right(self, block, rows)

    monkeypatch.setattr(Numbers, "parse", parse)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "broken")
    stage(tmp_path / "broken")
    assert read == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10]  # blocks 1 to 4 were a whole shard
    assert contents(tmp_path / "broken") == expected


def test_processes_give_the_shards_that_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PARALLEL_BYTES", 0)
    stage(tmp_path / "two", workers=2)
    stage(tmp_path / "one", workers=1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_source_with_too_many_bad_rows_stops_with_the_first_of_them(tmp_path: Path) -> None:
    source = Numbers(path=Path("numbers.txt"), bad=(6,))
    message = (
        r"source numbers\.txt: 1 of 10 rows cannot be used, more than max_rejected = 0\.01; "
        r"the first is numbers\.txt:6: cut short"
    )
    with pytest.raises(UsageError, match=message):
        stage(tmp_path, source)
    staged = stage(tmp_path, source, max_rejected=0.1)  # the shards are there: nothing is read anew
    assert len(aliases(staged)) == 27
    assert staged.counts() == {"cut short": 1}
    told = [
        json.loads(line)
        for path in staged.files("rejected")
        for line in path.read_text().splitlines()
    ]
    assert told == [{"reason": "cut short", "where": "numbers.txt:6", "row": ""}]


def test_bad_names_are_a_share_of_the_names(tmp_path: Path) -> None:
    source = Numbers(path=Path("numbers.txt"), names=("a {}", "b {}", "--"))
    with pytest.raises(UsageError, match=r"10 of 30 names cannot be used.*name without a letter"):
        stage(tmp_path / "a", source)
    tagged = Numbers(path=Path("numbers.txt"), tags=("en", "tlh", "English"))
    with pytest.raises(UsageError, match=r"language is no BCP-47 tag: \[\"made_1\", \"English\"\]"):
        stage(tmp_path / "b", tagged)
