"""Whole builds: what is done, skipped, resumed and mended, and what a reader finds meanwhile."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from conftest import write_tsv
from filelock import FileLock
from numpy.typing import NDArray

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import MissingArtifactError, UsageError
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import IndexLayout, Manifest, SourceCard, encoder_checksum
from index_builder.config import BuildConfig
from index_builder.pipeline import build_index
from index_builder.starter import ENCODER

Build = Callable[..., Manifest]


def files(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time; the lock is touched by every build."""
    return {
        str(path.relative_to(directory)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables of the index in service, vectors and all."""
    index_id = json.loads((out / "manifest.json").read_text())["index_id"]
    database = lancedb.connect(IndexLayout(out).tables(index_id))
    found: dict[str, pa.Table] = {
        n: database.open_table(n).to_arrow() for n in ("concepts", "aliases")
    }
    return {name: table.to_pylist() for name, table in found.items()}


def concepts_of(index: AliasIndex, name: str) -> list[str]:
    return [
        index.concept(int(index.alias_concept[row])).concept_id for row in index.search_exact(name)
    ]


def test_a_build_makes_an_index_that_answers(
    build: Build, names_tsv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with names_tsv.open("a", encoding="utf-8") as out:
        out.write("MADE:3\t--\ten\tsynonym\tmade\n")
    manifest = build(names_tsv, merge={"max_rejected": 0.2})
    assert (manifest.concepts, manifest.aliases, manifest.dense_index) == (3, 8, "exact")
    assert manifest.languages == {"de": 3, "en": 3, "es": 1, "ja": 1}
    assert manifest.sources == (SourceCard(name="made", aliases=8, licenses=()),)
    assert manifest.encoder.checksum == encoder_checksum(ENCODER)
    assert manifest.index_id.startswith("small-")
    index = AliasIndex(tmp_path / "index")
    assert concepts_of(index, "gruner ausschlag") == ["MADE:3"]
    assert index.manifest == manifest
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tables: 8 aliases of 3 concepts, 1 rows set aside\n" in shown.err
    assert shown.err.endswith(f"index: {manifest.index_id} in service\n")


def test_a_second_run_finds_everything_fresh(build: Build, names_tsv: Path, tmp_path: Path) -> None:
    first = build(names_tsv)
    before = files(tmp_path / "index")
    assert build(names_tsv) == first
    assert files(tmp_path / "index") == before


def test_a_changed_source_makes_a_new_generation_and_one_older_stays(
    build: Build, names_tsv: Path, tmp_path: Path
) -> None:
    generations = tmp_path / "index" / "generations"
    ids = []
    for number in range(3):
        manifest = build(names_tsv)
        assert manifest.aliases == 8 + number
        ids.append(manifest.index_id)
        (generations / f".new-left-{number}").mkdir()  # what a killed build left
        with names_tsv.open("a", encoding="utf-8") as out:
            out.write(f"MADE:3\tfurther name {number}\ten\tsynonym\tmade\n")
    assert len(set(ids)) == 3
    assert {path.name for path in generations.iterdir()} == {ids[1], ids[2], ".new-left-2"}
    assert concepts_of(AliasIndex(tmp_path / "index"), "further name 1") == ["MADE:3"]


def test_another_encoder_makes_other_vectors_of_the_same_tables(
    build: Build, names_tsv: Path, tmp_path: Path
) -> None:
    first = build(names_tsv)
    before = files(tmp_path / "index" / "build" / "tables")
    other = shutil.copytree(ENCODER, tmp_path / "encoder")
    config = other / "encoder.json"
    config.write_text(config.read_text().replace("}", " }"))
    second = build(names_tsv, encoder=other)
    assert first.index_id != second.index_id
    assert files(tmp_path / "index" / "build" / "tables") == before


def test_an_interrupted_embedding_goes_on_at_the_first_missing_shard(
    build: Build, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_builder.embed.SHARD_ROWS", 3)
    build(names_tsv, out=tmp_path / "unbroken")
    right = OnnxEncoder.encode
    calls: list[Sequence[str]] = []

    def broken(self: OnnxEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(texts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(self, texts)

    monkeypatch.setattr(OnnxEncoder, "encode", broken)
    with pytest.raises(KeyboardInterrupt):
        build(names_tsv)
    vectors = tmp_path / "index" / "build" / "vectors"
    before = files(vectors)
    assert set(before) == {"00000.arrow", "stage.json"}
    assert not (tmp_path / "index" / "manifest.json").exists()
    build(names_tsv)
    assert files(vectors)["00000.arrow"] == before["00000.arrow"]
    assert calls[2] == calls[1]  # the shard that failed
    assert [len(texts) for texts in calls] == [3, 3, 3, 2, 4]  # the last ones are the probes
    assert tables(tmp_path / "index") == tables(tmp_path / "unbroken")


def test_a_failing_build_leaves_the_index_in_service_and_the_lock_free(
    build: Build, names_tsv: Path, tmp_path: Path
) -> None:
    build(names_tsv)
    before = files(tmp_path / "index" / "generations")
    manifest = (tmp_path / "index" / "manifest.json").read_bytes()
    empty = write_tsv(tmp_path / "empty.tsv", [["id", "name"], ["no id", "x"]])
    with pytest.raises(UsageError, match=r"1 of 1 names cannot be used.*no CURIE") as kept:
        build(empty)  # `kept` keeps its frames
    with pytest.raises(UsageError, match="no alias is left"):
        build(empty, merge={"max_rejected": 1})
    with pytest.raises(UsageError, match="no such file"):
        build(tmp_path / "none.tsv")
    assert (tmp_path / "index" / "manifest.json").read_bytes() == manifest
    assert files(tmp_path / "index" / "generations") == before
    assert concepts_of(AliasIndex(tmp_path / "index"), "red fever") == ["UMLS:C0000001"]
    assert build(names_tsv).aliases == 8
    assert kept.value.exit_code == 2


def test_a_second_builder_is_told_to_wait(build: Build, names_tsv: Path, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with (
        FileLock(IndexLayout(tmp_path / "index").lock),
        pytest.raises(UsageError, match=r"another build is at work in .*index; wait for it"),
    ):
        build(names_tsv)
    assert build(names_tsv).aliases == 8


@pytest.mark.parametrize("part", ["encoder/model.onnx", "tables/aliases.lance"])
def test_a_broken_generation_is_made_again(
    build: Build, names_tsv: Path, tmp_path: Path, part: str
) -> None:
    manifest = build(names_tsv)
    path = IndexLayout(tmp_path / "index").generation(manifest.index_id) / part
    path.rename(tmp_path / "gone")
    assert build(names_tsv).index_id == manifest.index_id
    assert concepts_of(AliasIndex(tmp_path / "index"), "red fever") == ["UMLS:C0000001"]


def test_what_cannot_be_built_is_said_before_any_work(
    build: Build, names_tsv: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingArtifactError, match=r"is no encoder: it lacks encoder\.json"):
        build(names_tsv, encoder=tmp_path)
    source = {"kind": "table", "path": names_tsv, "use": "training"}
    with pytest.raises(UsageError, match='no source is used for the index: all say `use = "tra'):
        build(names_tsv, sources=[source])
    assert not (tmp_path / "index").exists()
    with pytest.raises(UsageError, match=r"names\.tsv cannot be written to"):
        build(names_tsv, out=names_tsv)


def test_a_build_killed_while_it_reads_gives_byte_for_byte_the_same_tables(tmp_path: Path) -> None:
    source = tmp_path / "names.tsv"
    rows = (f"MADE:{n % 9973}\tname {n}\tde\n" for n in range(60_000))
    source.write_text("concept_id\tname\tlanguage\n" + "".join(rows))
    read = f"""
import sys; from pathlib import Path
from index_builder import staging; from index_builder.sources.formats import reading
staging.SHARD_ROWS, reading.BLOCK_BYTES = 2000, 20_000
from index_builder.sources.table import TableSource
out = Path(sys.argv[1])
report = lambda done, total, text: print(done, file=sys.stderr)
staged = staging.stage_source(TableSource(path=Path({str(source)!r})), out / "shards", workers=1, max_rejected=0, report=report)
from index_builder.tables import build_tables
build_tables([staged], out / "tables")
"""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([sys.executable, "-c", read, str(whole)], check=True, capture_output=True)
    rng = random.Random(0)
    for _ in range(4):
        command = [sys.executable, "-c", read, str(broken)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for _, _ in zip(range(rng.randrange(1, 20)), process.stderr, strict=False):
                pass
            process.send_signal(signal.SIGKILL)
            process.communicate()
    shards = len(list((broken / "shards").glob("*.json")))
    assert 0 < shards < len(list((whole / "shards").glob("*.json")))
    subprocess.run([sys.executable, "-c", read, str(broken)], check=True, capture_output=True)
    for name in ("concepts.parquet", "aliases.parquet", "report.json"):
        assert (broken / "tables" / name).read_bytes() == (whole / "tables" / name).read_bytes()


RUN = """
import sys; from pathlib import Path
import index_builder.embed; index_builder.embed.SHARD_ROWS = 100
from index_builder.config import BuildConfig; from index_builder.pipeline import build_index
build_index(BuildConfig.read(Path(sys.argv[1])))
"""


def test_a_build_killed_at_any_moment_and_run_again_gives_the_same_tables(
    tmp_path: Path, invented_tsv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "build.toml"
    source = f'[[sources]]\nkind = "table"\npath = "{invented_tsv}"\n'
    config.write_text(f'out = "index"\nencoder = "{ENCODER}"\n{source}')
    rng = random.Random(0)
    for line in ("tables: 360 aliases", "index: materialising"):
        command = [sys.executable, "-c", RUN, str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert any(shown.startswith(line) for shown in process.stderr)
            time.sleep(rng.random() / 10)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr("index_builder.embed.SHARD_ROWS", 100)
    build_index(BuildConfig.read(config))
    build_index(BuildConfig.read(config, out=tmp_path / "unbroken"))
    assert tables(tmp_path / "index") == tables(tmp_path / "unbroken")
    assert len(list((tmp_path / "index" / "generations").iterdir())) == 1


@pytest.mark.usefixtures("one_thread")
def test_a_build_from_scratch_trains_once_and_later_settings_reuse_the_encoder(
    tmp_path: Path, invented_tsv: Path, names_tsv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    train = {"steps": 30, "batch_pairs": 32, "vocabulary": 300, "max_length": 12}
    data = {
        "out": out,
        "sources": [
            {"kind": "table", "path": invented_tsv},
            {"kind": "table", "path": names_tsv, "use": "training"},
        ],
        "train": {**train, "validation_concepts": 5},
        "quantize": True,
    }
    manifest = build_index(BuildConfig.parse(data, "options"))
    assert (manifest.concepts, manifest.aliases) == (120, 360)  # the training's names are not in it
    assert (
        len(AliasIndex(out).encoder.encode(["zaza sima"])[0]) == manifest.encoder.dimension == 128
    )
    card = (out / "build" / "encoder" / "onnx" / "README.md").read_text(encoding="utf-8")
    assert card.split("# ")[1].startswith(f"{manifest.encoder.name}: ")
    kept = files(out / "build")
    assert "training-tables/aliases.parquet" in kept
    assert build_index(BuildConfig.parse(data, "options")) == manifest
    data["index"] = {"dense_index": "ivf_rq"}
    other = build_index(BuildConfig.parse(data, "options"))
    assert other.dense_index == "ivf_rq"
    assert other.encoder == manifest.encoder
    assert files(out / "build") == kept
    index = AliasIndex(out)
    [(rows, similarity)] = index.search_dense(index.encoder.encode(["zaza sima"]), 5)
    assert len(rows) == 5
    assert similarity[0] > 0.9

    def stop(*args: Any, **keys: Any) -> None:
        raise KeyboardInterrupt

    # A base model is an input too: with other weights at the same place the training is done anew.
    base = shutil.copytree(out / "build" / "training" / "model", tmp_path / "base")
    data["train"] = {**train, "steps": 1, "base_model": str(base)}
    monkeypatch.setattr("index_builder.export.export_encoder", stop)
    seen = []
    for age in (0, 0, 1):
        times = (base / "model.safetensors").stat().st_mtime_ns + age
        os.utime(base / "model.safetensors", ns=(times, times))
        with pytest.raises(KeyboardInterrupt):
            build_index(BuildConfig.parse(data, "options"))
        seen.append(files(out / "build" / "training")["metrics.jsonl"])
    assert seen[0] == seen[1] != seen[2]
