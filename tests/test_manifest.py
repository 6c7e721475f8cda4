"""The manifest: written whole or not at all, read strictly, with a mend in every refusal."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import BioelxError, InvalidArtifactError, MissingArtifactError
from bioelx_mcp.manifest import (
    SCHEMA_VERSION,
    EncoderCard,
    IndexLayout,
    Manifest,
    Probe,
    SourceCard,
    alias_key,
    encoder_checksum,
    read_manifest,
    vector_field,
    write_atomically,
    write_manifest,
)
from bioelx_mcp.text import TEXT_VERSION

MANIFEST = Manifest(
    index_id="made-1",
    name="made",
    created="2026-01-02T03:04:05+00:00",
    builder="bioelx-mcp 0",
    concepts=2,
    aliases=3,
    languages={"de": 1, "th": 2},
    sources=(SourceCard(name="made", aliases=3, licenses=("CC0-1.0",)),),
    encoder=EncoderCard(name="tiny", dimension=2, checksum="00"),
    dense_index="exact",
    probes=(Probe(text="ไข้", vector=(0.6, 0.8)),),
)


def written(root: Path, **changes: Any) -> IndexLayout:
    """An index whose manifest says something else; None takes a field out."""
    raw = {**MANIFEST.model_dump(), **changes}
    layout = IndexLayout(root)
    kept = {key: value for key, value in raw.items() if value is not None}
    write_atomically(layout.manifest, json.dumps(kept))
    return layout


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    layout = IndexLayout(tmp_path / "new" / "index")
    write_manifest(layout, MANIFEST)
    assert read_manifest(layout) == MANIFEST
    assert list(layout.root.iterdir()) == [layout.manifest]


def test_every_path_of_an_index_lies_in_its_generation(tmp_path: Path) -> None:
    layout = IndexLayout(tmp_path)
    generation = tmp_path / "generations" / "made-1"
    assert layout.generation("made-1") == generation
    assert layout.tables("made-1") == generation / "tables"
    assert layout.encoder("made-1") == generation / "encoder"


def test_a_missing_index_is_answered_with_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError) as caught:
        read_manifest(IndexLayout(tmp_path / "none"))
    assert f"bioelx-mcp build-index --out {tmp_path / 'none'}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"name": ', "\ufeff{}", "\x00"])
def test_a_file_that_is_no_json_is_invalid(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArtifactError, match=r"manifest\.json cannot be read .*build-index"):
        read_manifest(IndexLayout(tmp_path))


def test_an_index_path_that_is_a_file_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("")
    with pytest.raises(InvalidArtifactError, match="cannot be read"):
        read_manifest(IndexLayout(tmp_path / "index"))


@pytest.mark.parametrize("raw", ["[]", "null", '"made"', "{}"])
def test_json_that_is_no_manifest_is_invalid(tmp_path: Path, raw: str) -> None:
    (tmp_path / "manifest.json").write_text(raw)
    with pytest.raises(InvalidArtifactError, match="schema_version is None"):
        read_manifest(IndexLayout(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "schema_version is .*upgrade bioelx-mcp"),
        ({"schema_version": SCHEMA_VERSION - 1}, "schema_version is .*rebuild the index"),
        ({"text_version": TEXT_VERSION - 1}, "text_version is .*rebuild the index"),
        ({"text_version": TEXT_VERSION + 1}, "text_version is .*upgrade bioelx-mcp"),
        ({"text_version": "one"}, "text_version is one.*rebuild the index"),
        ({"name": None}, "name: Field required"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"concepts": "many"}, "concepts: .*integer"),
        ({"encoder": {"name": "tiny", "dimension": 2}}, "encoder.checksum: Field required"),
        ({"probes": [{"text": "x", "vector": ["up"]}]}, "probes.0.vector.0: .*number"),
    ],
)
def test_a_manifest_of_another_version_or_shape_is_invalid(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArtifactError, match=message) as caught:
        read_manifest(written(tmp_path, **changes))
    assert isinstance(caught.value, BioelxError)
    assert caught.value.exit_code == 5


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, "old")
    with path.open() as reader:
        with pytest.raises(UnicodeEncodeError):
            write_atomically(path, "new \ud800")
        assert path.read_text() == "old"
        write_atomically(path, "new")
        assert reader.read() == "old"  # who had it open reads on
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


FILES = {"encoder.json": b"{}", "tokenizer.json": b"[]", "model.onnx": b"weights"}


def encoder_files(directory: Path, files: dict[str, bytes]) -> str:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return encoder_checksum(directory)


@pytest.mark.parametrize("name", FILES)
def test_the_checksum_of_an_encoder_changes_with_any_byte(tmp_path: Path, name: str) -> None:
    before = encoder_files(tmp_path / "a", FILES)
    flipped = bytes([FILES[name][0] ^ 1]) + FILES[name][1:]
    changed = encoder_files(tmp_path / "b", {**FILES, name: flipped})
    longer = encoder_files(tmp_path / "c", {**FILES, name: FILES[name] + b"\0"})
    assert len({before, changed, longer}) == 3


def test_the_checksum_of_an_encoder_counts_names_and_ignores_its_readme(tmp_path: Path) -> None:
    before = encoder_files(tmp_path / "a", FILES)
    assert encoder_files(tmp_path / "b", {**FILES, "README.md": b"new"}) == before
    swapped = {**FILES, "encoder.json": b"[]", "tokenizer.json": b"{}"}
    assert encoder_files(tmp_path / "c", swapped) != before


def test_the_key_of_a_name_is_the_same_on_every_machine() -> None:
    assert alias_key("red fever") == 5573342567291647035
    assert alias_key("") == -5426141060434712860


@given(st.text(), st.text())
def test_keys_fit_their_column_and_tell_names_apart(left: str, right: str) -> None:
    assert pa.scalar(alias_key(left), pa.int64()).as_py() == alias_key(left)
    assert (alias_key(left) == alias_key(right)) == (left == right)


def test_vectors_are_stored_as_float16_lists_of_fixed_length() -> None:
    assert vector_field(3).type == pa.list_(pa.float16(), 3)
