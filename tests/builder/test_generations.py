"""Generations: swapped in while readers go on, listed, restored, and removed once nobody reads them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from callers import Cli
from conftest import NAMES, build_small, may_override, write_tsv
from filelock import FileLock

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError, UsageError
from bioelx_mcp.generations import Lease, list_generations, open_generation, restore_generation
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import IndexLayout, Manifest, read_manifest, write_atomically
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Mention
from index_builder.config import IndexConfig
from index_builder.materialize import DensePlan, plan_dense
from index_builder.starter import ENCODER

Build = Callable[..., Manifest]


def named(path: Path, number: int) -> Path:
    """The small table with one more name of UMLS:C0000001, which tells the version."""
    write_tsv(path, [*NAMES, ("UMLS:C0000001", f"version {number}", "en", "synonym", "made")])
    os.utime(path, (number, number))  # what a source's fingerprint counts
    return path


@pytest.fixture
def three(tmp_path: Path) -> tuple[IndexLayout, list[str]]:
    """An index with three generations on disk, oldest first."""
    ids = [
        build_small(
            named(tmp_path / "names.tsv", n), tmp_path / "index", index={"keep": 2}
        ).index_id
        for n in range(3)
    ]
    return IndexLayout(tmp_path / "index"), ids


def version(index: AliasIndex) -> list[str]:
    found = [f"version {n}" for n in range(9) if index.search_exact(f"version {n}").size]
    assert index.search_dense(index.encoder.encode(["red fever"]), 3)[0][0].size == 3
    assert Retriever(index).search_candidates([Mention("red fever")], 3)[0][0].retrieval_score == 1
    return found


def on_disk(layout: IndexLayout) -> set[str]:
    return {path.name for path in layout.generations.iterdir()}


def test_generations_are_listed_newest_first(three: tuple[IndexLayout, list[str]]) -> None:
    layout, ids = three
    assert [manifest.index_id for manifest in list_generations(layout)] == ids[::-1]
    assert on_disk(layout) == set(ids)
    shutil.rmtree(layout.rows(ids[0]))  # what is broken is still listed, but not restored
    layout.generation_manifest(ids[1]).write_text("{}")  # what nothing is known of is not
    assert [manifest.index_id for manifest in list_generations(layout)] == [ids[2], ids[0]]
    with pytest.raises(InvalidArtifactError, match=r"rows/\w+\.arrow cannot be read"):
        restore_generation(layout, ids[0])
    assert read_manifest(layout).index_id == ids[2]


def test_the_one_before_is_restored_and_the_one_before_that_and_the_last_again(
    three: tuple[IndexLayout, list[str]],
) -> None:
    layout, ids = three
    before = AliasIndex(layout.root)
    assert restore_generation(layout).index_id == ids[1]
    assert version(AliasIndex(layout.root)) == ["version 1"]
    assert restore_generation(layout).index_id == ids[0]
    with pytest.raises(UsageError, match=f"no generation before {ids[0]}"):
        restore_generation(layout)
    assert restore_generation(layout, ids[2]).index_id == ids[2]
    assert version(AliasIndex(layout.root)) == ["version 2"]
    with pytest.raises(UsageError, match=f"no generation 'small-x'; there is: {ids[2]}, "):
        restore_generation(layout, "small-x")
    assert version(before) == ["version 2"]
    with FileLock(layout.lock), pytest.raises(UsageError, match="another build is at work"):
        restore_generation(layout)


def test_a_broken_manifest_in_service_can_be_replaced_by_naming_a_generation(
    three: tuple[IndexLayout, list[str]],
) -> None:
    layout, ids = three
    write_atomically(layout.manifest, "{")
    assert restore_generation(layout, ids[1]).index_id == ids[1]
    assert version(AliasIndex(layout.root)) == ["version 1"]


def test_an_older_version_that_is_wanted_again_is_served_without_being_made_again(
    tmp_path: Path, three: tuple[IndexLayout, list[str]]
) -> None:
    layout, ids = three
    made = layout.generation_manifest(ids[0]).stat().st_mtime_ns
    again = build_small(named(tmp_path / "names.tsv", 0), layout.root, index={"keep": 2})
    assert again.index_id == ids[0] == read_manifest(layout).index_id
    assert layout.generation_manifest(ids[0]).stat().st_mtime_ns == made
    assert on_disk(layout) == set(ids)


@pytest.mark.parametrize(
    ("keep", "left"), [(0, {3}), (1, {3, 2}), (2, {3, 2, 1}), (9, {3, 2, 1, 0})]
)
def test_as_many_older_generations_stay_as_are_to_be_kept(
    tmp_path: Path, three: tuple[IndexLayout, list[str]], keep: int, left: set[int]
) -> None:
    layout, ids = three
    ids.append(
        build_small(named(tmp_path / "names.tsv", 3), layout.root, index={"keep": keep}).index_id
    )
    assert on_disk(layout) == {ids[n] for n in left}


def test_the_one_that_was_served_stays_before_newer_ones(
    tmp_path: Path, three: tuple[IndexLayout, list[str]]
) -> None:
    layout, ids = three
    restore_generation(layout, ids[0])
    new = build_small(named(tmp_path / "names.tsv", 3), layout.root, index={"keep": 1}).index_id
    assert on_disk(layout) == {ids[0], new}


def test_a_generation_that_is_read_is_not_removed_until_its_reader_is_gone(
    tmp_path: Path, three: tuple[IndexLayout, list[str]]
) -> None:
    layout, ids = three
    reader = AliasIndex(layout.root)
    for n in (3, 4):
        build_small(named(tmp_path / "names.tsv", n), layout.root, index={"keep": 0})
    assert ids[2] in on_disk(layout) and len(on_disk(layout)) == 2
    assert version(reader) == ["version 2"]
    del reader  # no cycle holds it
    build_small(named(tmp_path / "names.tsv", 5), layout.root, index={"keep": 0})
    assert len(on_disk(layout)) == 1
    assert version(AliasIndex(layout.root)) == ["version 5"]


def test_who_waited_for_a_generation_that_was_removed_meanwhile_reads_the_new_one(
    three: tuple[IndexLayout, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, ids = three
    taken: list[Path] = []

    class Late(Lease):
        def __init__(self, manifest: Path) -> None:
            super().__init__(manifest)
            taken.append(manifest)
            if len(taken) == 1:  # as if the builder had gone on before the lock was had
                restore_generation(layout, ids[0])
                self.gone = True

    monkeypatch.setattr("bioelx_mcp.generations.Lease", Late)
    assert open_generation(layout)[0].index_id == ids[0]
    assert taken == [layout.generation_manifest(ids[2]), layout.generation_manifest(ids[0])]


def test_a_broken_index_with_an_older_one_says_how_to_restore_it(
    three: tuple[IndexLayout, list[str]],
) -> None:
    layout, ids = three
    shutil.rmtree(layout.tables(ids[2]))
    with pytest.raises(InvalidArtifactError, match=r"rebuild it .* or restore an older one with"):
        AliasIndex(layout.root)
    restore_generation(layout)
    assert version(AliasIndex(layout.root)) == ["version 1"]


@pytest.fixture
def read_only(three: tuple[IndexLayout, list[str]]) -> Iterator[IndexLayout]:
    """The index without a right to write anywhere in it."""
    layout, _ = three
    paths = [layout.root, *layout.root.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield layout
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


@pytest.mark.skipif(may_override(), reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to_is_read_and_not_changed(
    read_only: IndexLayout,
) -> None:
    assert version(AliasIndex(read_only.root)) == ["version 2"]
    with pytest.raises(UsageError, match="cannot be written to"):
        restore_generation(read_only)


# Four readers in one process search the index that it opened last; it tells what it held over and over.
READ = """
import json, os, sys, threading, time
from pathlib import Path
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Mention
root, until = Path(sys.argv[1]), Path(sys.argv[2])
seen, wrong, held = set(), [], []
state = {"index": AliasIndex(root, threads=1)}
def read():
    try:
        while not until.exists():
            index = state["index"]
            versions = [n for n in range(40) if index.search_exact(f"version {n}").size]
            assert len(versions) == 1, versions
            texts = ["red fever", f"version {versions[0]}", "blauer Husten"]
            for found in Retriever(index).search_candidates([Mention(text) for text in texts], 3):
                assert (len(found), found[0].retrieval_score) == (3, 1.0), found
            seen.add(versions[0])
            time.sleep(0.05)
    except Exception as error:
        wrong.append(repr(error))
