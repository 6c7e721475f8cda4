"""The Ray engine on one machine with two workers: the same index, resumed, one error for a worker's."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from conftest import NAMES, build_small, write_tsv

from bioelx_mcp.errors import UsageError
from builder.conftest import content
from index_builder.embed import shard_paths
from index_builder.engines import Engine, open_engine
from index_builder.starter import CONCEPTS, ENCODER

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'bioelx-mcp[ray]'")
# Starting Ray takes a minute on two busy cores, and it warns of its own future.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SHARD = 2000
STARTER = {"kind": "starter", "path": str(CONCEPTS)}
# The command line, with shards that are small.
BUILD = f"""
import index_builder.embed
index_builder.embed.SHARD_ROWS = {SHARD}
from bioelx_mcp.cli import main
main()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of this machine with two workers, which need not find this module."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ.setdefault("RAY_worker_niceness", "0")  # else they wait for whatever else runs
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def engine(address: str) -> Iterator[Engine]:
    with open_engine("ray") as engine:
        yield engine
    assert ray.is_initialized()  # what was not started by the engine is not ended by it


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_builder.embed.SHARD_ROWS", SHARD)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's index, built in one process."""
    root = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index_builder.embed.SHARD_ROWS", SHARD)
        build_small(CONCEPTS, root, sources=[STARTER])
    return root


def meet(directory: Path, threads: int, part: pa.Table) -> pa.Table:
    """Where a part is answered; waits until two processes are at it."""
    (directory / str(os.getpid())).touch()
    until = time.monotonic() + 300
    while len(list(directory.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    return pa.table({"number": part["number"], "pid": [os.getpid()], "threads": [threads]})


def counted(schema: pa.Schema, part: pa.Table) -> Iterator[pa.RecordBatch]:
    number = part["number"][0].as_py()
    time.sleep(0.2 * (5 - number))  # the first is the last to be done
    for row in range(number * 10, number * 10 + 10, 5):
        yield pa.record_batch([pa.array(range(row, row + 5), pa.int64())], schema=schema)


def numbered(count: int) -> list[pa.Table]:
    return [pa.table({"number": [number]}) for number in range(count)]


def test_two_workers_in_processes_of_their_own_share_the_parts(
    engine: Engine, tmp_path: Path
) -> None:
    worker = partial(partial, meet, tmp_path)
    answers = [answer.to_pylist()[0] for answer in engine.map(worker, numbered(6))]
    assert sorted(answer["number"] for answer in answers) == list(range(6))
    assert {answer["threads"] for answer in answers} == {1}
    pids = {answer["pid"] for answer in answers}
    assert len(pids) == 2 and os.getpid() not in pids
    assert list(engine.map(worker, [])) == []


def test_fragments_lie_in_the_order_of_the_parts_whichever_is_written_first(
    engine: Engine, tmp_path: Path
) -> None:
    schema = pa.schema([pa.field("row", pa.int64(), nullable=False)])
    engine.write_table(tmp_path / "rows.lance", schema, partial(counted, schema), numbered(5))
    stored = lancedb.connect(tmp_path).open_table("rows").search().with_row_id(True).to_arrow()
    stored = stored.sort_by("_rowid")
    assert stored["row"].to_pylist() == list(range(50))
    fragments = stored["_rowid"].to_numpy() >> np.uint64(32)
    assert fragments.tolist() == [row // 10 for row in range(50)]


@pytest.mark.usefixtures("address")
def test_an_index_and_its_update_are_the_same_from_a_cluster_as_from_one_process(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_small(CONCEPTS, tmp_path / "ray", sources=[STARTER], engine="ray")
    assert content(tmp_path / "ray") == content(unbroken)
    shutil.copytree(unbroken, tmp_path / "local")
    table = {"kind": "table", "path": str(write_tsv(tmp_path / "names.tsv", NAMES))}
    capsys.readouterr()
    for engine in ("local", "ray"):
        build_small(CONCEPTS, tmp_path / engine, sources=[STARTER, table], engine=engine)
        shown = capsys.readouterr()
        assert "vectors: aliases embedded, 19,821 of them before\n" in shown.err
        assert shown.out == ""
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_a_killed_build_goes_on_with_the_shards_that_are_missing(
    unbroken: Path, address: str, tmp_path: Path
) -> None:
    config = tmp_path / "build.toml"
    lines = ['name = "small"', 'out = "index"', f'encoder = "{ENCODER}"', "[[sources]]"]
    config.write_text("\n".join([*lines, *(f'{key} = "{STARTER[key]}"' for key in STARTER)]))
    command = [sys.executable, "-c", BUILD, "build-index", "--config", str(config)]
    command += ["--engine", "ray"]
    environment = {**os.environ, "RAY_ADDRESS": address}
    vectors = tmp_path / "index" / "build" / "vectors"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not (done := {path: path.stat().st_ino for path in vectors.glob("*.arrow")}):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "index" / "manifest.json").exists()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("\t538 concepts\t19821 aliases\n") and run.stdout.count("\n") == 1
    assert {path: path.stat().st_ino for path in done} == done
    assert len(shard_paths(vectors)) > len(done)
    assert content(tmp_path / "index") == content(unbroken)


def test_what_stops_a_worker_is_told_in_one_error(engine: Engine, tmp_path: Path) -> None:
    def refused(threads: int) -> Any:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"worker .* failed \(OSError: \[Errno 28\] No space left"):
        list(engine.map(refused, numbered(2)))

    def broken(part: pa.Table) -> Iterator[pa.RecordBatch]:
        raise ValueError("a shard is broken")

    with pytest.raises(UsageError, match=r"failed \(ValueError: a shard is broken\)"):
        engine.write_table(tmp_path / "rows.lance", pa.schema([]), broken, numbered(2))


def test_a_cluster_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    names = write_tsv(tmp_path / "names.tsv", NAMES)
    command = [sys.executable, "-c", BUILD, "build-index", "--source", f"table={names}"]
    command += ["--out", str(tmp_path / "index"), "--encoder", "starter", "--engine", "ray"]
    # Ray asks twenty times otherwise, for minutes.
    told = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    environment = {**os.environ, **told}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no Ray cluster at RAY_ADDRESS '127.0.0.1:1'" in run.stderr
