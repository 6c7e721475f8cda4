"""Wikidata: a dump in any wrapping gives ids by rank and order, names and titles; answers of a query give the same."""

import bz2
import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Alias, Concept
from builder.conftest import Gathered, read, read_rows, refusal
from index_builder.sources import wikidata
from index_builder.sources.formats import reading, sparql
from index_builder.sources.formats.sparql import sparql_query


def statement(value: object, rank: str = "normal", snaktype: str = "value") -> dict[str, Any]:
    snak: dict[str, Any] = {"snaktype": snaktype, "datatype": "external-id"}
    if snaktype == "value":
        snak["datavalue"] = {"value": value, "type": "string"}
    return {"mainsnak": snak, "type": "statement", "rank": rank}


def texts(**values: str) -> dict[str, dict[str, str]]:
    codes = {code.replace("_", "-"): value for code, value in values.items()}
    return {code: {"language": code, "value": value} for code, value in codes.items()}


def entity(qid: str, claims: dict[str, list[Any]], **parts: Any) -> dict[str, Any]:
    """An entity as the dump writes it; an item without labels and the like has empty objects."""
    empty: dict[str, Any] = {"labels": {}, "descriptions": {}, "aliases": {}, "sitelinks": {}}
    for claim, statements in claims.items():
        for one in statements:
            one["mainsnak"]["property"] = claim
    return {"type": "item", "id": qid, **empty, **parts, "claims": claims}


def titles(**sites: str) -> dict[str, dict[str, Any]]:
    return {site: {"site": site, "title": title, "badges": []} for site, title in sites.items()}


FEVER = entity(
    "Q900000001",
    {"P2892": [statement("C9900001")], "P486": [statement("D990001")]},
    labels=texts(en="red fever", de="Rotfieber", zh_hant="紅熱"),
    descriptions=texts(en="A fever that is red.", de="Ein Fieber."),
    aliases={"en": [{"language": "en", "value": "the red one"}]},
    sitelinks=titles(
        enwiki="Red fever (disease)",
        dewiki="Rotfieber",
        be_x_oldwiki="Чырвоная гарачка",
        commonswiki="Category:Red fever",
        enwikiquote="Red fever",
    ),
)
PLAIN = entity("Q900000002", {"P31": [statement("Q5")]}, labels=texts(en="somebody"))


def lines(*entities: object) -> list[str]:
    return [json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in entities]


def dump(path: Path, *entities: object) -> Path:
    """A dump as Wikidata publishes it: an array with a line for each entity."""
    path.write_text("[\n" + ",\n".join(lines(*entities)) + "\n]\n", encoding="utf-8")
    return path


def gathered(tmp_path: Path, *entities: object, **options: Any) -> Gathered:
    return read_rows("wikidata", dump(tmp_path / "dump.json", *entities), **options)


def ids(found: Gathered) -> list[str]:
    return [concept["concept_id"] for concept in found.concepts]


def names(found: Gathered) -> list[tuple[str, str, str, str]]:
    columns = ("text", "language", "kind", "source")
    return [tuple(alias[column] for column in columns) for alias in found.aliases]


# The dump


