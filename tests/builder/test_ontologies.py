"""Ontologies: OBO text and OBO Graph JSON give the same; what is broken in one costs a term, not the file."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import Gathered, read, read_rows, refusal
from index_builder.config import SourceConfig
from index_builder.sources import open_source

OBO = r"""format-version: 1.4
data-version: made/2026-01-02
ontology: made

[Term]
id: MADE:0000001
name: red\, fever
namespace: made_diseases
alt_id: MADE:0000009
def: "Hot \"and\" red.\nVery." [MADE:me]
synonym: "fever \"red\"" EXACT ABBREVIATION [] {source="x"}
synonym: "hot rash" RELATED []
synonym: "hot" BROAD []
synonym: "red fever of the toe" NARROW []
synonym: "plain" []
xref: UMLS_CUI:C0000001
xref: MESH:D1 {source="MADE:1"} ! comment
property_value: skos:exactMatch MESH:D000001 {source="MADE:1"}
property_value: made:weight "heavy" xsd:string
is_a: MADE:0000003 {source="x"} ! parent
is_a: uncategorized
relationship: part_of MADE:0000003 with a word too many

[Term]
id: MADE:0000002
name: old fever
is_obsolete: true
replaced_by: MADE:0000005

[Term]
id: OTHER:1
name: imported

[Term]
id: MADE:0000004
comment: nameless

[Term]
id: MADE:0000005
name: older fever
is_obsolete: true
replaced_by: MADE:0000001

[Term]
id: MADE:0000006
name: fever of no use
is_obsolete: true
consider: MADE:0000001

