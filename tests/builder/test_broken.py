"""Full disks, missing rights and broken leftovers: one clear error, the index in service as it was, and a way on."""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from conftest import NAMES, build_small, may_override, write_tsv

import index_builder
from bioelx_mcp.errors import InvalidArtifactError, UsageError
from bioelx_mcp.generations import restore_generation
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import SCHEMA_VERSION, IndexLayout, Manifest
from builder.conftest import content

Build = Callable[..., Manifest]
NOT_ROOT = pytest.mark.skipif(may_override(), reason="root may read and write anywhere")
SETPRIV = shutil.which("setpriv")


MORE = [("MADE:4", f"name {number}", "en", "synonym", "made") for number in range(20)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An index of the small table with all that its build left, and what one of the grown table holds."""
    root = tmp_path_factory.mktemp("versions")
    build_small(write_tsv(root / "names.tsv", NAMES), root / "index")
    (root / "grown").mkdir()
    build_small(write_tsv(root / "grown" / "names.tsv", [*NAMES, *MORE]), root / "whole")
    return root / "index", content(root / "whole")


@pytest.fixture
def grown(
    versions: tuple[Path, dict[str, Any]], names_tsv: Path, tmp_path: Path
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A table that has grown since its index was built, what that holds, and what it shall hold."""
    shutil.copytree(versions[0], tmp_path / "index")
    write_tsv(names_tsv, [*NAMES, *MORE])
    return names_tsv, content(tmp_path / "index"), versions[1]


@contextmanager
def small_files() -> Iterator[Callable[[], None]]:
    """Call it, and no file may grow beyond some bytes: the system refuses, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "step",
    [
        "pipeline.stage_source",
        "pipeline.build_tables",
        "pipeline.embed_aliases",
        "pipeline.materialize_index",
        "materialize.write_facets",
        "materialize.lancedb.connect",
        "materialize.write_lexicon",
        "materialize.write_rows",
        "materialize.serve_generation",
    ],
)
def test_a_full_disk_stops_the_build_with_one_error_and_the_next_run_resumes(
    grown: tuple[Path, dict[str, Any], dict[str, Any]],
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    path, before, after = grown
    right = attrgetter(step)(index_builder)
    with monkeypatch.context() as patch, small_files() as refuse:

        def on_a_full_disk(*arguments: Any, **options: Any) -> Any:
            refuse()
            return right(*arguments, **options)

        patch.setattr(f"index_builder.{step}", on_a_full_disk)
        with pytest.raises(UsageError, match=r"stopped .*make room.*resumes where it stopped"):
            build(path)
    assert content(tmp_path / "index") == before
    build(path)
    assert content(tmp_path / "index") == after


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path: Path) -> None:
    """Other bytes, as many as before."""
    path.write_bytes(b"\xff" * path.stat().st_size)


# What an earlier run left, and whether the next one reads it.
LEFT = (
    ("sources/*/00000.aliases.parquet", False),
    ("sources/*/00000.json", False),
    ("tables/aliases.parquet", True),
    ("tables/concepts.parquet", True),
    ("tables/report.json", True),
    ("vectors/00000.arrow", True),
)


def last_step(tmp_path: Path, path: Path, build: Build, patch: pytest.MonkeyPatch) -> Path:
    """Build to the last step, which fails; the directory of the intermediate files."""

    def fails(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with patch.context() as broken:
        broken.setattr("index_builder.pipeline.materialize_index", fails)
        with pytest.raises(KeyboardInterrupt):
            build(path)
    return tmp_path / "index" / "build"


@pytest.mark.parametrize(
    ("pattern", "how"), [*((pattern, cut) for pattern, _ in LEFT), ("vectors/*.arrow", Path.unlink)]
)
def test_what_an_earlier_run_left_is_made_again_where_it_is_cut_or_gone(
    grown: tuple[Path, dict[str, Any], dict[str, Any]],
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    how: Callable[[Path], None],
) -> None:
    path, before, after = grown
    left = last_step(tmp_path, path, build, monkeypatch)
    for found in list(left.glob(pattern)):
        how(found)
    assert content(tmp_path / "index") == before
    build(path)
    assert content(tmp_path / "index") == after


@pytest.mark.parametrize("pattern", [pattern for pattern, read in LEFT if read])
def test_what_an_earlier_run_left_and_is_spoilt_is_named_with_the_mend(
    grown: tuple[Path, dict[str, Any], dict[str, Any]],
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
) -> None:
    path, before, after = grown
    left = last_step(tmp_path, path, build, monkeypatch)
    for found in list(left.glob(pattern)):
        spoil(found)
    with pytest.raises(InvalidArtifactError, match=f"(is broken|cannot be read) .*remove {left}"):
        build(path)
    assert content(tmp_path / "index") == before
    shutil.rmtree(left)
    build(path)
    assert content(tmp_path / "index") == after


def test_a_stage_that_was_half_removed_is_none(
    build: Build, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it made room for new tables, a builder left some of the old ones; then those are wanted again."""
    stamp = names_tsv.stat().st_mtime_ns
    build(names_tsv)
    before = content(tmp_path / "index")
    write_tsv(names_tsv, [*NAMES, *MORE])
    removed = shutil.rmtree

    def half(directory: Path, **options: Any) -> None:
        if directory.name != "tables":
            removed(directory, **options)
            return
        (directory / "aliases.parquet").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("index_builder.pipeline.shutil.rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            build(names_tsv)
    shutil.rmtree(tmp_path / "index" / "generations")
    write_tsv(names_tsv, NAMES)
    os.utime(names_tsv, ns=(stamp, stamp))
    build(names_tsv)
    assert content(tmp_path / "index") == before


@NOT_ROOT
@pytest.mark.parametrize("where", ["generations", "build/vectors", "build/sources"])
def test_a_missing_right_is_named_and_the_index_goes_on(
    grown: tuple[Path, dict[str, Any], dict[str, Any]], build: Build, tmp_path: Path, where: str
) -> None:
    path, before, after = grown
    directory = tmp_path / "index" / where
    directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UsageError, match=r"stopped .*Permission denied.*give it the right"):
            build(path)
    finally:
        directory.chmod(stat.S_IRWXU)
    assert content(tmp_path / "index") == before
    build(path)
    assert content(tmp_path / "index") == after


@NOT_ROOT
def test_a_directory_that_may_not_be_read_is_named(
    grown: tuple[Path, dict[str, Any], dict[str, Any]], build: Build, tmp_path: Path
) -> None:
    path, before, _ = grown
    tables = IndexLayout(tmp_path / "index").generations
    tables.chmod(0)
    path.chmod(0)
    try:
        with pytest.raises(InvalidArtifactError, match=r"lacks the generation .*build-index"):
            AliasIndex(tmp_path / "index")
        with pytest.raises(UsageError, match=r"names\.tsv.*Permission denied"):
            build(path)
    finally:
        tables.chmod(stat.S_IRWXU)
        path.chmod(stat.S_IRWXU)
    assert content(tmp_path / "index") == before


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not may_override() or SETPRIV is None,
    reason="for root alone, who skips these tests, and with setpriv",
)
def test_root_without_its_powers_meets_missing_rights_as_others_do(tmp_path: Path) -> None:
    assert SETPRIV is not None
    here = Path(__file__)
    command = [SETPRIV, "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-m", "pytest"]  # fmt: skip
    command += ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"), "-rs", "-v"]
    command += [str(here), str(here.with_name("test_generations.py"))]
    command += ["-k", "missing_right_is or may_not_be_read or cannot_be_written_to_is_read"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here.parents[2])
    assert done.returncode == 0, done.stdout
    assert " 5 passed" in done.stdout and "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("where", ["in service", "beside"])