def test_an_item_gives_its_concept_and_its_labels_aliases_and_titles(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump.json", PLAIN, FEVER)
    concept, *aliases = read("wikidata", path)
    assert concept == Concept(
        "UMLS:C9900001",
        "",
        definition="A fever that is red.",
        xrefs=("WIKIDATA:Q900000001", "MESH:D990001"),
        popularity=3,
    )
    expected = [
        ("red fever", "en", "preferred", "wikidata"),
        ("Rotfieber", "de", "preferred", "wikidata"),
        ("紅熱", "zh-Hant", "preferred", "wikidata"),
        ("the red one", "en", "synonym", "wikidata"),
        ("Red fever", "en", "synonym", "wikipedia"),
        ("Чырвоная гарачка", "be-tarask", "synonym", "wikipedia"),
    ]
    assert aliases == [
        Alias("UMLS:C9900001", text, language, kind, source, "CC0-1.0")  # type: ignore[arg-type]
        for text, language, kind, source in expected
    ]
    found = read_rows("wikidata", path)
    assert [a["disambiguation"] for a in found.aliases] == ["", "", "", "", "disease", ""]
    assert found.concepts[0]["exact"] == ["MESH:D990001"]
    assert {row["line"] for row in (*found.aliases, *found.concepts)} == {3}
    assert (found.read, found.rejected) == (2, [])


def pack_zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".zst", pack_zstd),
    ],
    ids=["plain", "gz", "bz2", "zst"],
)
@pytest.mark.parametrize(
    ("ending_of_layout", "layout"),
    [
        (".json", "[\n{},\n{}\n]\n"),
        (".json", "[\r\n{},\r\n{}\r\n]\r\n"),
        (".json", "[{},\n{}]"),
        (".jsonl", "{}\n{}\n"),
        (".json", "{}\n{}"),
    ],
    ids=["array", "windows", "tight-array", "lines", "no-last-newline"],
)
def test_every_layout_and_compression_gives_the_same(
    tmp_path: Path,
    ending: str,
    pack: Callable[[bytes], bytes],
    ending_of_layout: str,
    layout: str,
) -> None:
    path = tmp_path / f"wikidata{ending_of_layout}{ending}"
    path.write_bytes(pack(layout.format(*lines(FEVER, PLAIN)).encode()))
    found = read_rows("wikidata", path)
    assert (ids(found), len(found.aliases), found.read) == (["UMLS:C9900001"], 6, 2)
    assert found.rejected == []


def test_blocks_of_any_size_give_the_same_rows_with_the_same_line_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [
        entity(f"Q{n}", {"P486": [statement(f"D{n}")]}, labels=texts(en=f"name {n}"))
        if n % 3
        else PLAIN
        for n in range(1, 60)
    ]
    whole = gathered(tmp_path, *many)
    assert [c["line"] for c in whole.concepts] == [n + 1 for n in range(1, 60) if n % 3]
    for size in (50, 700, 5000):
        monkeypatch.setattr(wikidata, "_DUMP_BYTES", size)
        assert read_rows("wikidata", tmp_path / "dump.json") == whole
    assert whole.read == 59


def test_an_item_with_several_cuis_is_a_concept_of_each(tmp_path: Path) -> None:
    claims = {
        "P2892": [statement("C9900001"), statement("C9900002"), statement("C9900001")],
        "P486": [statement("D990001")],
    }
    found = gathered(tmp_path, entity("Q1", claims, labels=texts(en="red fever", de="Rotfieber")))
    assert ids(found) == ["UMLS:C9900001", "UMLS:C9900002"]
    for concept in found.concepts:
        assert concept["xrefs"] == ["WIKIDATA:Q1", "MESH:D990001"]
        assert concept["exact"] == [], "which of the two it is, nobody says"
    assert [(a["concept_id"][-1], a["text"]) for a in found.aliases] == [
        ("1", "red fever"),
        ("1", "Rotfieber"),
        ("2", "red fever"),
        ("2", "Rotfieber"),
    ]


def test_the_first_property_of_the_list_names_the_concept(tmp_path: Path) -> None:
    claims = {
        "P685": [statement("990001")],
        "P5270": [statement("MONDO_0990001")],
        "P494": [statement("Z99.0"), statement("Z99.1")],
    }
    item = entity("Q1", claims, labels=texts(en="red fever"))
    found = gathered(tmp_path, item)
    assert ids(found) == ["MONDO:0990001"]
    others = ["WIKIDATA:Q1", "ICD10:Z99.0", "ICD10:Z99.1", "NCBITaxon:990001"]
    assert found.concepts[0]["xrefs"] == others
    assert found.concepts[0]["exact"] == []
    turned = gathered(tmp_path, item, properties={"P685": "TAX", "P5270": "MONDO"})
    assert ids(turned) == ["TAX:990001"]
    assert turned.concepts[0]["xrefs"] == ["WIKIDATA:Q1", "MONDO:0990001"]
    assert turned.concepts[0]["exact"] == ["MONDO:0990001"]
    assert gathered(tmp_path, item, properties={"P1": "X"}).concepts == []


