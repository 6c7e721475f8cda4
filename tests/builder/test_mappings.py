"""SSSOM mappings: which rows say that two ids are one concept."""

import gzip
from pathlib import Path

import pytest

from builder.conftest import Gathered, read_rows, refusal
from index_builder.config import SourceConfig
from index_builder.sources import open_source

METADATA = """\
# curie_map:
#   MADE: http://purl.obolibrary.org/obo/MADE_
# license: https://creativecommons.org/publicdomain/zero/1.0/
# mapping_set_version: made/2026-01-02
"""
ROWS = [
    (
        "subject_id",
        "subject_label",
        "predicate_id",
        "predicate_modifier",
        "object_id",
        "confidence",
    ),
    ("MADE:1", "red fever", "skos:exactMatch", "", "UMLS:C0000001", ""),
    ("MADE:1", "red fever", "skos:exactMatch", "", "mesh:D000001", "0.7"),
    ("MADE:2", "cold", "skos:broadMatch", "", "UMLS:C0000002", "1"),
    ("MADE:3", "toe", "skos:exactMatch", "Not", "UMLS:C0000003", "1"),
    ("MADE:4", "nose", "skos:exactMatch", "", "sssom:NoTermFound", "1"),
    (
        *("http://purl.obolibrary.org/obo/MADE_5", "ear", "skos:exactMatch", ""),
        *("http://www.orpha.net/ORDO/Orphanet_5", "1"),
    ),
]
SSSOM = METADATA + "\n".join(map("\t".join, ROWS)) + "\n"


def merged(rows: Gathered) -> list[tuple[str, list[str]]]:
    return [(row["concept_id"], row["exact"]) for row in rows.concepts]


def test_only_what_is_stated_to_be_exact_merges_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "made.sssom.tsv"
    path.write_text(SSSOM)
    rows = read_rows("sssom", path)
    assert merged(rows) == [
        ("MADE:1", ["UMLS:C0000001"]),
        ("MADE:1", ["MESH:D000001"]),
        ("MADE:5", ["ORPHA:5"]),
    ]
    assert [row["line"] for row in rows.concepts] == [6, 7, 11]
    assert (rows.read, rows.rejected, rows.aliases) == (6, [], [])
    broad = read_rows("sssom", path, predicates=["skos:broadMatch"])
    assert merged(broad) == [("MADE:2", ["UMLS:C0000002"])]
    sure = read_rows("sssom", path, min_confidence=0.8)
    assert [one for one, _ in merged(sure)] == ["MADE:1", "MADE:5"]


@pytest.mark.parametrize("name", ["made.sssom.csv", "made.sssom.tsv.gz", "made.sssom.csv.gz"])
def test_mappings_are_read_from_csv_and_compressed_files(tmp_path: Path, name: str) -> None:
    text = SSSOM.replace("nose", '"nose, left"')
    data = (text.replace("\t", ",") if "csv" in name else text).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert len(read_rows("sssom", path).concepts) == 3
    source = open_source(SourceConfig(kind="sssom", path=path))
    assert source.versions() == {"made": "made/2026-01-02"}


def test_a_bad_mapping_is_set_aside_with_its_line(tmp_path: Path) -> None:
    head = "subject_id\tpredicate_id\tobject_id\tconfidence"
    rows = [
        "MADE:1\tskos:exactMatch\tMADE:2\t",
        "MADE:1\tskos:exactMatch\tMADE:2",
        "\tskos:exactMatch\tMADE:2\t",
        "MADE:1\tskos:exactMatch\ta name\t0.1",
        "MADE:1\tskos:exactMatch\tMADE:2\thigh",
        "MADE:1\tskos:exactMatch\tMADE:2\t0.1\t",
        '"MADE:1\tskos:exactMatch\tMADE:2\t0.1',
        f"MADE:1\tskos:exactMatch\tMADE:{'2' * 200_000}\t",
    ]
    path = tmp_path / "a.tsv"
    path.write_bytes("\n".join([head, *rows]).encode() + b"\nMADE:1\tskos:exactMatch\t\xe9:1\t")
    read = read_rows("sssom", path, min_confidence=0.5)
    assert merged(read) == [("MADE:1", ["MADE:2"])]
    width = "another number of fields than the header"
    assert [(one.reason, one.where.rsplit(":", 1)[1]) for one in read.rejected] == [
        (width, "3"),
        ("subject or object is no CURIE", "4"),
        ("subject or object is no CURIE", "5"),
        ("confidence is no number", "6"),
        (width, "7"),
        (width, "8"),
        (width, "9"),
        ("not UTF-8", "10"),
    ]
    assert read.read == 9


def test_what_is_no_mapping_set_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("subject_id\tobject_id\n")
    assert "no column 'predicate_id'" in refusal("sssom", path)
    path.write_text(SSSOM)
    assert "predicates" in refusal("sssom", path, predicates=[])
    assert "min_confidence" in refusal("sssom", path, min_confidence=2)
    assert open_source(SourceConfig(kind="sssom", path=path)).versions() == {"a": "made/2026-01-02"}
    path.write_text("subject_id\tpredicate_id\tobject_id\n")
    assert open_source(SourceConfig(kind="sssom", path=path)).versions() == {}