def test_an_index_of_a_newer_program_is_refused_and_not_touched(
    grown: tuple[Path, dict[str, Any], dict[str, Any]], build: Build, tmp_path: Path, where: str
) -> None:
    path, *_ = grown
    layout = IndexLayout(tmp_path / "index")
    newer = json.loads(layout.manifest.read_text())
    newer |= {"schema_version": SCHEMA_VERSION + 1, "shape": "unknown", "index_id": "newer-1"}
    shutil.copytree(next(layout.generations.iterdir()), layout.generation("newer-1"))
    layout.generation_manifest("newer-1").write_text(json.dumps(newer))
    if where == "in service":
        layout.manifest.write_text(json.dumps(newer))

    def left() -> dict[str, Any]:
        return {
            str(one): (one.stat().st_mtime_ns, one.read_bytes())
            for one in layout.root.rglob("*")
            if one.is_file()
        }

    before = left()
    with pytest.raises(InvalidArtifactError, match=r"upgrade bioelx-mcp, or build into another"):
        build(path)
    if where == "in service":
        with pytest.raises(InvalidArtifactError, match=r"schema_version is .*upgrade bioelx-mcp"):
            AliasIndex(layout.root)
        with pytest.raises(InvalidArtifactError, match="upgrade bioelx-mcp"):
            restore_generation(layout)
    assert left() == before