def test_only_one_to_one_ids_of_chosen_vocabularies_mean_the_same(tmp_path: Path) -> None:
    claims = {
        "P2892": [statement("C9900001")],
        "P486": [statement("D990001"), statement("D990002")],
        "P699": [statement("DOID:990001")],
        "P492": [statement("990001")],
    }
    item = entity("Q1", claims)
    assert gathered(tmp_path, item).concepts[0]["exact"] == ["DOID:990001"]
    chosen = gathered(tmp_path, item, exact=["OMIM"])
    assert chosen.concepts[0]["exact"] == ["OMIM:990001"]
    assert gathered(tmp_path, item, exact=[]).concepts[0]["exact"] == []


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([statement("C9900001", "deprecated"), statement("C9900002")], ["UMLS:C9900002"]),
        ([statement("C9900001"), statement("C9900002", "preferred")], ["UMLS:C9900002"]),
        ([statement("C9900001", "deprecated")], []),
        ([statement("", snaktype="somevalue"), statement("C9900002")], ["UMLS:C9900002"]),
        ([statement("", "preferred", "novalue"), statement("C9900002")], []),
    ],
)
def test_deprecated_values_and_those_below_the_best_rank_do_not_count(
    tmp_path: Path, statements: list[Any], expected: list[str]
) -> None:
    found = gathered(tmp_path, entity("Q1", {"P2892": statements}, labels=texts(en="red fever")))
    assert ids(found) == expected
    assert bool(found.aliases) == bool(expected)


def test_a_value_that_is_no_id_is_set_aside_and_the_next_property_counts(tmp_path: Path) -> None:
    claims = {"P2892": [statement("see below")], "P486": [statement("D990001")]}
    found = gathered(tmp_path, PLAIN, entity("Q1", claims))
    assert ids(found) == ["MESH:D990001"]
    assert found.counts == {"identifier makes no CURIE": 1}
    assert found.rejected[0].where == f"{tmp_path / 'dump.json'}:3"
    assert "see below" in found.rejected[0].row


def test_no_name_is_given_twice_and_brackets_of_a_title_go_to_the_name_that_is_there(
    tmp_path: Path,
) -> None:
    item = entity(
        "Q1",
        {"P486": [statement("D990001")]},
        labels=texts(en="Mercure", fr="Mercure", nb="Merkur", mul="Mercure"),
        aliases={"en": [{"value": "Mercure"}, {"value": " "}, {"value": "quick one"}]},
        sitelinks=titles(enwiki="Mercure (metal)", nowiki="Merkur", simplewiki="Mercure"),
    )
    found = gathered(tmp_path, item)
    assert names(found) == [
        ("Mercure", "en", "preferred", "wikidata"),
        ("Mercure", "fr", "preferred", "wikidata"),
        ("Merkur", "no", "preferred", "wikidata"),
        ("Mercure", "", "preferred", "wikidata"),  # `mul`: in all languages
        ("quick one", "en", "synonym", "wikidata"),
    ]
    assert [a["disambiguation"] for a in found.aliases] == ["metal", "", "", "", ""]
    assert found.concepts[0]["popularity"] == 3


def test_only_language_editions_of_wikipedia_are_counted_and_named(tmp_path: Path) -> None:
    others = "commons species meta wikidata sources mediawiki incubator foundation outreach".split()
    editions = "en zh_min_nan be_x_old bat_smg simple zh_yue war".split()
    sites = {f"{site}wiki": f"{site} title" for site in (*others, *editions)}
    sites |= {f"en{project}": "no title" for project in ("wikiquote", "wiktionary", "wikivoyage")}
    item = entity("Q1", {"P486": [statement("D990001")]}, sitelinks=titles(**sites))
    found = gathered(tmp_path, item)
    assert found.concepts[0]["popularity"] == len(editions)
    tags = ["en", "nan", "be-tarask", "sgs", "en", "yue", "war"]
    assert [a["language"] for a in found.aliases] == tags


