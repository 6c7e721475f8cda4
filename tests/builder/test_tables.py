"""The two tables of a build: merged over sources, deduplicated, sorted, and the same for equal inputs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import ALIASES_SCHEMA, CONCEPTS_SCHEMA
from bioelx_mcp.schema import ALIAS_KINDS, Alias, Concept
from bioelx_mcp.text import normalize_alias
from builder.conftest import tables_of
from index_builder.config import MergeConfig
from index_builder.sources import Block, Rows, Source
from index_builder.staging import stage_source
from index_builder.tables import build_tables

A, B = "MADE:1", "MADE:2"
Record = Alias | Concept | dict[str, Any]


class Given(Source):
    """A source that says what it is told to say; a dictionary is a concept with what Concept lacks."""

    records: tuple[Any, ...]

    @property
    def size(self) -> int:
        return len(self.records)

    def parse(self, block: Block, rows: Rows) -> None:
        rows.read += len(self.records)
        for record in self.records:
            told = record if isinstance(record, dict) else asdict(record)
            (rows.alias if isinstance(record, Alias) else rows.concept)(**told)


def made(*records: Record, name: str = "made", license: str = "") -> Given:
    return Given(path=Path(f"{name}.tsv"), records=records, license=license)


class Tables:
    """The tables of some sources, as rows."""

    def __init__(self, directory: Path, *sources: Source, **merge: Any) -> None:
        self.report = tables_of(sources, directory, **merge)
        self.concepts = pq.read_table(directory / "concepts.parquet")
        self.aliases = pq.read_table(directory / "aliases.parquet")

    def names(self, *columns: str) -> list[tuple[Any, ...]]:
        rows = self.aliases.select(["concept", *columns]).to_pylist()
        return [tuple(row.values()) for row in rows]

    def concept(self, row: int) -> Concept:
        values: dict[str, Any] = self.concepts.slice(row, 1).to_pylist()[0]
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return Concept(**(values | lists))


def test_names_equal_but_for_spelling_merge_within_concept_and_language(tmp_path: Path) -> None:
    first = made(
        Alias(A, "Red-Fever", "en", "synonym", "x", "L1"),
        Alias(A, "red fever", "de", "translation", "x", "L1"),
        Alias(B, "red fever", "en", "synonym", "x", "L1"),
    )
    second = made(
        Alias(A, "  red \t fever ", "en", "preferred", "y", "L2"),
        Alias(A, "RED FEVER", "en", "synonym", "x", "L1"),
    )
    tables = Tables(tmp_path, first, second)
    assert tables.names("text", "normalized", "language", "kind", "source", "license") == [
        (0, "Red-Fever", "red fever", "en", "preferred", "x|y", "L1|L2"),
        (0, "red fever", "red fever", "de", "translation", "x", "L1"),
        (1, "red fever", "red fever", "en", "synonym", "x", "L1"),
    ]
    turned = Tables(tmp_path, second, first)
    assert turned.names("text")[0] == (0, "red fever")  # the first source's spelling stays


def test_rows_are_sorted_by_concept_kind_language_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index_builder.tables._ROW_GROUP", 3)  # rows are written in threes
    names = [("b", "en", "synonym"), ("a", "en", "synonym"), ("z", "de", "synonym")]
    names += [("y", "th", "preferred"), ("c", "es", "translation")]
    rows = [Alias(c, text, lang, kind) for c in (B, A) for text, lang, kind in names]  # type: ignore[arg-type]
    tables = Tables(tmp_path, made(*rows))
    expected = [(0, "y"), (0, "z"), (0, "a"), (0, "b"), (0, "c")]
    assert tables.names("text") == [*expected, *((1, text) for _, text in expected)]
    assert tables.concepts["concept_id"].to_pylist() == [A, B]
    assert tables.aliases.schema.equals(ALIASES_SCHEMA)
    assert tables.concepts.schema.equals(CONCEPTS_SCHEMA)


def test_the_first_source_describes_a_concept_and_later_ones_fill_the_gaps(tmp_path: Path) -> None:
    first = Concept("made_1", "red  fever", (), "Hot.", ("X:1",), ("c0000009",), (), 3)
    second = Concept(A, "RF", ("Sign", "Find"), "Cold.", ("X:2", "X:1"), ("MADE:9",), (B,), 7)
    third = Concept(B, "fever", ("Sign",), parents=("MADE:77",))  # one that is in no source
    tables = Tables(tmp_path, made(first), made(second, third, Alias(A, "rf", "en")))
    assert tables.concept(0) == Concept(
        A,
        "red fever",
        ("Find", "Sign"),
        "Hot.",
        ("X:1", "X:2"),
        ("MADE:9", "UMLS:C0000009"),
        (B,),
        7,
    )
    assert tables.concept(1) == Concept(B, "fever", ("Sign",))


def test_a_preferred_name_is_an_alias_where_no_alias_says_it(tmp_path: Path) -> None:
    concepts = [Concept(A, "Red Fever"), Concept(B, "Blue Cough")]
    aliases = [Alias(A, "red fever", "en", "synonym", "x"), Alias(B, "cough", "en", source="x")]
    tables = Tables(tmp_path, made(*concepts, *aliases, name="k"))
    assert tables.names("text", "language", "kind", "source") == [
        (0, "red fever", "en", "synonym", "x"),
        (1, "Blue Cough", "", "preferred", "k"),
        (1, "cough", "en", "synonym", "x"),
    ]
    assert [tables.concept(row).preferred_name for row in (0, 1)] == ["Red Fever", "Blue Cough"]


def test_an_undescribed_concept_is_named_by_its_best_alias_english_first(tmp_path: Path) -> None:
    german = [Alias(A, "Husten", "de", "preferred"), Alias(A, "cough", "en", "synonym")]
    tables = Tables(tmp_path, made(*german, Alias(B, "tos", "es"), Alias(B, "toux", "fr")))
    assert tables.concepts["preferred_name"].to_pylist() == ["cough", "tos"]


def test_homonyms_of_two_concepts_are_kept(tmp_path: Path) -> None:
    tables = Tables(tmp_path, made(Alias(A, "cold", "en"), Alias(B, "Cold", "en")))
    assert tables.names("text", "normalized", "homonyms") == [
        (0, "cold", "cold", 1),
        (1, "Cold", "cold", 1),
    ]
    assert tables.report["homonyms"] == {"names": 1, "examples": {"cold": 2}}


def test_names_that_cannot_serve_are_set_aside_with_examples(tmp_path: Path) -> None:
    long = "x" * 513
    bad = [Alias(A, "--", "en"), Alias(A, "", "en"), Alias(A, long, "en"), Alias("7", "x", "en")]
    bad.append(Alias(A, "fever", "English"))
    tables = Tables(
        tmp_path, made(*bad, Concept(A, long), Concept(A, "?!"), Alias(A, "x" * 512, "en"))
    )
    assert tables.names("text") == [(0, "x" * 512)]
    rejected = tables.report["rejected"]
    assert {reason: entry["rows"] for reason, entry in rejected.items()} == {
        "concept_id is no CURIE": 1,
        "name over 512 characters": 2,
        "name without a letter or digit": 3,
        "language is no BCP-47 tag": 1,
    }
    assert rejected["concept_id is no CURIE"]["examples"] == ['made.tsv: ["7", "7"]']
    told = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert len(told) == 7
    assert {"reason": "concept_id is no CURIE", "where": "made.tsv", "row": '["7", "7"]'} in told
    first = rejected["name without a letter or digit"]["examples"][0]
    assert first == f'made.tsv: ["{A}", "--"]'


def test_the_report_counts_by_language_source_and_licence(tmp_path: Path) -> None:
    rows = [Alias(A, "a", "en", source="x", license="L"), Alias(A, "b", "de", source="x")]
    tables = Tables(tmp_path, made(*rows, Alias(A, "A", "en", source="y", license="M")))
    expected = {
        "concepts": 1,
        "aliases": 2,
        "languages": {"de": 1, "en": 1},
        "sources": {"x": 2, "y": 1},
        "licenses": {"": 1, "L": 1, "M": 1},
        "source_licenses": {"x": ["L"], "y": ["M"]},
        "versions": {},
        "homonyms": {"names": 0, "examples": {}},
        "merged_ids": 0,
        "conflicts": {"mappings": 0, "examples": []},
        "rejected": {},
    }
    assert tables.report == expected
    assert json.loads((tmp_path / "report.json").read_text()) == expected


def test_sources_of_which_no_name_is_left_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no alias is left of made\.tsv; .*no CURIE': 1"):
        Tables(tmp_path, made(Alias("7", "x", "en")))
    with pytest.raises(UsageError, match=r"set aside: nothing"):
        Tables(tmp_path, made())
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_names_meet_under_one_id_where_sources_map_theirs(tmp_path: Path) -> None:
    mappings = made(
        {"concept_id": "mondo_1", "exact": ["UMLS:C0000001", "ORDO:5"]},
        {"concept_id": "MONDO:2", "exact": ["no id", "MONDO:2"]},
    )
    names = made(
        Concept("Orphanet_5", "red fever", parents=("MONDO:2",)),
        Alias("C0000001", "RF", "en"),
        Concept("MONDO:1", "fever, red", alt_ids=("MONDO:9",)),
        Alias("MONDO:9", "Rotfieber", "de"),  # a retired id that nobody describes
        Alias("MONDO:2", "fever", "en"),
    )
    tables = Tables(tmp_path, mappings, names)
    assert tables.concepts["concept_id"].to_pylist() == ["MONDO:2", "UMLS:C0000001"]
    assert {text for row, text in tables.names("text") if row == 1} == {
        *("red fever", "RF", "fever, red", "Rotfieber")
    }
    merged = tables.concept(1)
    assert (merged.alt_ids, merged.parents) == (("MONDO:1", "MONDO:9", "ORPHA:5"), ("MONDO:2",))
    assert tables.report["merged_ids"] == 3
    other = Tables(tmp_path, mappings, names, id_order=("ORPHA",))
    assert other.concepts["concept_id"].to_pylist() == ["MONDO:2", "ORPHA:5"]


def test_a_retired_id_that_is_described_stays_a_concept(tmp_path: Path) -> None:
    tables = Tables(tmp_path, made(Concept(A, "one", alt_ids=(B,)), Concept(B, "two")))
    assert tables.concepts["concept_id"].to_pylist() == [A, B]


def test_two_cuis_are_not_joined_through_a_third_id_but_on_request_and_it_is_said(
    tmp_path: Path,
) -> None:
    mappings = [("MADE:1", "UMLS:C0000001"), ("MADE:1", "MESH:D1"), ("MESH:D1", "UMLS:C0000002")]
    rows = [{"concept_id": one, "exact": [other]} for one, other in mappings]
    names = [Alias("UMLS:C0000001", "one", "en"), Alias("UMLS:C0000002", "two", "en")]
    tables = Tables(tmp_path, made(*rows, *names, Alias("MESH:D1", "three", "en")))
    assert tables.concepts["concept_id"].to_pylist() == ["UMLS:C0000001", "UMLS:C0000002"]
    assert tables.names("text") == [(0, "one"), (1, "three"), (1, "two")]
    conflict = "MADE:1 = MESH:D1 would join UMLS:C0000001 and UMLS:C0000002"
    assert tables.report["conflicts"] == {"mappings": 1, "examples": [conflict]}
    joined = Tables(tmp_path, made(*rows, *names), join_authority=True)
    assert joined.concepts["concept_id"].to_pylist() == ["UMLS:C0000001"]
    assert joined.report["conflicts"]["mappings"] == 1


def test_a_source_before_another_names_the_concept_and_ranks_decide_within_it(
    tmp_path: Path,
) -> None:
    class Ranked(Given):
        def parse(self, block: Block, rows: Rows) -> None:
            rows.alias(A, "worse", "en", "preferred", rank=5)
            rows.alias(A, "better", "en-GB", "preferred", rank=9)
            rows.alias(A, "Bestes", "de", "preferred", rank=99)
            rows.alias(A, "less kin", "en", "related", rank=99)

    first = Ranked(path=Path("ranked.tsv"), records=())
    assert Tables(tmp_path, first, made(Concept(A, "said"))).concept(0).preferred_name == "better"
    assert Tables(tmp_path, made(Concept(A, "said")), first).concept(0).preferred_name == "said"


IDS = st.sampled_from([A, B, "MADE:3", "bad id"])
NAMES = st.text("aAbé-ß 熱", max_size=4)
ALIASES = st.builds(
    Alias,
    IDS,
    NAMES,
    st.sampled_from(["en", "de", ""]),
    st.sampled_from(ALIAS_KINDS),
    st.sampled_from("xyz"),
)
RECORDS: st.SearchStrategy[Alias | Concept] = st.one_of(ALIASES, st.builds(Concept, IDS, NAMES))


@settings(max_examples=25, deadline=None)
@given(st.lists(RECORDS, max_size=30), st.integers(0, 30))
def test_whatever_comes_the_tables_hold_each_name_once_sorted_and_byte_for_byte_again(
    tmp_path_factory: pytest.TempPathFactory, records: list[Alias | Concept], cut: int
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-tables"
    sources = [made(*records[:cut], Alias(A, "sure", "en")), made(*records[cut:])]
    tables = Tables(directory, *sources)
    rows = tables.names("normalized", "language", "text", "kind")
    keys = [row[:3] for row in rows]
    assert len(set(keys)) == len(keys)
    assert rows == sorted(rows, key=lambda r: (r[0], ALIAS_KINDS.index(r[4]), r[2], r[3]))
    assert all(normalized == normalize_alias(text) for _, normalized, _, text, _ in rows)
    ids = tables.concepts["concept_id"].to_pylist()
    assert ids == sorted(set(ids))
    assert {row[0] for row in rows} == set(range(len(ids)))
    given_names = {
        (r.concept_id, normalize_alias(r.text if isinstance(r, Alias) else r.preferred_name))
        for r in (*records, Alias(A, "sure", "en"))
    }
    wanted = {(c, n) for c, n in given_names if n and c != "bad id"}
    assert {(ids[row[0]], row[1]) for row in rows} == wanted
    files = [directory / name for name in ("aliases.parquet", "concepts.parquet", "report.json")]
    before = [path.read_bytes() for path in files]
    Tables(directory, *sources)
    assert [path.read_bytes() for path in files] == before


def test_grouping_in_parts_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        Alias(f"MADE:{i % 200}", f"name {i % 150}", ("en", "de", "")[i % 3]) for i in range(1000)
    ]
    whole = Tables(tmp_path / "whole", made(*names))
    monkeypatch.setattr("index_builder.tables._ROWS_PER_MB", 1)  # four parts, of 256 names at most
    parts = Tables(tmp_path / "parts", made(*names), memory_mb=256)
    assert parts.aliases.equals(whole.aliases)
    assert parts.concepts.equals(whole.concepts)
    assert parts.report == whole.report


def test_too_little_memory_is_told_with_the_setting(
    tmp_path: Path,
) -> None:
    staged = stage_source(
        made(*(Alias(f"MADE:{i}", f"name {i}", "en") for i in range(20_000))),
        tmp_path / "source",
        workers=1,
        max_rejected=0,
        report=lambda *_: None,
    )
    with pytest.raises(UsageError, match=r"merge\.memory_mb, 1: set it higher"):
        build_tables([staged], tmp_path, MergeConfig.model_construct(memory_mb=1))
