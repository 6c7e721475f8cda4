"""The table source, in all its formats: what rows give, what is set aside, what is refused."""

import bz2
import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_tsv
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import Gathered, read, read_rows, refusal
from index_builder.config import SourceConfig
from index_builder.sources import open_source
from index_builder.sources.base import RAW_ALIASES, Rows
from index_builder.sources.formats import reading

CONCEPT = Concept(
    "MADE:1",
    "red fever",
    ("Disease", "Sign"),
    "Hot and red.",
    ("X:1",),
    ("MADE:9",),
    ("MADE:2",),
    7,
)
ALIAS = Alias("MADE:1", "rotes Fieber", "de", "translation", "book", "CC0-1.0")
ROW: dict[str, Any] = {
    "cui": "MADE:1",
    "name": "rotes Fieber",
    "lang": "de",
    "kind": "translation",
    "source": "book",
    "licence": "CC0-1.0",
    "preferred_name": "red fever",
    "category": ["Disease", "Sign"],
    "definition": "Hot and red.",
    "xrefs": ["X:1"],
    "alt_cuis": ["MADE:9"],
    "parents": ["MADE:2"],
    "popularity": 7,
}


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def zipped(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside", data)
    return archive.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
    ".zip": zipped,
}


def content(ending: str) -> bytes:
    """ROW in a format."""
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([ROW]), sink := pa.BufferOutputStream())
        return bytes(sink.getvalue())
    if ending in ("jsonl", "ndjson"):
        return json.dumps(ROW).encode()
    flat = {name: "|".join(v) if isinstance(v, list) else str(v) for name, v in ROW.items()}
    separator = "," if ending == "csv" else "\t"
    return "".join(f"{separator.join(cells)}\n" for cells in (flat, flat.values())).encode()


def texts(rows: Gathered) -> list[str]:
    return [row["text"] for row in rows.aliases]


def places(rows: Gathered) -> dict[str, list[str]]:
    """Reason -> file lines of what was set aside."""
    told: dict[str, list[str]] = {}
    for one in rows.rejected:
        told.setdefault(one.reason, []).append(one.where.rpartition(":")[2])
    return told


@pytest.mark.parametrize("ending", ["tsv", "txt", "csv", "jsonl", "ndjson", "parquet"])
def test_a_row_gives_a_concept_and_an_alias_by_the_usual_column_names(
    tmp_path: Path, ending: str
) -> None:
    (path := tmp_path / f"names.{ending}").write_bytes(content(ending))
    assert read("table", path) == [CONCEPT, ALIAS]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_text_may_be_compressed(tmp_path: Path, ending: str, packed: str) -> None:
    (path := tmp_path / f"names.{ending}{packed}").write_bytes(PACKED[packed](content(ending)))
    assert read("table", path) == [CONCEPT, ALIAS]


def test_columns_and_options_fill_in_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "d.2024.tsv", [["key", "word", "kind"], ["7", "tos", "other"]])
    options: dict[str, Any] = {"columns": {"concept_id": "key", "text": "word"}, "prefix": "MESH:"}
    expected = Alias("MESH:7", "tos", "es", "synonym", "d", "MIT")
    assert read("table", path, language="es", license="MIT", **options) == [expected]
    assert read("table", path, name="mine", **options)[0] == Alias(
        "MESH:7", "tos", "", "synonym", "mine", ""
    )


def test_only_bare_ids_and_parents_get_the_prefix(tmp_path: Path) -> None:
    header = ["id", "name", "parents", "xrefs", "exact"]
    path = write_tsv(
        tmp_path / "a.tsv",
        [header, ["C1", "x", "C2|MADE:3", "C4", "C5"], ["MADE:6", "y", "", "", ""]],
    )
    rows = read_rows("table", path, prefix="NCIT:")
    assert [row["concept_id"] for row in rows.concepts] == ["NCIT:C1", "MADE:6"]
    first = rows.concepts[0]
    assert first["parents"] == ["NCIT:C2", "MADE:3"]
    assert first["xrefs"] == ["C4"]
    assert first["exact"] == ["C5"]


def test_rank_and_disambiguation_go_with_the_alias(tmp_path: Path) -> None:
    rows = [["id", "name", "disambiguation", "rank"], ["A:1", "Mercury", "element", "3"]]
    path = write_tsv(tmp_path / "a.tsv", rows)
    row = read_rows("table", path, columns={"rank": "rank"}).aliases[0]
    assert (row["disambiguation"], row["rank"], row["line"]) == ("element", 3, 2)
    assert read_rows("table", path).aliases[0]["rank"] == 0  # only where it is asked for