[Typedef]
id: part_of
name: part of
"""
HOME = "http://purl.obolibrary.org/obo/"
OWL = "http://x.org/oboInOwl#"


def node(number: int, name: str, **meta: Any) -> dict[str, Any]:
    address = f"{HOME}MADE_{number:07}"
    return {"id": address, "lbl": name, "type": "CLASS", "meta": meta}


def said(**values: str | list[str]) -> dict[str, Any]:
    """Properties of a node, by the end of their addresses."""
    items = {name: [v] if isinstance(v, str) else v for name, v in values.items()}
    pairs = [{"pred": OWL + name, "val": value} for name, vs in items.items() for value in vs]
    return {"basicPropertyValues": pairs}


def is_a(child: int, parent: str) -> dict[str, str]:
    return {"sub": f"{HOME}MADE_{child:07}", "pred": "is_a", "obj": HOME + parent}


GRAPH = {
    "graphs": [
        {
            "id": HOME + "made.owl",
            "meta": {"version": "made/2026-01-02"},
            "nodes": [
                node(
                    1,
                    "red, fever",
                    definition={"val": 'Hot "and" red.\nVery.'},
                    synonyms=[
                        {"pred": "hasExactSynonym", "val": 'fever "red"'},
                        {"pred": "hasRelatedSynonym", "val": "hot rash"},
                        {"pred": "hasBroadSynonym", "val": "hot"},
                        {"pred": "hasNarrowSynonym", "val": "red fever of the toe"},
                        {"pred": "hasOtherSynonym", "val": "plain"},
                    ],
                    xrefs=[{"val": " UMLS_CUI:C0000001"}, {"val": "MESH:D1"}],
                    **said(
                        hasOBONamespace="made_diseases",
                        hasAlternativeId="MADE:0000009",
                        exactMatch="MESH:D000001",
                        weight="heavy",
                    ),
                ),
                node(2, "old fever", deprecated=True, **said(IAO_0100001=HOME + "MADE_0000005")),
                {"id": HOME + "OTHER_1", "lbl": "imported"},
                {"id": HOME + "MADE_0000004", "type": "CLASS", "meta": {"comments": ["nameless"]}},
                node(5, "older fever", deprecated=True, **said(IAO_0100001="MADE:0000001")),
                node(6, "fever of no use", **said(reason_for_obsolescence="consider MADE:1")),
                {"id": HOME + "MADE_0000007"},
                {"id": HOME + "part_of", "lbl": "part of", "type": "PROPERTY"},
            ],
            "edges": [
                is_a(1, "MADE_0000003"),
                is_a(1, "made#Thing"),
                {**is_a(1, "MADE_0000008"), "pred": HOME + "BFO_0000050"},
            ],
        },
        {"nodes": [node(1, "red fever, imported back")]},
    ]
}
FEVER = Concept(
    "MADE:0000001",
    "red, fever",
    ("made_diseases",),
    'Hot "and" red.\nVery.',
    ("UMLS_CUI:C0000001", "MESH:D1"),
    ("MADE:0000009", "MADE:0000002", "MADE:0000005"),
    ("MADE:0000003",),
)


def stanza(identifier: str, name: str, *lines: str) -> str:
    return "\n".join(["[Term]", f"id: {identifier}", f"name: {name}", *lines, "", ""])


def written(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".bz2":
        data = bz2.compress(data)
    path.write_bytes(data)
    return path


def names(rows: Gathered) -> list[str]:
    return [row["text"] for row in rows.aliases]


@pytest.mark.parametrize("ending", ["obo", "obo.gz", "obo.bz2", "json", "json.gz"])
def test_an_ontology_gives_its_living_terms_with_synonyms_of_the_wanted_scopes(
    tmp_path: Path, ending: str
) -> None:
    text = OBO if ending.startswith("obo") else json.dumps(GRAPH)
    path = written(tmp_path / f"made.{ending}", text)
    rows = read_rows("obo", path, prefixes=["MADE"])
    assert [(row["text"], row["kind"]) for row in rows.aliases] == [
        ("red, fever", "preferred"),
        ('fever "red"', "synonym"),
        ("hot rash", "related"),
        ("plain", "related"),
    ]
    assert rows.concepts[0]["exact"] == ["MESH:D000001"]
    assert rows.counts == {"term without a name": 1}
    assert rows.read == (6 if ending.startswith("obo") else 9)
    only = read(
        "obo", path, scopes=["NARROW"], unscoped="NARROW", prefixes=["made:"], language="de"
    )
    assert [a.text for a in only if isinstance(a, Alias)] == [
        "red, fever",
        "red fever of the toe",
        "plain",
    ]
    assert {a.language for a in only if isinstance(a, Alias)} == {"de"}
    everything = read_rows("obo", path, name="n", license="CC0-1.0")
    assert "imported" in names(everything)
    assert {(row["source"], row["license"]) for row in everything.aliases} == {("n", "CC0-1.0")}


@pytest.mark.parametrize("ending", ["obo", "json"])
def test_a_term_has_its_definition_references_and_every_id_that_it_replaces(
    tmp_path: Path, ending: str
) -> None:
    path = written(tmp_path / f"made.{ending}", OBO if ending == "obo" else json.dumps(GRAPH))
    assert read("obo", path, prefixes=["MADE"])[0] == FEVER


def test_the_end_of_a_chain_of_replacements_takes_the_ids_and_a_cycle_is_set_aside(
    tmp_path: Path,
) -> None:
    def obsolete(number: int, *replaced_by: str) -> str:
        lines = ["is_obsolete: true", *(f"replaced_by: {other}" for other in replaced_by)]
        return stanza(f"MADE:{number}", "old", *lines)

    text = stanza("MADE:1", "living") + stanza("MADE:2", "living, too", "replaced_by: MADE:1")
    text += obsolete(3, "MADE:4") + obsolete(4, "MADE:1")  # a chain
    text += obsolete(5, "MADE:6") + obsolete(6, "MADE:5") + obsolete(7, "MADE:7")  # cycles
    text += obsolete(8, "MADE:99") + obsolete(9, "none")  # nowhere
    text += obsolete(10, "MADE:1", "MADE:2") + obsolete(11) + obsolete(12, "MADE:11")  # no one
    rows = read_rows("obo", written(tmp_path / "a.obo", text))
    assert [(row["concept_id"], row["alt_ids"]) for row in rows.concepts] == [
        ("MADE:1", ["MADE:3", "MADE:4"]),
        ("MADE:2", []),
    ]
    assert names(rows) == ["living", "living, too"]
    assert rows.counts == {"cycle of replaced_by": 3, "replaced_by a term that is not there": 2}
    assert [(one.where.rsplit(":", 1)[1], one.row) for one in rows.rejected[:3]] == [
        ("23", "MADE:5 -> MADE:6 -> MADE:5"),
        ("29", "MADE:6 -> MADE:5 -> MADE:6"),
        ("35", "MADE:7 -> MADE:7"),
    ]
    elsewhere = stanza("MADE:1", "living") + obsolete(2, "OTHER:1")
    path = written(tmp_path / "b.obo", elsewhere)
    assert read_rows("obo", path).counts == {"replaced_by a term that is not there": 1}
    assert not read_rows("obo", path, prefixes=["MADE"]).counts


def test_a_broken_stanza_is_set_aside_with_its_line_and_the_others_are_read(tmp_path: Path) -> None:
    parts = [
        b"format-version: 1.4\r\n\r\n",
        b"[Term]\r\nid: MADE:1\r\nname: first\r\n",  # 3: no empty line behind it
        b"[Term]\nid: MADE:2\nname without a colon\n\n",  # 6
        b"[Term]\nname: no id\n\n",  # 10
        b"[Term]\nid: MADE:3\nname: caf\xe9\n\n",  # 13
        b"[Term]\nid: MADE:4\nname: second\ncomment: caf\xe9 is not asked for\n\n",  # 17
        b'[Term]\nid: MADE:5\nname: third\nsynonym: no "quotes" EXACT []\n\n',  # 22
        b"[Term]\nname: second once more\nid: MADE:4\n\n",  # 27
        b"[Term]\nid: no curie\nname: fourth\n\n",  # 31
        b"[Term]\nid: MADE:6\nname: last",
    ]
    rows = read_rows("obo", written(tmp_path / "a.obo", b"".join(parts)))
    assert names(rows) == ["first", "second", "last"]
    assert [(one.reason, one.where.rsplit(":", 1)[1]) for one in rows.rejected] == [
        ("malformed term", "7"),
        ("malformed term", "10"),
        ("not UTF-8", "14"),
        ("malformed term", "23"),
        ("duplicate id", "29"),
        ("id is no CURIE", "32"),
    ]
    assert rows.rejected[2].row == "id: MADE:3\nname: caf\\xe9\n"
    assert rows.read == 9


def test_a_broken_node_is_set_aside_and_the_others_are_read(tmp_path: Path) -> None:
    nodes = [
        node(1, "first"),
        node(2, "second", synonyms=[{"pred": "hasExactSynonym"}]),
        node(3, "third", **said(hasAlternativeId=[])),
        node(3, "third once more"),
        {**node(4, "fourth"), "lbl": ["fourth"]},
        {**node(5, "fifth"), "lbl": "fi\udcffth"},
        {"lbl": "nobody"},
        "no node",
        {"id": ["MADE:6"], "lbl": "sixth"},
    ]
    edges = [is_a(1, "MADE_0000003"), {"pred": "is_a", "sub": 1, "obj": 2}, {"pred": "is_a"}, None]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"graphs": [{"nodes": nodes, "edges": edges}]}))
    rows = read_rows("obo", path)
    assert names(rows) == ["first", "third"]
    assert rows.read == len(nodes) + 3
    assert rows.counts == {
        "malformed term": 5,
        "malformed edge": 3,
        "duplicate id": 1,
        "not UTF-8": 1,
    }
    raw = json.dumps({"graphs": [{"nodes": [node(1, "first"), node(2, "sec#nd")]}]}).encode()
    rows = read_rows("obo", written(path, raw.replace(b"#", b"\xff")))
    assert (names(rows), rows.counts) == (["first"], {"not UTF-8": 1})


def test_a_graph_of_edges_alone_gives_the_hierarchy_of_terms_named_elsewhere(
    tmp_path: Path,
) -> None:
    edges = [is_a(1, "MADE_0000002"), is_a(1, "MADE_0000003"), is_a(2, "MADE_0000003")]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"graphs": [{"nodes": [], "edges": edges}]}))
    assert read("obo", path) == [
        Concept("MADE:0000001", "", parents=("MADE:0000002", "MADE:0000003")),
        Concept("MADE:0000002", "", parents=("MADE:0000003",)),
    ]


def test_an_ontology_that_was_cut_short_gives_the_whole_terms_before_the_cut(
    tmp_path: Path,
) -> None:
    text = "".join(stanza(f"MADE:{n}", f"term {n} {n * 7919 % 104729}") for n in range(2000))
    whole = gzip.compress(text.encode())
    path = tmp_path / "a.obo.gz"
    path.write_bytes(whole[: len(whole) // 2])
    rows = read_rows("obo", path)
    assert 100 < len(rows.concepts) < 1900
    assert len(rows.aliases) == len(rows.concepts)
    (reason,) = rows.counts.elements()
    assert "cut short" in reason
    graph = gzip.compress(json.dumps(GRAPH).encode())
    (tmp_path / "a.json.gz").write_bytes(graph[: len(graph) // 2])
    assert "cut short" in refusal("obo", tmp_path / "a.json.gz")


def test_an_ontology_says_its_version(tmp_path: Path) -> None:
    def versions(name: str, text: str) -> dict[str, str]:
        path = written(tmp_path / name, text)
        return open_source(SourceConfig(kind="obo", path=path)).versions()

    assert versions("a.obo.gz", OBO) == {"a": "made/2026-01-02"}
    assert versions("b.json", json.dumps(GRAPH)) == {"b": "made/2026-01-02"}
    meta = {"meta": {**said(versionInfo="3.1"), "version": "http://x.org/made"}}
    assert versions("c.json", json.dumps({"graphs": [meta]})) == {"c": "3.1"}
    assert versions("d.obo", "format-version: 1.2\n") == {}
    assert versions("e.json", '{"graphs": []}') == {}
    assert versions("f.json", '{"graphs": [{"meta": {"basicPropertyValues": [1]}}]}') == {}
    assert versions("g.obo", "") == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.obo", b"format-version: 1.4\nontology: a\n", "no term in it"),
        ("a.obo", b"[Term]\nname: no id\n", "no term in it"),
        ("a.obo.gz", b"no gzip", "cut short"),
        ("a.json", b'{"graphs": ', "cannot be read as OBO Graph"),
        ("a.json", b"[]", "cannot be read as OBO Graph"),
        ("a.json", b'{"graphs": [1]}', "cannot be read as OBO Graph"),
        ("a.json", b'{"graphs": [{"nodes": 1}]}', "cannot be read as OBO Graph"),
        ("a.json", b'{"graphs": []}', "no term in it"),
        ("a.owl", b"<rdf/>", "an ontology ends in .obo or .json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_ontology_is_a_usage_error(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in (message := refusal("obo", tmp_path / name))
    assert "\n" not in message
    assert str(tmp_path / name) in message


def test_prefixes_that_no_term_has_are_a_usage_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.obo", OBO)
    assert "no term of HP, MONDO in it" in refusal("obo", path, prefixes=["HP", "MONDO"])
    assert "'M A' is no prefix; one reads like MONDO" in refusal("obo", path, prefixes=["M A"])
