"""What an input may not do, however it was made: grow without end, reach other files, have entities expanded."""

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builder.conftest import read_rows, refusal, tables_of
from index_builder.config import SourceConfig
from index_builder.sources import mesh, open_source
from index_builder.sources.formats import reading, records

ATOM = "C9000001|ENG|P|L1|PF|S1|Y|A1||||MSH|MH|D900001|{}|0|N|256|\n"
HEADER = b"concept_id\tname\nMADE:1\tred fever\n"


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs are looked for from 64 KiB on, blocks are small: the tests need no gigabytes."""
    monkeypatch.setattr(reading, "RATIO_FROM", 1 << 16)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 14)


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


BOMB = HEADER + b"\n" * (2 << 20)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("names.tsv.bz2", bz2.compress(BOMB)),
        ("names.tsv.gz", gzip.compress(BOMB)),
        ("names.tsv.zip", zipped({"names.tsv": BOMB})),
        ("names.tsv.gz", gzip.compress(HEADER) + gzip.compress(BOMB)),
    ],
)
@pytest.mark.usefixtures("strict")
def test_a_stream_that_grows_as_no_text_does_is_refused(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    assert "no text compresses so well" in refusal("table", tmp_path / name)


@pytest.mark.usefixtures("strict")
def test_a_text_that_compresses_well_is_read(tmp_path: Path) -> None:
    rows = "".join(f"MADE:{n % 90}\tred fever number {n}\n" for n in range(9000))
    (tmp_path / "names.tsv.bz2").write_bytes(bz2.compress(HEADER + rows.encode()))
    assert len(read_rows("table", tmp_path / "names.tsv.bz2").aliases) == 9001


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda table: {"META/MRCONSO.RRF": table},
        lambda table: {"x-meta.nlm": zipped({"META/MRCONSO.RRF": table})},
        lambda table: {"x-meta.nlm": table},
        lambda table: {"META/MRCONSO.RRF.gz": gzip.compress(table)},
    ],
)
@pytest.mark.usefixtures("strict")
def test_a_release_that_grows_as_no_release_does_is_refused(
    tmp_path: Path, wrapped: Callable[[bytes], dict[str, bytes]]
) -> None:
    table = ATOM.format("red fever").encode() + b"\n" * (4 << 20)
    (tmp_path / "full.zip").write_bytes(zipped(wrapped(table)))
    assert "no text compresses so well" in refusal("umls", tmp_path / "full.zip")


def test_an_archive_within_an_archive_within_an_archive_is_not_opened(tmp_path: Path) -> None:
    within = zipped({"META/MRCONSO.RRF": ATOM.format("red fever").encode()})
    for _ in range(3):
        within = zipped({"x-meta.nlm": within})
    (tmp_path / "full.zip").write_bytes(within)
    assert "found: no MR* file" in refusal("umls", tmp_path / "full.zip")


@pytest.mark.parametrize("folder", ["../../up", "/etc", "META/../.."])
def test_a_member_is_read_where_it_lies_whatever_path_it_claims(
    tmp_path: Path, folder: str
) -> None:
    """Nothing is unpacked: a path in an archive is a name for people."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    table = ATOM.format("red fever").encode()
    (inner / "full.zip").write_bytes(zipped({f"{folder}/MRCONSO.RRF": table}))
    (inner / "names.tsv.zip").write_bytes(zipped({f"{folder}/names.tsv": HEADER}))
    before = sorted(tmp_path.rglob("*"))
    assert [row["text"] for row in read_rows("umls", inner / "full.zip").aliases] == ["red fever"]
    assert [row["text"] for row in read_rows("table", inner / "names.tsv.zip").aliases] == [
        "red fever"
    ]
    source = SourceConfig.model_validate({"kind": "umls", "path": inner / "full.zip"})
    tables_of([open_source(source)], tmp_path / "out")
    assert (
        sorted(p for p in tmp_path.rglob("*") if tmp_path / "out" not in (p, *p.parents)) == before
    )