readers = [threading.Thread(target=read) for _ in range(4)]
for reader in readers: reader.start()
sys.stdout.write("open\\n"); sys.stdout.flush()
while any(reader.is_alive() for reader in readers):
    time.sleep(0.2)
    state["index"] = AliasIndex(root, threads=1)
    held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
index = AliasIndex(root, threads=1)
last = [n for n in range(40) if index.search_exact(f"version {n}").size]
sys.stdout.write(json.dumps([sorted(seen), wrong, held, last]) + "\\n")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("processes", "updates"), [(1, 4), pytest.param(4, 10, marks=pytest.mark.slow)]
)
def test_readers_go_on_right_in_level_memory_while_updates_are_swapped_in(
    tmp_path: Path, processes: int, updates: int
) -> None:
    """Four or sixteen of them. What is not let go shows: each opening holds some 30 MB."""
    root, over = tmp_path / "index", tmp_path / "over"
    build_small(named(tmp_path / "names.tsv", 0), root, index={"keep": 0})
    command = [sys.executable, "-c", READ, str(root), str(over)]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
    for n in range(1, updates + 1):
        build_small(named(tmp_path / "names.tsv", n), root, index={"keep": 0})
    over.touch()
    seen = set()
    for reader in readers:
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err
        versions, wrong, held, last = json.loads(out)
        assert wrong == [] and last == [updates]
        seen |= set(versions)
        third = len(held) // 3
        assert median(held[-third:]) <= 1.2 * median(held[third : 2 * third]), held
    assert len(seen) > 2
    build_small(named(tmp_path / "names.tsv", updates + 1), root, index={"keep": 0})
    assert len(on_disk(IndexLayout(root))) == 1