def test_languages_choose_names_and_keep_those_for_all_languages(tmp_path: Path) -> None:
    item = entity(
        "Q1",
        {"P486": [statement("D990001")]},
        labels=texts(en="a", de="b", pt_br="c", mul="d", de_at="e", fr="f"),
        sitelinks=titles(ptwiki="g", frwiki="h"),
    )
    found = gathered(tmp_path, item, languages=["pt", "de-AT"])
    assert [a["text"] for a in found.aliases] == ["c", "d", "e", "g"]
    assert found.concepts[0]["popularity"] == 2


def test_a_language_that_is_none_goes_on_to_be_reported(tmp_path: Path) -> None:
    item = entity("Q1", {"P486": [statement("D990001")]}, labels=texts(nonsense="a"))
    assert gathered(tmp_path, item).aliases[0]["language"] == "nonsense"
    assert gathered(tmp_path, item, languages=["de"]).aliases[0]["language"] == "nonsense"


def test_blanks_around_json_and_empty_lists_for_empty_objects_are_read(tmp_path: Path) -> None:
    item = entity("Q1", {"P486": [statement("D990001")]}, aliases=[], sitelinks=[], descriptions=[])
    text = json.dumps(item, separators=(", ", " : "))
    (tmp_path / "dump.json").write_text(f"[\n  {text} ,\n  {text}\n]\n")
    found = read_rows("wikidata", tmp_path / "dump.json")
    assert ids(found) == ["MESH:D990001"] * 2
    assert found.concepts[0]["definition"] == ""


def test_a_property_that_only_a_reference_or_a_text_names_gives_nothing(tmp_path: Path) -> None:
    source = {"snaks": {"P2892": [statement("C9900001")["mainsnak"]]}}
    claim = {**statement("Q5"), "references": [source]}
    item = entity("Q1", {"P31": [claim]}, labels=texts(en='"P2892":'))
    found = gathered(tmp_path, item)
    assert (found.concepts, found.aliases, found.rejected, found.read) == ([], [], [], 1)


