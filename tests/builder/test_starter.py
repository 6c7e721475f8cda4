"""The knowledge base that ships, and the index made of it without torch."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import IndexLayout, read_manifest
from bioelx_mcp.text import MAX_NAME_LENGTH, normalize_alias, normalize_concept_id
from index_builder import starter
from index_builder.starter import CONCEPTS, ENCODER, ensure_starter_index

LANGUAGES = "de en es fi fr it ja ko nl pt ru th tr zh zh-Hant".split()
LINES = [
    (f"{path.name}:{number}", json.loads(line))
    for path in sorted(CONCEPTS.glob("*.jsonl"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
]


def test_the_starter_has_hundreds_of_concepts_with_unique_well_formed_ids() -> None:
    ids = [normalize_concept_id(concept["id"]) for _, concept in LINES]
    assert len(ids) >= 400
    assert [place for (place, _), found in zip(LINES, ids, strict=True) if found is None] == []
    assert [text for text, count in Counter(ids).items() if count > 1] == []


def test_every_starter_concept_has_a_type_a_definition_and_names_in_every_language() -> None:
    assert {key for _, concept in LINES for key in concept} == {"id", "type", "definition", "names"}
    assert [place for place, concept in LINES if sorted(concept["names"]) != LANGUAGES] == []
    assert [
        place for place, concept in LINES if not concept["type"] or not concept["definition"]
    ] == []


def test_no_starter_name_is_empty_too_long_or_said_twice_in_a_language() -> None:
    def wrong(names: list[str]) -> bool:
        kept = [n for n in names if normalize_alias(n) and n == " ".join(n.split())]
        return (
            not names or len(set(kept)) != len(names) or len(max(names, key=len)) > MAX_NAME_LENGTH
        )

    found = [
        (place, lang) for place, c in LINES for lang, names in c["names"].items() if wrong(names)
    ]
    assert found == []


def test_the_starter_index_holds_every_concept_and_language(starter_index: Path) -> None:
    manifest = read_manifest(IndexLayout(starter_index))
    assert manifest.concepts == len(LINES)
    assert sorted(manifest.languages) == LANGUAGES
    assert [(card.name, card.licenses) for card in manifest.sources] == [
        ("starter", ("Apache-2.0",))
    ]
    assert manifest.dense_index == "exact"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A starter of three concepts, which takes no time; its cache directory."""
    lines = [json.dumps(concept, ensure_ascii=False) for _, concept in LINES[:3]]
    (tmp_path / "concepts").mkdir()
    (tmp_path / "concepts" / "few.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(starter, "CONCEPTS", tmp_path / "concepts")
    return tmp_path / "cache"


def test_the_starter_index_is_made_once_and_again_where_it_is_broken(small: Path) -> None:
    directory = ensure_starter_index(small)
    manifest = directory / "manifest.json"
    made = manifest.stat().st_mtime_ns
    assert ensure_starter_index(small) == directory
    assert manifest.stat().st_mtime_ns == made
    whole = manifest.read_bytes()
    for broken in (b"{", whole.replace(b'"schema_version": 1', b'"schema_version": 0')):
        manifest.write_bytes(broken)
        assert ensure_starter_index(small) == directory
        assert AliasIndex(directory).manifest.concepts == 3
    shutil.rmtree(IndexLayout(directory).tables(read_manifest(IndexLayout(directory)).index_id))
    assert ensure_starter_index(small) == directory
    assert AliasIndex(directory).manifest.concepts == 3


def test_another_starter_gets_a_directory_of_its_own(small: Path) -> None:
    first = ensure_starter_index(small)
    with (starter.CONCEPTS / "few.jsonl").open("a", encoding="utf-8") as out:
        out.write("\n" + json.dumps(LINES[3][1]))
    second = ensure_starter_index(small)
    assert first != second
    assert [read_manifest(IndexLayout(p)).concepts for p in (first, second)] == [3, 4]


RUN = """
import json, sys, time
from pathlib import Path
for name in ("torch", "transformers", "obonet", "onnx"):
    sys.modules[name] = None
from index_builder import starter
starter.CONCEPTS = Path(sys.argv[1])
starter.ensure_starter_index(Path(sys.argv[2]))
loaded = [name for name, module in sys.modules.items() if module is not None]
sys.stdout.write(json.dumps({"seconds": time.process_time(), "loaded": loaded}))
"""


def test_the_starter_index_needs_no_extra_and_little_time(small: Path) -> None:
    command = [sys.executable, "-c", RUN, str(starter.CONCEPTS), str(small)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["seconds"] < 15
    assert not {"torch", "transformers", "obonet", "onnx"} & set(said["loaded"])
    assert len(list(small.glob("starter-*/manifest.json"))) == 1
    assert ENCODER.is_dir()
