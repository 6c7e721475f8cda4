"""Sources: what tables, ontologies and the starter format give, and what they set aside."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_tsv
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, refusal
from index_builder.sources import Rejects

CONCEPT = Concept("MADE:1", "red fever", ("Disease", "Sign"), "Hot and red.", ("X:1",), ("MADE:9",))
ALIAS = Alias("MADE:1", "rotes Fieber", "de", "translation", "book", "CC0-1.0")
HEADER = "cui,name,lang,kind,source,licence,preferred_name,category,definition,xrefs,alt_cuis"
ROW = ["MADE:1", "rotes Fieber", "de", "translation", "book", "CC0-1.0"]
ROW += ["red fever", "Disease|Sign", "Hot and red.", "X:1", "MADE:9"]


@pytest.mark.parametrize("ending", ["tsv", "txt", "csv", "tsv.gz", "csv.gz", "parquet"])
def test_a_table_gives_a_concept_and_an_alias_a_row_by_the_usual_column_names(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"names.{ending}"
    header = HEADER.split(",")
    delimiter = "," if "csv" in ending else "\t"
    text = "".join(delimiter.join(cells) + "\n" for cells in (header, ROW))
    if ending == "parquet":
        lists = {"category": ["Disease", "Sign"], "xrefs": ["X:1"], "alt_cuis": ["MADE:9"]}
        pq.write_table(pa.Table.from_pylist([dict(zip(header, ROW, strict=True)) | lists]), path)
    elif ending.endswith("gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    assert read("table", path) == [CONCEPT, ALIAS]


def test_columns_and_options_fill_in_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "d.2024.tsv", [["key", "word", "kind"], ["7", "tos", "other"]])
    options: dict[str, Any] = {"columns": {"concept_id": "key", "text": "word"}, "prefix": "MESH:"}
    expected = Alias("MESH:7", "tos", "es", "synonym", "d", "MIT")
    assert read("table", path, language="es", license="MIT", **options) == [expected]
    assert read("table", path, name="mine", **options)[0] == Alias(
        "MESH:7", "tos", "", "synonym", "mine", ""
    )


def test_csv_cells_may_be_quoted_and_tsv_quotes_are_letters(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text('\ufeffid,name\nA:1,"fever, ""red"""\nA:2\n', encoding="utf-8")
    rejects = Rejects()
    assert [a.text for a in read("table", path, rejects) if isinstance(a, Alias)] == [
        'fever, "red"'
    ]
    assert rejects.examples == {"1 fields instead of 2": [f'{path}:3: ["A:2"]']}
    tsv = write_tsv(tmp_path / "names.tsv", [["id", "name"], ["A:1", '5" stick, "long']])
    assert [a.text for a in read("table", tsv) if isinstance(a, Alias)] == ['5" stick, "long']


