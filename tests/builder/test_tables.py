"""The two tables of a build: merged over sources, deduplicated, sorted, and the same for equal inputs."""

import json
from collections.abc import Iterator
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
from index_builder.sources import Record, Rejects, Source
from index_builder.tables import build_tables

A, B = "MADE:1", "MADE:2"


class Given(Source):
    """A source that says what it is told to say."""

    records: tuple[Any, ...]

    def read(self, rejects: Rejects) -> Iterator[Record]:
        yield from self.records


def made(*records: Record, name: str = "made", license: str = "") -> Given:
    return Given(path=Path(f"{name}.tsv"), records=records, license=license)


class Tables:
    """The tables of some sources, as rows."""

    def __init__(self, directory: Path, *sources: Source) -> None:
        self.report = build_tables(sources, directory)
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
    monkeypatch.setattr("index_builder.tables._CHUNK", 3)  # rows come packed in threes
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
    first = Concept("made_1", "red  fever", (), "Hot.", ("X:1",), ("c0000009",))
    second = Concept("MADE:1", "RF", ("Sign",), "Cold.", ("X:2", "X:1"), ("MADE:9",))
    tables = Tables(tmp_path, made(first), made(second, Alias(A, "rf", "en")))
    assert tables.concept(0) == Concept(
        A, "red fever", ("Sign",), "Hot.", ("X:1", "X:2"), ("UMLS:C0000009", "MADE:9")
    )


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
    assert tables.names("text", "normalized") == [(0, "cold", "cold"), (1, "Cold", "cold")]


def test_names_that_cannot_serve_are_set_aside_with_examples(tmp_path: Path) -> None:
    long = "x" * 513
    bad = [Alias(A, "--", "en"), Alias(A, "", "en"), Alias(A, long, "en"), Alias("7", "x", "en")]
    tables = Tables(
        tmp_path, made(*bad, Concept(A, long), Concept(A, "?!"), Alias(A, "x" * 512, "en"))
    )
    assert tables.names("text") == [(0, "x" * 512)]
    rejected = tables.report["rejected"]
    assert {reason: entry["rows"] for reason, entry in rejected.items()} == {
        "concept_id is no CURIE": 1,
        "name over 512 characters": 2,
        "name without a letter or digit": 3,
    }
    assert rejected["concept_id is no CURIE"]["examples"] == ['made.tsv: "7"']
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
        "rejected": {},
    }
    assert tables.report == expected
    assert json.loads((tmp_path / "report.json").read_text()) == expected


def test_sources_of_which_no_name_is_left_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no alias is left of made\.tsv; .*no CURIE': 1"):
        build_tables([made(Alias("7", "x", "en"))], tmp_path)
    with pytest.raises(UsageError, match=r"rejected: nothing"):
        build_tables([made()], tmp_path)
    assert not list(tmp_path.iterdir())


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
RECORDS = st.one_of(ALIASES, st.builds(Concept, IDS, NAMES))


@settings(max_examples=40)
@given(st.lists(RECORDS, max_size=30), st.integers(0, 30))
def test_whatever_comes_the_tables_hold_each_name_once_sorted_and_byte_for_byte_again(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], cut: int
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
    build_tables(sources, directory)
    assert [path.read_bytes() for path in files] == before