@pytest.mark.parametrize(
    ("kind", "tag", "record"),
    [
        (
            "orphanet",
            "Disorder",
            "<Disorder><OrphaCode>1</OrphaCode><Name lang='en'>{}</Name></Disorder>",
        ),
        (
            "mesh",
            "DescriptorRecord",
            "<DescriptorRecord><DescriptorUI>D1</DescriptorUI><DescriptorName><String>{}</String>"
            "</DescriptorName><ConceptList><Concept PreferredConceptYN='Y'/></ConceptList></DescriptorRecord>",
        ),
    ],
)
def test_entities_are_never_expanded_nor_fetched(
    tmp_path: Path, kind: str, tag: str, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    path = tmp_path / "en_product1.xml"
    doctype = f'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY s SYSTEM "{secret.as_uri()}">]>'
    texts = ("&b;", "&s;", "%s;", "a &amp; b", f"<xi:include href='{secret}'/>c")
    body = "".join(record.format(text) for text in texts)
    inside = record.replace("<OrphaCode>", doctype + "<OrphaCode>")
    inside = inside.replace("<DescriptorUI>", doctype + "<DescriptorUI>").format("&a;")
    path.write_text(f"<?xml version='1.0'?>{doctype}<All>{body}{inside}</All>")
    rows = read_rows(kind, path)
    assert [row["text"] for row in rows.aliases] == ["%s;", "a & b"]
    assert rows.counts["no XML"] == 4
    assert "the secret" not in json.dumps([rows.aliases, rows.concepts])
    monkeypatch.setattr(records, "MOST_LINE_BYTES", 1000)
    path.write_text(f"<All><{tag}>" + "x" * 2000)
    assert f"no </{tag}>" in refusal(kind, path)


def test_a_tree_is_looked_for_in_what_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 512)
    monkeypatch.setattr(mesh, "MOST_LINE_BYTES", 1000)
    record = (
        "<DescriptorRecord><DescriptorUI>D1</DescriptorUI><DescriptorName><String>red</String></DescriptorName>"
        "<TreeNumberList><TreeNumber>C1.2</TreeNumber></TreeNumberList>"
        "<ConceptList><Concept PreferredConceptYN='Y'/></ConceptList></DescriptorRecord>"
    )
    (tmp_path / "desc.xml").write_text(f"{record}\n<DescriptorRecord>" + "x\n" * 2000)
    rows = read_rows("mesh", tmp_path / "desc.xml")
    assert [row["text"] for row in rows.aliases] == ["red"]
    assert "the file ends inside a record" in rows.counts


def test_a_record_nested_without_end_costs_itself(tmp_path: Path) -> None:
    deep = "<Disorder><OrphaCode>1</OrphaCode><Name lang='en'>red</Name>{}</Disorder>"
    nested = "<i>" * 200_000 + "</i>" * 200_000
    good = "<Disorder><OrphaCode>2</OrphaCode><Name lang='en'>blue</Name></Disorder>"
    (tmp_path / "x.xml").write_text(f"<All>{deep.format(nested)}{good}</All>")
    assert "blue" in [row["text"] for row in read_rows("orphanet", tmp_path / "x.xml").aliases]


def test_json_nested_without_end_or_of_endless_numbers_costs_a_row(tmp_path: Path) -> None:
    lines = ["[" * 200_000, '{"concept_id": ' + "9" * 10_000 + "}", '{"a":' * 100_000]
    path = tmp_path / "names.jsonl"
    path.write_text("\n".join(['{"concept_id": "MADE:1", "name": "red fever"}', *lines]) + "\n")
    rows = read_rows("table", path)
    assert [row["text"] for row in rows.aliases] == ["red fever"]
    assert rows.counts == {"no JSON object in UTF-8": 3}


def test_a_file_that_is_read_whole_is_no_larger_than_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_WHOLE_BYTES", 1 << 12)
    (tmp_path / "x.json").write_text('{"graphs": []}' + " " * 5000)
    assert "GiB long" in refusal("obo", tmp_path / "x.json")


def test_a_definition_without_end_is_cut(tmp_path: Path) -> None:
    row = {"concept_id": "MADE:1", "name": "red fever", "definition": "long " * 100_000}
    (tmp_path / "names.jsonl").write_text(json.dumps(row) + "\n")
    source = SourceConfig.model_validate({"kind": "table", "path": tmp_path / "names.jsonl"})
    tables_of([open_source(source)], tmp_path / "out")
    (definition,) = pq.read_table(tmp_path / "out" / "concepts.parquet")["definition"].to_pylist()
    assert len(definition) == 20_000