def test_a_file_without_a_header_has_its_columns_named(tmp_path: Path) -> None:
    (path := tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfA:1\tfever\nA:2\tcough")
    rows = read_rows("table", path, header=["id", "name"])
    assert [(row["concept_id"], row["text"], row["line"]) for row in rows.aliases] == [
        ("A:1", "fever", 1),
        ("A:2", "cough", 2),
    ]


def test_lines_that_begin_with_the_comment_are_skipped(tmp_path: Path) -> None:
    (path := tmp_path / "a.tsv").write_text("# of 2024\n#\n\nid\tname\n#A:0\tx\nA:1\t#1 cause\n")
    rows = read_rows("table", path, comment="#")
    assert (texts(rows), rows.read, rows.rejected) == (["#1 cause"], 1, [])
    assert rows.aliases[0]["line"] == 6
    path.with_suffix(".csv").write_text('"#no, a cell",A:0\n#,x,y\n\nfever,A:1\n')
    rows = read_rows("table", path.with_suffix(".csv"), header=["name", "id"], comment="#,")
    assert texts(rows) == ["#no, a cell", "fever"]
    path.with_suffix(".jsonl").write_text('# one\n{"id": "A:1", "name": "fever"}\n')
    assert texts(read_rows("table", path.with_suffix(".jsonl"), comment="#")) == ["fever"]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", ["train_dictionary.txt", "dictionary", "dictionary.dict"])
def test_a_dictionary_of_lines_id_and_name_is_known_by_its_first_line(
    tmp_path: Path, name: str, packed: str
) -> None:
    lines = "C0000001||fever\nC0000002|C0000003||cough, dry\nC0000004||a||b\n"
    (path := tmp_path / (name + packed)).write_bytes(PACKED[packed](lines.encode()))
    rows = read_rows("table", path, language="en")
    assert [(row["concept_id"], row["text"], row["line"]) for row in rows.aliases] == [
        ("C0000001", "fever", 1),
        ("C0000002", "cough, dry", 2),
        ("C0000003", "cough, dry", 2),
        ("C0000004", "a||b", 3),
    ]
    assert rows.aliases[0]["language"] == "en"


def test_the_format_may_be_said(tmp_path: Path) -> None:
    (path := tmp_path / "FLAT.zip").write_bytes(zipped(b"A:1\t||fever\n"))
    header = ["concept_id", "text"]
    assert texts(read_rows("table", path, format="tsv", header=header)) == ["||fever"]
    (path := tmp_path / "a.csv").write_bytes(b"D1|D2||fever\n")
    rows = read_rows("table", path, format="dictionary", prefix="MESH:")
    assert [row["concept_id"] for row in rows.aliases] == ["MESH:D1", "MESH:D2"]


def test_a_cell_may_hold_several_names_the_preferred_one_first(tmp_path: Path) -> None:
    header = ["code", "parents", "names", "definition"]
    row = ["C1", "C2", "Fever|Pyrexia| |hot; body", "Hot."]
    path = write_tsv(tmp_path / "flat.txt", [row, ["C3", "", "", "Nameless."]])
    options = {
        "header": header,
        "columns": {"concept_id": "code", "text": "names"},
        "prefix": "NCIT:",
    }
    rows = read_rows("table", path, split_text=True, **options)
    assert [(row["concept_id"], row["text"], row["kind"]) for row in rows.aliases] == [
        ("NCIT:C1", "Fever", "preferred"),
        ("NCIT:C1", "Pyrexia", "synonym"),
        ("NCIT:C1", "hot; body", "synonym"),
    ]
    assert [row["definition"] for row in rows.concepts] == ["Hot.", "Nameless."]
    assert rows.rejected == []
    rows = read_rows("table", path, split_text=True, separator="; ", **options)
    assert texts(rows) == ["Fever|Pyrexia| |hot", "body"]


def test_a_list_of_names_gives_each_of_them(tmp_path: Path) -> None:
    objects = [{"id": "A:1", "name": ["fever", "pyrexia"]}, {"id": "A:2", "name": "cough"}]
    (path := tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, objects)))
    assert texts(read_rows("table", path)) == ["fever", "pyrexia", "cough"]
    pq.write_table(pa.table({"id": ["A:1"], "name": [["fever", None]]}), tmp_path / "a.parquet")
    rows = read_rows("table", tmp_path / "a.parquet")
    assert [(row["text"], row["kind"]) for row in rows.aliases] == [("fever", "synonym")]