def test_bad_rows_are_set_aside_with_file_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    lines = [b"id,name", b'A:1,"two\nlines"', b"A:2", b"A:3,f\xffver", b" ,cough", b"", b"A:4,ok"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    rejects = Rejects()
    assert [a.concept_id for a in read("table", path, rejects)] == ["A:1", "A:4"]
    assert rejects.counts == {
        "1 fields instead of 2": 1,
        "not UTF-8": 1,
        "no concept_id": 1,
        "0 fields instead of 2": 1,
    }
    places = {reason: rows[0].split(": ")[0] for reason, rows in rejects.examples.items()}
    assert places == {
        "1 fields instead of 2": f"{path}:4",
        "not UTF-8": f"{path}:5",
        "no concept_id": f"{path}:6",
        "0 fields instead of 2": f"{path}:7",
    }


def test_null_cells_of_parquet_are_empty_and_numbers_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "names.parquet"
    columns = {"id": [5, None, 6], "name": ["a", "b", None], "lang": [None, None, None]}
    pq.write_table(pa.table(columns), path)
    rejects = Rejects()
    found = read("table", path, rejects, prefix="N:", language="en")
    assert found == [
        Alias("N:5", "a", "en", source="names"),
        Alias("N:6", "", "en", source="names"),
    ]
    assert rejects.examples["no concept_id"][0].startswith(f"{path}:2: ")


def test_only_the_first_examples_of_a_reason_are_kept() -> None:
    rejects = Rejects(examples=2)
    for number in range(5):
        rejects.add("bad", f"f:{number}", "x" * 1000)
    assert rejects.counts["bad"] == 5
    assert [row[:4] for row in rejects.examples["bad"]] == ["f:0:", "f:1:"]
    assert all(len(row) < 310 for row in rejects.examples["bad"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": {"text": "word"}}, "no column 'word' for text; it has id, name"),
        ({"columns": {"txt": "name"}}, "unknown column role 'txt'; known: concept_id, text"),
        ({"colums": {}}, "colums: Extra inputs"),
        ({"prefix": 3}, "prefix: Input should be a valid string"),
    ],
)
def test_a_wrong_option_of_a_table_is_named(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    path = write_tsv(tmp_path / "names.tsv", [["id", "name"], ["A:1", "x"]])
    assert said in (message := refusal("table", path, **options))
    assert str(path) in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", b"id\tword\n", "it has id, word"),
        ("a.tsv", b"", "needs a concept_id column"),
        ("a.xlsx", b"x", "a table ends in .tsv"),
        ("a.csv.gz", b"no gzip", "Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"id,name\n" * 99, mtime=0)[:-12], "ended before"),
        ("a.csv.gz", gzip.compress(b"id,name\n", mtime=0)[:10] + b"\xff" * 40, "decompressing"),
        ("a.parquet", b"PAR1 but no more", "arquet"),
        ("a.csv", b'id,name\nA:1,"' + b"x" * 200_000 + b'"\n', "field larger"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in (message := refusal("table", tmp_path / name))
    assert str(tmp_path / name) in message


def test_a_missing_path_and_an_unknown_kind_are_usage_errors(tmp_path: Path) -> None:
    for kind in ("table", "obo", "starter"):
        assert "no such file" in refusal(kind, tmp_path / "none.tsv")
    assert refusal("excel", tmp_path) == "unknown source kind 'excel'; known: obo, starter, table"


@settings(max_examples=30)
@given(st.lists(st.text("ab\"',| é日", min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_without_tabs_survives_a_tsv(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-text.tsv"
    write_tsv(path, [["id", "name"], *(["A:1", name] for name in names)])
    assert [a.text for a in read("table", path) if isinstance(a, Alias)] == names


def test_a_starter_line_gives_a_concept_and_its_names_by_language(tmp_path: Path) -> None:
    row = {"id": "MADE:1", "type": "Sign", "definition": "Hot."}
    names = {"en": ["red fever", "RF"], "de": ["rotes Fieber", "RF"]}
    (tmp_path / "b.jsonl").write_text(json.dumps({**row, "names": names}) + "\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({**row, "id": "MADE:2", "names": {"en": ["x"]}}) + "\n"
    )
    assert read("starter", tmp_path, name="s", license="L") == [
        Concept("MADE:2", "x", ("Sign",), "Hot."),
        Alias("MADE:2", "x", "en", "preferred", "s", "L"),
        Concept("MADE:1", "red fever", ("Sign",), "Hot."),
        Alias("MADE:1", "red fever", "en", "preferred", "s", "L"),
        Alias("MADE:1", "RF", "en", "synonym", "s", "L"),
        Alias("MADE:1", "rotes Fieber", "de", "translation", "s", "L"),
        Alias("MADE:1", "RF", "de", "synonym", "s", "L"),
    ]


@pytest.mark.parametrize("line", ["", "{", "[]", '{"id": "A:1", "names": {"en": []}}'])
def test_a_line_that_is_no_starter_concept_is_a_usage_error_with_its_place(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"id": "A:1", "type": "T", "definition": "", "names": {"en": ["x"]}}'
    path.write_text(f"{good}\n{line}\n")
    assert f"{path}:2: not a starter concept" in refusal("starter", path)