def test_bad_lines_are_set_aside_with_their_numbers_and_the_others_read(tmp_path: Path) -> None:
    good, other = lines(FEVER, PLAIN)
    bad = [
        good[:-10],  # cut
        good + good,  # two in a line
        json.dumps({"claims": {"P2892": []}}),
        json.dumps({"id": "Q1", "claims": {"P2892": [{"rank": "normal"}]}}),
        json.dumps(["P2892", {"P2892": 1}]),
        json.dumps({**FEVER, "labels": {"en": {"value": 5}}}),
        other[:-10],  # without one of our properties nobody looks
    ]
    body = ",\n".join([good, *bad]).encode() + b',\n{"P2892":"\xff"},\n' + good.encode()
    (tmp_path / "dump.json").write_bytes(b"[\n" + body + b"\n]\n")
    found = read_rows("wikidata", tmp_path / "dump.json")
    assert ids(found) == ["UMLS:C9900001"] * 2
    assert found.counts == {"broken JSON": 4, "not an entity of Wikidata": 3}
    assert [int(r.where.rpartition(":")[2]) for r in found.rejected] == [3, 4, 5, 6, 7, 8, 10]
    assert [c["line"] for c in found.concepts] == [2, 11]
    assert found.read == 10


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_a_dump_cut_short_gives_what_comes_before(tmp_path: Path, ending: str) -> None:
    some = [
        entity(f"Q{n}", {"P486": [statement(f"D{n}")]}, labels=texts(en=f"{n**9:x}"))
        for n in range(1, 4000)
    ]
    data = ("[\n" + ",\n".join(lines(*some)) + "\n]\n").encode()
    packs: dict[str, Callable[[bytes], bytes]] = {"bz2": bz2.compress, "zst": pack_zstd}
    packed = packs.get(ending, gzip.compress)(data)
    path = tmp_path / f"dump.json.{ending}"
    path.write_bytes(packed[: -len(packed) // 20])
    found = read_rows("wikidata", path)
    assert 0 < len(found.concepts) < len(some) or ending == "bz2"  # it has one block of 900 kB
    assert sum(found.counts.values()) == 1
    assert "cut short" in found.rejected[0].reason


# Answers of a query

MARKED = (
    "?item\t?lang\t?name\t?cui\n"
    '<http://www.wikidata.org/entity/Q1>\t"en"\t"red fever"@en\t"C9900001"\n'
    '<http://www.wikidata.org/entity/Q1>\t"pt-br"\t"febre \\"vermelha\\""@pt-br\t"C9900001"\n'
    '<http://www.wikidata.org/entity/Q1>\t"de"\t"das "rote" Fieber"@de\t"C9900001"\n'
    '<http://www.wikidata.org/entity/Q2>\t"mul"\t"\\u0416\\t\\\\"@mul\t"C9900002"\n'
)
BARE = (
    "item\tlang\tname\tcui\n"
    "http://www.wikidata.org/entity/Q1\ten\tred fever\tC9900001\n"
    'http://www.wikidata.org/entity/Q1\tpt-br\tfebre "vermelha"\tC9900001\n'
    'http://www.wikidata.org/entity/Q1\tde\tdas "rote" Fieber\tC9900001\n'
    "Q2\tmul\tЖ\\\tC9900002\n"
)
ROWS = [
    ("Q1", "en", "red fever", "C9900001"),
    ("Q1", "pt-br", 'febre "vermelha"', "C9900001"),
    ("Q1", "de", 'das "rote" Fieber', "C9900001"),
    ("Q2", "mul", "Ж\\", "C9900002"),
]
OBJECTS = [
    {"item": f"http://www.wikidata.org/entity/{item}", "lang": lang, "name": name, "cui": cui}
    for item, lang, name, cui in ROWS
]
BINDINGS = [
    {
        "item": {"type": "uri", "value": row["item"]},
        "lang": {"type": "literal", "value": row["lang"]},
        "name": {"xml:lang": row["lang"], "type": "literal", "value": row["name"]},
        "cui": {"type": "literal", "value": row["cui"]},
    }
    for row in OBJECTS
]
RESULTS = {"head": {"vars": ["item", "lang", "name", "cui"]}, "results": {"bindings": BINDINGS}}
ANSWERS = {
    "marked.tsv": MARKED,
    "bare.tsv": BARE,
    "no-language.tsv": "\n".join(
        "\t".join(line.split("\t")[i] for i in (3, 0, 2)) for line in MARKED.splitlines()
    ),
    "results.json": json.dumps(RESULTS),
    "pretty.json": json.dumps(RESULTS, indent=2),
    "objects.json": json.dumps(OBJECTS, ensure_ascii=False),
    "verbose.json": json.dumps(BINDINGS),
    "bom.tsv": "\ufeff" + BARE,
    "results.txt": json.dumps(RESULTS),  # the name does not matter
    "windows.tsv": BARE.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", ANSWERS)
def test_every_form_of_an_answer_gives_the_same(tmp_path: Path, name: str, packed: bool) -> None:
    data = ANSWERS[name].encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read_rows("wikidata", path)
    assert [
        (a["concept_id"], a["text"].replace("\t", ""), a["language"]) for a in found.aliases
    ] == [
        ("UMLS:C9900001", "red fever", "en"),
        ("UMLS:C9900001", 'febre "vermelha"', "pt-BR"),
        ("UMLS:C9900001", 'das "rote" Fieber', "de"),
        ("UMLS:C9900002", "Ж\\", ""),
    ]
    assert {(a["kind"], a["source"], a["license"]) for a in found.aliases} == {
        ("synonym", "wikidata", "CC0-1.0")
    }
    xrefs = [(c["concept_id"], c["xrefs"]) for c in found.concepts]
    assert xrefs == [("UMLS:C9900001", ["WIKIDATA:Q1"]), ("UMLS:C9900002", ["WIKIDATA:Q2"])]
    assert (found.read, found.rejected) == (4, [])


def test_an_answer_may_tell_labels_from_aliases_and_carry_ids_of_another_property(
    tmp_path: Path,
) -> None:
    path = tmp_path / "answer.tsv"
    path.write_text(
        "item\tlang\tname\tcui\tkind\n"
        "Q1\ten\tred fever\tD990001\tpreferred\n"
        "Q1\ten\tfever that is red\tD990001\tsynonym\n"
        "Q1\tde\tRotfieber\tMESH:D990001\t\n"
        "no item\tde\tBlauhusten\tD990002\tother\n"
    )
    found = read_rows("wikidata", path, prefix="MESH", languages=["en", "de"])
    assert ids(found) == ["MESH:D990001", "MESH:D990002"]
    assert [c["xrefs"] for c in found.concepts] == [["WIKIDATA:Q1"], []]
    kinds = ["preferred", "synonym", "synonym", "synonym"]
    assert [a["kind"] for a in found.aliases] == kinds
    assert len(read_rows("wikidata", path, prefix="MESH", languages=["en"]).aliases) == 2


def test_a_directory_of_answers_is_read_in_the_order_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 60)  # every block of TSV brings its header
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "2.tsv").write_text(BARE)
    (answers / "1.json.gz").write_bytes(gzip.compress(json.dumps(RESULTS).encode()))
    (answers / "3.tsv").write_text("item\tlang\tname\tcui\n")
    (answers / "readme.md").write_text("no answer")
    dump(answers / "4.json", FEVER)
    found = read_rows("wikidata", answers)
    lines_of = [alias["line"] for alias in found.aliases]
    assert lines_of == [1, 2, 3, 4, 2, 3, 4, 5, *[2] * 6]
    assert found.read == 9
    source = wikidata.WikidataSource(path=answers)
    places = [block.position for block in source.blocks()]
    sizes = [(answers / name).stat().st_size for name in ("1.json.gz", "2.tsv", "3.tsv", "4.json")]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (sizes[0], sum(sizes))


def test_bad_rows_of_an_answer_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "answer.tsv"
    path.write_bytes(
        BARE.encode()
        + b"Q3\ten\tonly three\n"
        + b"Q3\ten\t\tC9900003\n"
        + b"Q3\ten\t\xff\xfe\tC9900003\n"
        + b"Q3\ten\tnonsense\tsee below\n"
        + b"\n"
        + b"Q3\ten\tgreen rash\tC9900003\n"
    )
    found = read_rows("wikidata", path)
    assert found.counts == {
        "too few or too many fields": 1,
        "no name or no identifier": 1,
        "not UTF-8": 1,
        "identifier makes no CURIE": 1,
    }
    assert [r.where for r in found.rejected] == [f"{path}:{line}" for line in (6, 7, 8, 9)]
    assert found.aliases[-1]["line"] == 11
    assert found.read == 9


def test_marks_that_are_no_text_stay_as_they_are() -> None:
    cells = {
        r'"a\ud800b"@en': (r"a\ud800b", "en"),
        r'"\U0001F600\q\n"': ("😀\\q\n", ""),
        r'"\UFFFFFFFF"': (r"\UFFFFFFFF", ""),
        '"7"^^<http://www.w3.org/2001/XMLSchema#integer>': ("7", ""),
        "7": ("7", ""),
        '"': ('"', ""),
        "": ("", ""),
    }
    assert {cell: sparql._unmarked(cell) for cell in cells} == cells


def test_an_answer_in_json_that_is_cut_short_gives_its_whole_rows(tmp_path: Path) -> None:
    text = json.dumps(RESULTS)
    (tmp_path / "cut.json").write_text(text[: text.index("Q2")])
    found = read_rows("wikidata", tmp_path / "cut.json")
    assert len(found.aliases) == 3
    assert "the answer is cut short: what comes after is lost" in found.counts
    packed = gzip.compress(json.dumps(RESULTS, indent=1).encode())
    (tmp_path / "cut.json.gz").write_bytes(packed[:-20])
    found = read_rows("wikidata", tmp_path / "cut.json.gz")
    assert found.aliases
    assert any("compressed file is cut short" in reason for reason in found.counts)


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.json", "", {}, "neither a JSON dump of Wikidata nor the answer"),
        ("a.tsv", "id\tname\n1\ta\n", {}, r"it begins b'id\tname"),
        ("a.json", '{"head": {"vars": []}}', {}, "no SPARQL JSON results"),
        ("a.json", '{"head": {}, "results": {"bindings": [1]}}', {}, "no SPARQL JSON results"),
        (
            "a.json",
            '{"head": {}, "results": {"bindings": [ java.util.concurrent.TimeoutException',
            {},
            "ask again, for less at a time, or for TSV",
        ),
        ("a.json", "[]", {"properties": {}}, "at least one"),
        ("a.json", "[]", {"properties": {"Q5": "X"}}, "'Q5' is none; they look like P2892"),
        ("a.json", "[]", {"properties": {"P5": "X:"}}, "'X:' is no prefix"),
        ("a.json", "[]", {"prefix": ""}, "'' is no prefix"),
        ("a.json", "[]", {"language": "en"}, "language"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], said: str
) -> None:
    (tmp_path / name).write_text(content)
    message = refusal("wikidata", tmp_path / name, **options)
    assert said in message
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    assert "no .json, .jsonl or .tsv file" in refusal("wikidata", tmp_path)
    assert "no such file" in refusal("wikidata", tmp_path / "none.json")