def test_titles_lose_what_tells_namesakes_apart(tmp_path: Path) -> None:
    titles = ["Mercury_(element)", "水星（惑星）", "Type_2_diabetes", "Mercury (II)_(III)", "(R)"]
    path = write_tsv(tmp_path / "a.tsv", [["id", "name"], *(["A:1", title] for title in titles)])
    rows = read_rows("table", path, titles=True)
    assert [(row["text"], row["disambiguation"]) for row in rows.aliases] == [
        ("Mercury", "element"),
        ("水星", "惑星"),
        ("Type 2 diabetes", ""),
        ("Mercury (II)", "III"),
        ("(R)", ""),
    ]
    assert texts(read_rows("table", path)) == titles
    (path := tmp_path / "b.tsv").write_text("id\tname\tdisambiguation\nA:1\tM (x)\ty\n")
    row = read_rows("table", path, titles=True).aliases[0]
    assert (row["text"], row["disambiguation"]) == ("M", "y")


def test_what_many_names_say_of_one_concept_is_told_once(tmp_path: Path) -> None:
    header = ["id", "name", "preferred_name", "category"]
    said = [["A:1", f"name {n}", "fever", "Sign|Disease"] for n in range(50)]
    other = [["A:1", "x", "fever", "Sign"], ["A:2", "y", "fever", "Sign"]]
    path = write_tsv(tmp_path / "a.tsv", [header, *said, *other, *said])
    rows = read_rows("table", path)
    assert len(rows.aliases) == 102
    assert [(r["concept_id"], r["semantic_types"], r["line"]) for r in rows.concepts] == [
        ("A:1", ["Sign", "Disease"], 2),
        ("A:1", ["Sign"], 52),
        ("A:2", ["Sign"], 53),
    ]


def test_csv_cells_may_be_quoted_and_tsv_quotes_are_letters(tmp_path: Path) -> None:
    (path := tmp_path / "names.csv").write_text(
        '\ufeffid,"na""me"\nA:1,"fever, ""red"""\nA:2,5" stick\n', encoding="utf-8"
    )
    rows = read_rows("table", path, columns={"text": 'na"me'})
    assert texts(rows) == ['fever, "red"', '5" stick']
    tsv = write_tsv(tmp_path / "names.tsv", [["id", "name"], ["A:1", '5" stick, "long']])
    assert texts(read_rows("table", tsv)) == ['5" stick, "long']


