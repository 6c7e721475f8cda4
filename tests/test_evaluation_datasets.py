"""Benchmarks of the field: every format read from a small file in its real form, and what cannot be read named."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import DATASETS, Dataset, read_dataset
from bioelx_mcp.evaluation.datasets.base import (
    EMPTY,
    NO_ID,
    NO_MENTION,
    NOT_THERE,
    group_of,
    parse_gold,
)
from bioelx_mcp.evaluation.datasets.xlbel import ALL_AGAIN

DATA = Path(__file__).parent / "data" / "evaluation"


def read(name: str, path: str, language: str = "") -> Dataset:
    return read_dataset(name, DATA / path, language=language)


def told(dataset: Dataset) -> list[tuple[object, ...]]:
    """Mention, its offset, gold ids, language and group of each query."""
    return [
        (q.mention.text, q.mention.start, sorted(q.gold), q.language, q.group)
        for q in dataset.queries
    ]


def places(dataset: Dataset) -> list[tuple[str, str]]:
    """The remarks, their places without the folder."""
    return [(Path(where).name, reason) for where, reason in dataset.remarks]


def test_mantra_in_brat_gives_a_span_once_with_all_its_cuis() -> None:
    dataset = read("mantra", "mantra")
    assert told(dataset) == [
        ("fiebre roja", 19, ["UMLS:C0000001", "UMLS:C0000002"], "es", "DISO"),
        ("Rojina", 5, ["UMLS:C0000003"], "es", "CHEM"),
        ("Tome por", None, ["UMLS:C0000004"], "es", ""),
    ]
    assert dataset.queries[2].spans == ((0, 4), (12, 15))
    assert {q.mention.context for q in dataset.queries} == {"Tome Rojina por la fiebre roja."}
    assert {Path(q.document).name for q in dataset.queries} == {"0001"}
    assert dataset.remarks == ()


def test_mantra_in_xml_says_its_language_and_where_offsets_are_wrong() -> None:
    dataset = read("mantra", "EMEA_GSC_fr_man.xml")
    assert told(dataset) == [
        ("fièvre rouge", 3, ["UMLS:C0000001", "UMLS:C0000002"], "fr", "DISO"),
        ("la toux", None, ["UMLS:C0000003"], "fr", "DISO"),
    ]
    assert dataset.queries[0].mention.context == "La fièvre rouge & la toux bleue."
    assert places(dataset) == [("EMEA_GSC_fr_man.xml: annotation 3 (d1.u1.e3)", NOT_THERE)]


def test_mantra_in_xml_is_named_by_its_file_where_it_says_no_language(tmp_path: Path) -> None:
    path = tmp_path / "Patent_GSC_de_man.xml"
    text = (DATA / "EMEA_GSC_fr_man.xml").read_text(encoding="utf-8").replace(' lang="fr"', "")
    path.write_text(text, encoding="utf-8")
    assert {query.language for query in read_dataset("mantra", tmp_path).queries} == {"de"}


def test_pubtator_gives_nil_parts_of_composites_and_both_ids_of_the_others() -> None:
    dataset = read("pubtator", "made.pubtator.txt")
    assert told(dataset) == [
        ("Red fever", 0, ["UMLS:C0000001"], "en", "DISO"),
        ("blue cough", 14, ["UMLS:C0000002"], "en", "DISO"),
        ("RF", 26, ["MESH:D000111", "MESH:D000222"], "en", "Disease"),
        ("α-fever", 38, [], "en", "Disease"),
        ("hypofever", None, ["MESH:D000333"], "en", "Disease"),
        ("hyperfever", None, ["MESH:C000444"], "en", "Disease"),
        ("Hypo", None, ["OMIM:100"], "en", "Disease"),
    ]
    assert dataset.queries[3].mention.context.endswith("\nRF is rare; α-fever is not.")
    assert places(dataset) == [
        ("made.pubtator.txt:7", NO_MENTION),
        ("made.pubtator.txt:12", NOT_THERE),
    ]
    assert dataset.reasons == {NO_MENTION: 1, NOT_THERE: 1}
    assert dataset.first(NOT_THERE).endswith("made.pubtator.txt:12")


def test_a_list_of_documents_leaves_the_others_out_and_says_so(tmp_path: Path) -> None:
    packed = tmp_path / "corpus_pubtator.txt.gz"
    packed.write_bytes(gzip.compress((DATA / "made.pubtator.txt").read_bytes()))
    dataset = read_dataset("pubtator", packed, ids=DATA / "ids.txt")
    assert {query.document for query in dataset.queries} == {"222"}
    assert dataset.reasons["left out: its document is not listed"] == 4
    assert places(dataset)[-1] == ("ids.txt:2", "left out: no annotation in this document")


def test_brat_takes_ids_from_its_n_lines() -> None:
    dataset = read("brat", "bionne", language="ru")
    assert told(dataset) == [
        ("Красный жар", 0, ["UMLS:C0000001", "UMLS:C0000002"], "ru", "DISO"),
        ("CuF", 14, [], "ru", "CHEM"),
    ]
    assert places(dataset) == [("ru_1.ann:7", NO_MENTION), ("ru_1.ann:6", NO_ID)]


def test_bigbio_joins_passages_at_their_offsets() -> None:
    dataset = read("bigbio", "bigbio.json", language="en")
    assert told(dataset) == [
        ("Red fever", 0, ["MESH:D000111", "UMLS:C0000001"], "en", "Disease"),
        ("Cough pain", None, ["SNOMEDCT:100200300"], "en", "DISO"),
    ]
    assert dataset.queries[1].spans == ((11, 16), (28, 32))
    assert dataset.queries[0].mention.context == "Red fever. Cough, blue, and pain."
    assert places(dataset) == [("bigbio.json: document 1 (5)", NO_ID)]


def test_bigbio_is_read_from_lines_as_well(tmp_path: Path) -> None:
    (document,) = json.loads((DATA / "bigbio.json").read_text(encoding="utf-8"))
    (tmp_path / "test.jsonl").write_text(f"\n{json.dumps(document)}\n", encoding="utf-8")
    assert told(read_dataset("bigbio", tmp_path)) == told(
        read("bigbio", "bigbio.json", language="")
    )


def test_json_lines_have_one_gold_id_several_or_none() -> None:
    assert told(read("jsonl", "made.jsonl", language="de")) == [
        ("red fever", 2, ["UMLS:C0000001"], "en", "DISO"),
        ("roter Husten", None, ["MESH:D000111", "UMLS:C0000002"], "de", ""),
        ("Unsinn", None, [], "de", ""),
    ]


def test_wikimed_de_is_german_whatever_its_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("C0000001|C0000002||Rotes Fieber\n", encoding="utf-8")
    (query,) = read_dataset("wikimed-de-bel", path).queries
    assert (query.language, len(query.gold)) == ("de", 2)


def test_xlbel_of_all_languages_is_not_read_beside_each(tmp_path: Path) -> None:
    for name in ("all_1k_test_query.txt", "de_1k_test_query.txt"):
        (tmp_path / name).write_text("C0000001||Fieber\n", encoding="utf-8")
    dataset = read_dataset("xlbel", tmp_path)
    assert [query.language for query in dataset.queries] == ["de"]
    assert places(dataset) == [("all_1k_test_query.txt", ALL_AGAIN)]


def test_the_checksum_follows_what_is_asked_not_where_it_lies(tmp_path: Path) -> None:
    copy = shutil.copy(DATA / "made.jsonl", tmp_path / "other.jsonl")
    one, same = read("jsonl", "made.jsonl"), read_dataset("jsonl", Path(copy))
    assert one.checksum == same.checksum != read("jsonl", "made.jsonl", language="de").checksum


def test_an_annotation_of_no_text_is_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"mention": " ", "gold": "C0000001"}\n{"mention": "a", "gold": "C0000001"}\n')
    dataset = read_dataset("jsonl", path)
    assert (len(dataset.queries), places(dataset)) == (1, [("some.jsonl:1", EMPTY)])


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("C0000001", {"UMLS:C0000001"}),
        ("C000001", {"MESH:C000001"}),
        ("D000111+ D000222 ,OMIM:3", {"MESH:D000111", "MESH:D000222", "OMIM:3"}),
        ("X12", {"VOC:X12"}),
        ("D000657245", {"MESH:D000657245"}),
        ("CUI-less", set()),
        ("-1", set()),
        ("", set()),
    ],
)
def test_ids_are_told_by_their_form(text: str, ids: set[str]) -> None:
    assert parse_gold("here", text, "VOC") == ids


def test_a_group_is_found_by_tui_or_name_of_a_type() -> None:
    assert [group_of(t) for t in ("T047", "T184,T033", "Sign or Symptom", "DISO", "")] == [
        *("DISO", "DISO", "DISO", "DISO", "")
    ]


MALFORMED: list[tuple[str, str, bytes, str]] = [
    (
        "pubtator",
        "a.txt",
        b"1|t|a\n1|a|b\n1\t0\t1\ta\tDisease\tno id\n",
        ":3: no concept id: 'no id'",
    ),
    ("pubtator", "a.txt", b"1|t|a\n2|a|b\n", ":2: the abstract of another document than '1'"),
    ("pubtator", "a.txt", b"1|t|a\n2\t0\t1\ta\tDisease\tD000111\n", ":2: no line of the document"),
    ("pubtator", "a.txt", b"1|t|a\n1\t0\tx\ta\tDisease\tD000111\n", ":2: not of the form PMID"),
    ("pubtator", "a.txt", b"1|t|a\n1\t0\n", ":2: not of the form PMID"),
    ("pubtator", "a.txt", b"1|t|\xe9\n", ":1: not UTF-8"),
    ("pubtator", "a.txt.gz", b"no gzip", "cannot be read"),
    ("brat", "a.ann", b"T1\tDISO 0 1\n", ":1: not of the form T1"),
    ("brat", "a.ann", b"T1\tDISO 0\ta\n", ":1: no offsets"),
    ("brat", "a.ann", b"T1\tDISO 0 1\ta\nN1\tReference T1\n", ":2: not of the form N1"),
    ("brat", "a.ann", b"T1\tDISO 0 1\ta\nN1\tReference T1 nonsense\n", ":2: no concept id"),
    ("brat", "a.ann", b"N1\tReference T9 UMLS:C0000001\n", "an id is given for T9"),
    ("brat", "a.ann", b"what\n", ":1: no line of brat"),
    ("brat", "b.ann", b"T1\tDISO 0 1\ta\n", "lacks its text b.txt"),
    (
        "mantra",
        "a.xml",
        b"<Corpus><e offset='a' len='1' cui='C0000001'>a</e></Corpus>",
        "no offset",
    ),
    ("mantra", "a.xml", b"<Corpus>\n<e></Corpus>", ":2: no XML"),
    ("mantra", "a.xml", b"<!DOCTYPE c [<!ENTITY a 'b'>]><c/>", "declares entities"),
    ("jsonl", "a.jsonl", b'{"mention": "a"}\n', ":1: gold: Field required"),
    ("jsonl", "a.jsonl", b'{"mention": "a", "gold": [], "cui": 1}\n', ":1: cui: Extra inputs"),
    ("jsonl", "a.jsonl", b"nothing\n", ":1: Invalid JSON"),
    ("bigbio", "a.json", b"{}", "no list of documents"),
    ("bigbio", "a.json", b"[", "no JSON"),
    ("bigbio", "a.jsonl", b"[\n", ":1: no JSON"),
    ("bigbio", "a.json", b"[3]", "document 1: Input should be"),
    (
        "bigbio",
        "a.json",
        b'[{"document_id": "1", "passages": [{"text": ["a"], "offsets": []}], "entities": []}]',
        "document 1: passages without offsets",
    ),
]


@pytest.mark.parametrize(("name", "file", "content", "reason"), MALFORMED)
def test_what_cannot_be_understood_is_named_by_file_line_and_reason(
    tmp_path: Path, name: str, file: str, content: bytes, reason: str
) -> None:
    (tmp_path / file).write_bytes(content)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError) as caught:
        read_dataset(name, tmp_path / file)
    assert str(caught.value).startswith(str(tmp_path / file)) and reason in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (
            lambda at: read_dataset("nonsense", at),
            "unknown dataset 'nonsense'; known: xlbel, mantra",
        ),
        (lambda at: read_dataset("brat", at), "is no file, nor a folder with *.ann"),
        (lambda at: read_dataset("jsonl", at / "none"), "is no file, nor a folder"),
        (lambda at: read_dataset("jsonl", at / "e.jsonl"), "holds no query"),
        (lambda at: read_dataset("jsonl", at, language="x!"), "is no BCP-47 tag"),
    ],
)
def test_nothing_to_read_is_an_error(
    tmp_path: Path, ask: Callable[[Path], Dataset], reason: str
) -> None:
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(UsageError) as caught:
        ask(tmp_path)
    assert reason in str(caught.value)


def test_every_format_is_in_the_registry() -> None:
    assert sorted(DATASETS) == sorted(
        ["xlbel", "mantra", "pubtator", "wikimed-de-bel", "brat", "bigbio", "jsonl"]
    )
