"""Engines in the small: which there are, and that parts, fragments and known vectors change nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from callers import Cli
from conftest import NAMES, write_tsv

from bioelx_mcp.errors import InvalidArtifactError, MissingExtraError
from bioelx_mcp.manifest import IndexLayout, Manifest
from builder.conftest import content
from index_builder.embed import read_slice
from index_builder.engines import open_engine
from index_builder.engines.local import LocalEngine

Build = Callable[..., Manifest]


def test_a_missing_ray_is_told_before_any_work(
    cli: Cli, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "index_builder.engines.ray", raising=False)
    with pytest.raises(MissingExtraError, match="needs ray"):
        open_engine("ray")
    out = tmp_path / "index"
    options = ("--source", f"table={names_tsv}", "--out", str(out), "--encoder", "starter")
    run = cli("build-index", *options, "--engine", "ray")
    assert run.code == 3
    assert "engine 'ray' needs ray: pip install 'bioelx-mcp[ray]', or build with" in run.err
    assert not out.exists()
    assert cli("build-index", *options, "--engine", "spark").code == 2


def test_an_index_is_the_same_however_it_is_cut_into_parts(
    build: Build, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(names_tsv, out=tmp_path / "whole")
    for rows in (1, 3, 5):
        monkeypatch.setattr("index_builder.materialize.FRAGMENT_ROWS", rows)
        build(names_tsv, out=tmp_path / str(rows))
        assert content(tmp_path / str(rows)) == content(tmp_path / "whole")


def test_rows_that_come_in_another_order_are_not_served(
    build: Build, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LocalEngine.write_table
    monkeypatch.setattr("index_builder.materialize.FRAGMENT_ROWS", 3)

    def backwards(self: LocalEngine, path: Path, schema: Any, read: Any, parts: Any) -> None:
        right(self, path, schema, read, parts[::-1])

    monkeypatch.setattr(LocalEngine, "write_table", backwards)
    with pytest.raises(InvalidArtifactError, match=r"does not hold the aliases in their order"):
        build(names_tsv)
    assert not IndexLayout(tmp_path / "index").manifest.exists()


def test_known_vectors_that_cannot_be_read_are_made_anew(
    build: Build, names_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(names_tsv)
    write_tsv(names_tsv, [*NAMES, ("MADE:3", "further name", "en", "synonym", "made")])

    def broken(self: object, ids: object) -> None:
        raise RuntimeError("a page is gone")

    with monkeypatch.context() as patch:
        patch.setattr("index_builder.embed._Embedder._take", broken)
        build(names_tsv)
    build(names_tsv, out=tmp_path / "whole")
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_a_slice_of_a_table_is_read_across_its_row_groups(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.parquet", list(range(10))
    pq.write_table(pa.table({"row": rows, "more": rows}), path, row_group_size=4)
    for start in rows:
        for count in range(1, 11 - start):
            (column,) = read_slice(path, start, count, ["row"]).columns
            assert column.to_pylist() == rows[start : start + count]