HOLD = """
import sys, time
from pathlib import Path
from bioelx_mcp.generations import builder_lock
from bioelx_mcp.manifest import IndexLayout
with builder_lock(IndexLayout(Path(sys.argv[1]))):
    sys.stdout.write("held\\n"); sys.stdout.flush()
    time.sleep(60)
"""


def test_the_lock_of_a_builder_ends_with_its_process(
    build: Build, names_tsv: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "index")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another build is at work"):
            build(names_tsv)
        process.kill()
    assert build(names_tsv).aliases == 8


def test_only_new_texts_are_encoded_and_the_vectors_are_those_of_a_whole_build(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = named(tmp_path / "names.tsv", 0)
    build(path)
    encoded: list[str] = []
    right = OnnxEncoder.encode

    def counted(self: OnnxEncoder, texts: Any, **options: Any) -> Any:
        encoded.extend(texts)
        return right(self, texts, **options)

    with path.open("a", encoding="utf-8") as out:
        out.write("MADE:3\tnew rash\ten\tsynonym\tmade\nMADE:3\tred fever\ten\tsynonym\tmade\n")
    monkeypatch.setattr(OnnxEncoder, "encode", counted)
    manifest = build(path)
    assert manifest.aliases == 11
    assert encoded[0] == "new rash" and len(encoded) == 1 + len(manifest.probes)
    build(path, out=tmp_path / "whole")
    one, other = (AliasIndex(tmp_path / name) for name in ("index", "whole"))
    assert one.alias_text.equals(other.alias_text)
    np.testing.assert_array_equal(one.vectors.read(), other.vectors.read())


def test_the_vectors_of_another_encoder_or_of_a_broken_generation_are_not_used(
    tmp_path: Path, build: Build, names_tsv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = IndexLayout(tmp_path / "index")
    first = build(names_tsv)
    other = shutil.copytree(ENCODER, tmp_path / "encoder")
    (other / "encoder.json").write_text((other / "encoder.json").read_text().replace("}", " }"))
    build(names_tsv, encoder=other, index={"keep": 5})
    assert "vectors: aliases embedded, 0 of them before\n" in capsys.readouterr().err
    for path in layout.tables(first.index_id).rglob("*.lance"):
        if path.is_file():
            path.write_bytes(b"")
    with names_tsv.open("a", encoding="utf-8") as out:
        out.write("MADE:3\tfurther name\ten\tsynonym\tmade\n")
    build(names_tsv)
    assert "vectors: aliases embedded, 0 of them before\n" in capsys.readouterr().err
    assert version(AliasIndex(layout.root)) == []


def test_the_commands_list_and_restore(
    cli: Cli, three: tuple[IndexLayout, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, ids = three
    root = ("--index", str(layout.root))
    rows = cli("index", "versions", *root).rows
    assert [row[:2] for row in rows] == [
        ["served", "id"],
        ["*", ids[2]],
        ["", ids[1]],
        ["", ids[0]],
    ]
    assert rows[1][3:5] == ["3", "9"] and rows[1][6] == "made"
    assert cli("index", "rollback", *root).rows == [[ids[1], "3 concepts", "9 aliases"]]
    told = [json.loads(line) for line in cli("index", "versions", "--json", *root).out.splitlines()]
    assert [(one["index_id"], one["served"]) for one in told] == [
        (ids[2], False),
        (ids[1], True),
        (ids[0], False),
    ]
    assert set(told[0]["bytes"]) == {"encoder", "lexicon", "rows", "tables"}
    assert cli("index", "rollback", ids[2], *root).rows[0][0] == ids[2]
    missing = cli("index", "rollback", "nothing", *root)
    assert (missing.code, "no generation 'nothing'" in missing.err) == (2, True)
    monkeypatch.setenv("BIOELX_INDEX", "/no/index")
    assert cli("index", "versions").code == 4


def test_the_dense_index_follows_from_the_number_of_aliases_unless_it_is_told() -> None:
    config = IndexConfig()
    assert plan_dense(99_999, config) == DensePlan("exact")
    assert plan_dense(100_000, config) == DensePlan("ivf_rq", 6, 24, 24)
    assert plan_dense(300_000, config) == DensePlan("ivf_rq", 6, 73, 48)
    assert plan_dense(5_000_000, config) == DensePlan("ivf_rq", 6, 1220, 793)
    told = IndexConfig(dense_index="ivf_rq", bits=8, partitions=16, nprobes=99)
    assert plan_dense(10, told) == DensePlan("ivf_rq", 8, 16, 16)
    assert plan_dense(10**6, IndexConfig(dense_index="exact")) == DensePlan("exact")


@pytest.mark.parametrize("spoil", ["truncate", "remove"])
def test_a_shard_of_vectors_that_is_cut_or_gone_is_made_again(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    monkeypatch.setattr("index_builder.embed.SHARD_ROWS", 3)
    path = named(tmp_path / "names.tsv", 0)
    build(path)
    vectors = tmp_path / "index" / "build" / "vectors"
    shard = sorted(vectors.glob("*.arrow"))[1]
    if spoil == "truncate":
        shard.write_bytes(shard.read_bytes()[:100])
    else:
        shard.unlink()
    manifest = build(path, index={"exact_below": 1})
    assert (manifest.dense_index, manifest.aliases) == ("ivf_rq", 9)
    assert AliasIndex(tmp_path / "index").vectors.read().shape[0] == 9