def test_windows_line_ends_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    for ending, text in (("tsv", "id\tname\r\n"), ("csv", "id,name\r\n")):
        row = text.replace("id", "A:1").replace("name", "fever")
        (path := tmp_path / f"a.{ending}").write_bytes(f"{text}\r\n{row}\r\n{row}\n".encode())
        rows = read_rows("table", path)
        assert (texts(rows), rows.read) == (["fever", "fever"], 2)
        assert [row["line"] for row in rows.aliases] == [3, 5]


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("quoted", ["one\ntwo", 'say ""\n""', "a,b", "\n"])
def test_blocks_of_csv_end_where_records_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, quoted: str
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", block_bytes)
    lines = ["id,name", f'A:1,"{quoted}"', 'A:2,5" pipe', f'A:3,"{quoted}"', "A:4,end"]
    (path := tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    expected = quoted.replace('""', '"')
    rows = read_rows("table", path)
    assert texts(rows) == [expected, '5" pipe', expected, "end"]
    extra = quoted.count("\n")
    assert [row["line"] for row in rows.aliases] == [2, 3 + extra, 4 + extra, 5 + 2 * extra]


@pytest.mark.parametrize("block_bytes", [1, 20, 1 << 20])
@pytest.mark.parametrize(
    ("ending", "separator"), [("tsv", "\t"), ("csv", ","), ("dictionary", "||")]
)
def test_bad_rows_are_set_aside_with_line_and_reason_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, separator: str, block_bytes: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", block_bytes)
    lines = ["A:0|name", "A:1|good", "A:2", "A:3|f\udcffver", " |cough", "", "A:5|", "A:6|fine"]
    text = "\n".join(lines).replace("|", separator)
    (path := tmp_path / f"a.{ending}").write_bytes(text.encode("utf-8", "surrogateescape"))
    header = {} if ending == "dictionary" else {"header": ["id", "name"]}
    rows = read_rows("table", path, **header)
    assert texts(rows) == ["name", "good", "fine"]
    assert [row["line"] for row in rows.aliases] == [1, 2, 8]
    assert rows.read == 7
    assert places(rows) == {
        "another number of fields than the header": ["3"],
        "not UTF-8": ["4"],
        "no concept_id": ["5"],
        "no name": ["7"],
    }
    assert any("\\xff" in one.row for one in rows.rejected)


def test_bad_lines_of_json_are_set_aside(tmp_path: Path) -> None:
    good = b'{"id": 5, "name": "fever"}'
    lines = [
        good,
        b'{"id": "A:1", "name": "cut sh',
        b"[]",
        b'{"id": "A:1", "name": "f\xffver"}',
        b'{"id": "A:1", "name": "\\ud800"}',
        b"[" * 100_000,
        b'{"id": "A:1", "name": {"en": "fever"}}',
        b'{"id": ["A:1"], "name": "fever"}',
        b'{"name": "fever"}',
        b'{"id": "A:1", "name": null}',
        b'{"id": "A:1", "alias": "an alias instead", "xrefs": "X:1|X:2"}',
        good,
    ]
    (path := tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows = read_rows("table", path, prefix="N:")
    assert [row["concept_id"] for row in rows.aliases] == ["N:5", "A:1", "N:5"]
    assert texts(rows) == ["fever", "an alias instead", "fever"]
    assert rows.read == 12
    assert places(rows) == {
        "no JSON object in UTF-8": ["2", "3", "4", "5", "6"],
        "text is of another type": ["7"],
        "concept_id is of another type": ["8"],
        "no concept_id": ["9"],
    }
    for one in rows.rejected:
        one.row.encode()


def test_a_number_that_is_none_costs_its_row(tmp_path: Path) -> None:
    numbers = ["3", "", "3.0", "many", "2.5", "99999999999"]
    header = ["id", "name", "popularity"]
    path = write_tsv(tmp_path / "a.tsv", [header, *(["A:1", n or "x", n] for n in numbers)])
    rows = read_rows("table", path)
    assert [row["popularity"] for row in rows.concepts] == [3, 0]
    assert places(rows) == {"popularity is no whole number": ["5", "6", "7"]}
    table = pa.table({"id": ["A:1", "A:2"], "name": ["x", "y"], "popularity": [4.0, None]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = read_rows("table", tmp_path / "a.parquet")
    assert [row["popularity"] for row in rows.concepts] == [4, 0]


def test_null_cells_of_parquet_are_empty_and_numbers_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "names.parquet"
    columns = {"id": [5, None, 6, 7], "name": ["a", "b", None, "d"], "lang": [None] * 4}
    pq.write_table(pa.table(columns), path, row_group_size=3)
    rows = read_rows("table", path, prefix="N:", language="en")
    assert [(row["concept_id"], row["text"], row["line"]) for row in rows.aliases] == [
        ("N:5", "a", 1),
        ("N:7", "d", 4),
    ]
    assert {row["language"] for row in rows.aliases} == {"en"}
    assert places(rows) == {"no concept_id": ["2"], "no name": ["3"]}
    assert rows.read == 4


def test_parquet_texts_may_be_of_any_text_type(tmp_path: Path) -> None:
    names = pa.array(["x", "x"]).dictionary_encode()
    table = pa.table({"id": pa.array(["A:1", "A:2"], pa.large_string()), "name": names})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(read_rows("table", tmp_path / "a.parquet")) == ["x", "x"]


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_what_a_truncated_stream_still_holds_is_read_and_the_rest_is_one_bad_row(
    tmp_path: Path, ending: str
) -> None:
    header = [] if ending == "jsonl" else ["id\tname"]
    row = '{"id": "A:1", "name": "fever"}' if ending == "jsonl" else "A:1\tfever"
    text = "\n".join([*header, *[row] * 9000]).replace("\t", "," if ending == "csv" else "\t")
    (path := tmp_path / f"a.{ending}.gz").write_bytes(gzip.compress(text.encode(), mtime=0)[:-30])
    rows = read_rows("table", path)
    assert 1000 < len(rows.aliases) < 9000
    assert rows.read == len(rows.aliases) + 1
    assert dict(rows.counts) == {reading.CUT_SHORT: 1}


def test_blocks_come_in_one_order_and_end_at_the_size_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 40)
    path = write_tsv(
        tmp_path / "a.tsv", [["id", "name"], *(["A:1", "x" * n] for n in range(1, 30))]
    )
    pq.write_table(
        pa.table({"id": ["A:1"] * 9, "name": ["x"] * 9}), tmp_path / "a.parquet", row_group_size=2
    )
    for file in (path, tmp_path / "a.parquet"):
        source = open_source(SourceConfig(kind="table", path=file))
        blocks = list(source.blocks())
        assert len(blocks) > 3
        assert blocks == list(source.blocks())
        positions = [block.position for block in blocks]
        assert positions == sorted(positions) and positions[-1] <= source.size
        alone = pickle.loads(pickle.dumps(source))  # as a worker gets it
        last = alone.read(blocks[-1])
        assert last.aliases().schema == RAW_ALIASES
        assert last.aliases().equals(source.read(blocks[-1]).aliases())


def test_only_the_first_examples_of_a_reason_are_kept() -> None:
    rows = Rows("f", "source", "")
    for number in range(1, 201):
        rows.set_aside("bad", number, "x" * 1000)
    assert rows.counts == {"bad": 200}
    assert [one.where for one in rows.rejected] == [f"f:{n}" for n in range(1, 101)]
    assert all(len(one.row) == 300 for one in rows.rejected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": {"text": "word"}}, "no column 'word' for text; it has id, name"),
        ({"columns": {"txt": "name"}}, "unknown column role 'txt'; known: concept_id, text"),
        ({"colums": {}}, "colums: Extra inputs"),
        ({"prefix": 3}, "prefix: Input should be a valid string"),
        ({"separator": ""}, "separator: String should have at least 1 character"),
        ({"format": "xlsx"}, "format: Input should be 'tsv', 'csv', 'parquet', 'jsonl' or"),
        ({"header": ["id"], "format": "jsonl"}, "`header` is for tsv and csv, this is jsonl"),
        ({"header": ["a", "b"]}, "it has a, b"),
    ],
)
def test_a_wrong_option_of_a_table_is_named(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    path = write_tsv(tmp_path / "names.tsv", [["id", "name"], ["A:1", "x"]])
    assert said in (message := refusal("table", path, **options))
    assert str(path) in message


def parquet(table: pa.Table) -> bytes:
    pq.write_table(table, sink := pa.BufferOutputStream())
    return bytes(sink.getvalue())


NO_UTF8 = pa.array([b"\xff"], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", b"id\tword\n", "it has id, word"),
        ("a.tsv", b"", "needs a concept_id column"),
        ("a.jsonl", b"[]\n", "it has none that can be read"),
        ("a.jsonl", b'{"id": 1}\n', "it has id"),
        ("a.xlsx", b"x", "a table ends in .tsv, .txt, .csv"),
        ("a.csv.gz", b"no gzip", "cut short or broken"),
        ("a.csv.gz", gzip.compress(b"id,name\n", mtime=0)[:12], "cut short or broken"),
        ("a.parquet", b"PAR1 but no more", "arquet"),
        ("a.parquet", parquet(pa.table({"id": [["A:1"]], "name": ["x"]})), "'id' for concept_id"),
        ("a.parquet", parquet(pa.table({"id": ["A:1"], "name": [{"en": "x"}]})), "struct<en"),
        ("a.parquet", parquet(pa.table({"id": ["A:1"], "name": NO_UTF8})), "UTF"),
        ("a.csv", b'id,name\nA:1,"' + b"x" * 200_000 + b'"\n', "field larger than field limit"),
        ("a.csv", b'id,name\nA:1,"open\n' + b"A:2,fever\n" * 20_000, "is a quote not closed?"),
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
    assert "no such file" in refusal("table", tmp_path / "none.tsv")
    assert refusal("excel", tmp_path).startswith("unknown source kind 'excel'; known: mesh, obo")


@settings(max_examples=30)
@given(st.lists(st.text("ab\"',| é日", min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_without_tabs_survives_a_tsv(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-text.tsv"
    write_tsv(path, [["id", "name"], *(["A:1", name] for name in names)])
    assert texts(read_rows("table", path)) == names