def test_an_empty_dump_is_empty(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text("[\n]\n")
    assert read_rows("wikidata", tmp_path / "dump.json") == Gathered()


def test_the_source_goes_to_other_processes_and_knows_its_date(tmp_path: Path) -> None:
    path = dump(tmp_path / "wikidata-20260105-all.json", FEVER)
    source = pickle.loads(pickle.dumps(wikidata.WikidataSource(path=path)))
    assert len(pickle.dumps(source)) < 2000
    assert source.versions() == {"Wikidata": "2026-01-05"}
    assert wikidata.WikidataSource(path=tmp_path / "latest-all.json").versions() == {}
    (block,) = source.blocks()
    assert source.read(block).concepts().num_rows == 1


# The query


def test_the_query_asks_for_labels_and_aliases_of_a_property() -> None:
    query = sparql_query()
    assert "SELECT ?item ?lang ?name ?cui ?kind" in query
    assert "?item wdt:P2892 ?cui ." in query
    assert "rdfs:label ?name" in query
    assert "skos:altLabel ?name" in query
    assert "FILTER" not in query
    assert "LIMIT" not in query


def test_the_query_keeps_to_languages_with_their_variants_and_to_a_part() -> None:
    query = sparql_query("P486", ["pt", "NB", "zh_Hant"], limit=5000, offset=10_000)
    assert (
        'FILTER(?lang IN ("mul", "pt", "no", "nb", "zh-hant") || STRSTARTS(?lang, "pt-") || '
        in query
    )
    part = "{ SELECT ?item ?cui WHERE { ?item wdt:P486 ?cui . } ORDER BY ?item ?cui LIMIT 5000 OFFSET 10000 }"
    assert part in query
    assert "ORDER BY ?item ?cui OFFSET 5 }" in sparql_query(offset=5)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("2892",), {}, "property '2892'"),
        (('P1 ?x . }"',), {}, "a Wikidata property is wanted"),
        (("P2892", ["nonsense"]), {}, "'nonsense' is no BCP-47 tag"),
        (("P2892", ["mul"]), {}, "'mul' is no BCP-47 tag"),
        ((), {"limit": -1}, "must not be negative"),
    ],
)
def test_a_query_for_what_is_none_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        sparql_query(*arguments, **options)
