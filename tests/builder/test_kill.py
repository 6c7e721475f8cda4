"""A builder killed at any moment: what was served goes on, and the next run ends where an unbroken one does."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
from conftest import NAMES, build_small, write_tsv

from bioelx_mcp.manifest import IndexLayout, read_manifest
from builder.conftest import content
from index_builder.starter import ENCODER

# Builds once it is told how long it lives: so many touches of a file (0: no bound), all else is left to its parent.
BUILD = """
import os, signal, sys
from pathlib import Path
import index_builder.embed, index_builder.pipeline
from index_builder.config import BuildConfig
index_builder.embed.SHARD_ROWS = 3
config = BuildConfig.read(Path(sys.argv[1]))
touches, most = 0, int(sys.argv[2])
def count(event, _):
    global touches
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        touches += 1
        if touches == most:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
sys.stdout.write("go\\n"); sys.stdout.flush()
index_builder.pipeline.build_index(config)
sys.stdout.write(f"{touches}\\n")
"""
# Opens the index over and over, and looks at all of it.
READ = """
import sys, time
from pathlib import Path
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Mention
rounds, over = 0, False
while not over:
    over = Path(sys.argv[2]).exists()
    index = AliasIndex(Path(sys.argv[1]), threads=1)
    versions = [n for n in range(300) if index.search_exact(f"version {n}").size]
    assert len(versions) == 1, versions
    for found in Retriever(index).search_candidates([Mention("red fever"), Mention("gruner Ausschlg")], 3):
        assert len(found) == 3, found
    rounds += 1
    time.sleep(1)
sys.stdout.write(str(rounds))
"""


def write_version(path: Path, number: int) -> None:
    """The small table with one more name, which tells the version."""
    write_tsv(path, [*NAMES, ("UMLS:C0000001", f"version {number}", "en", "synonym", "made")])
    os.utime(path, (number, number))  # what a source's fingerprint counts


def run(config: Path, *, touches: int = 0, seconds: float = 0.0) -> tuple[bool, int, float]:
    """Build in a process of its own that lives so long (0: to its end).

    Whether it was killed, how often it touched a file if not, and how long it built.
    """
    command = [sys.executable, "-c", BUILD, str(config), str(touches)]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        begun = time.monotonic()
        if seconds:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode != 0, int(out or 0), time.monotonic() - begun


@contextmanager
def reader(root: Path, over: Path) -> Iterator[None]:
    """A process that goes on reading; it must not have failed by the end."""
    command = [sys.executable, "-c", READ, str(root), str(over)]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            yield
        finally:
            over.touch()
            out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and int(out) > 0, err


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_builder_killed_at_any_moment_leaves_what_was_served_and_the_next_run_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    monkeypatch.setattr("index_builder.embed.SHARD_ROWS", 3)
    names, root, config = (tmp_path / name for name in ("names.tsv", "index", "build.toml"))
    source = f'[[sources]]\nkind = "table"\npath = "{names}"\n'
    config.write_text(
        f'name = "small"\nout = "index"\nencoder = "{ENCODER}"\n[index]\nkeep = 0\n{source}'
    )
    write_version(names, 0)
    build_small(names, root, index={"keep": 0})
    write_version(names, 1)
    _, touches, seconds = run(config)
    served = content(root)
    rng, killed, number, previous = random.Random(9), 0, 1, 1
    with reader(root, tmp_path / "over"):
        while killed < kills:
            number += 1
            assert number < 2 * kills + 10, f"only {killed} of {number} builds were killed in time"
            write_version(names, number)
            shutil.rmtree(tmp_path / "unbroken", ignore_errors=True)
            shutil.copytree(root, tmp_path / "unbroken")
            build_small(names, tmp_path / "unbroken", index={"keep": 0})
            expected = content(tmp_path / "unbroken")
            if number % 2:
                dead, _, _ = run(config, touches=rng.randint(1, touches))
            else:
                dead, _, _ = run(config, seconds=rng.uniform(0.001, seconds))
            killed += dead
            assert content(root) in (served, expected)
            if number % 5 == 0:  # what was there before is wanted again
                write_version(names, previous)
                expected = served
            else:
                previous = number
            build_small(names, root, index={"keep": 0})
            served = content(root)
            assert served == expected
            assert read_manifest(IndexLayout(root)).aliases == len(NAMES)
