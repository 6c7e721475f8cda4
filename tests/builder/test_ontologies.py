"""Ontologies: OBO text and OBO Graph JSON give the same, and broken files are refused."""

import gzip
import json
from pathlib import Path

import pytest

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, refusal
from index_builder.sources import Rejects

OBO = r"""format-version: 1.4
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
is_a: MADE:0000003 ! parent

[Term]
id: MADE:0000002
name: old fever
is_obsolete: true

[Term]
id: OTHER:1
name: imported

[Term]
id: MADE:0000004
comment: nameless

[Typedef]
id: part_of
name: part of
"""
FEVER = Concept(
    "MADE:0000001",
    "red, fever",
    ("made_diseases",),
    'Hot "and" red.\nVery.',
    ("UMLS:C0000001", "MESH:D1"),
    ("MADE:0000009",),
)
GRAPH = {
    "graphs": [
        {
            "nodes": [
                {
                    "id": "http://purl.obolibrary.org/obo/MADE_0000001",
                    "lbl": "red, fever",
                    "type": "CLASS",
                    "meta": {
                        "definition": {"val": 'Hot "and" red.\nVery.'},
                        "synonyms": [
                            {"pred": "hasExactSynonym", "val": 'fever "red"'},
                            {"pred": "hasRelatedSynonym", "val": "hot rash"},
                            {"pred": "hasBroadSynonym", "val": "hot"},
                            {"pred": "hasNarrowSynonym", "val": "red fever of the toe"},
                            {"pred": "hasOtherSynonym", "val": "plain"},
                        ],
                        "xrefs": [{"val": "UMLS_CUI:C0000001"}, {"val": "MESH:D1"}],
                        "basicPropertyValues": [
                            {
                                "pred": "http://x.org/oboInOwl#hasOBONamespace",
                                "val": "made_diseases",
                            },
                            {
                                "pred": "http://x.org/oboInOwl#hasAlternativeId",
                                "val": "MADE:0000009",
                            },
                        ],
                    },
                },
                {"id": "http://x.org/MADE_0000002", "lbl": "old", "meta": {"deprecated": True}},
                {"id": "http://x.org/OTHER_1", "lbl": "imported", "type": "CLASS"},
                {"id": "http://x.org/MADE_0000004", "type": "CLASS"},
                {"id": "http://x.org/part_of", "lbl": "part of", "type": "PROPERTY"},
            ]
        }
    ]
}


@pytest.mark.parametrize("ending", ["obo", "obo.gz", "json", "json.gz"])
def test_an_ontology_gives_its_living_terms_with_synonyms_of_the_wanted_scopes(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"made.{ending}"
    text = OBO if ending.startswith("obo") else json.dumps(GRAPH)
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    rejects = Rejects()
    records = read("obo", path, rejects, license="CC0-1.0", prefixes=["MADE:"])
    names = [("red, fever", "preferred"), ('fever "red"', "synonym"), ("hot rash", "synonym")]
    names += [("plain", "synonym")]
    assert records == [
        FEVER,
        *(Alias("MADE:0000001", text, "en", kind, "made", "CC0-1.0") for text, kind in names),  # type: ignore[arg-type]
    ]
    assert rejects.counts == {"term without a name": 1}
    broad = read("obo", path, scopes=["BROAD", "NARROW"], language="de", prefixes=["OTHER", "MADE"])
    assert [(a.text, a.language) for a in broad if isinstance(a, Alias)] == [
        ("red, fever", "de"),
        ("hot", "de"),
        ("red fever of the toe", "de"),
        ("imported", "de"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.obo", b"[Term]\nid: A:1\nname without a colon\n", "cannot be read as OBO"),
        ("a.obo", b"format-version: 1.4\n\n[Term]\nname: no id\n", "cannot be read as OBO"),
        ("a.obo", b"format-version: 1.4\nontology: a\n", "no term in it"),
        ("a.obo", b"format-version: \xff\n", "cannot be read as OBO"),
        ("a.obo.gz", b"no gzip", "cannot be read as OBO"),
        ("a.json", b'{"graphs": ', "cannot be read as OBO Graph"),
        ("a.json", b"[]", "cannot be read as OBO Graph"),
        ("a.json", b'{"graphs": []}', "no term in it"),
        (
            "a.json.gz",
            gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 40,
            "cannot be read as OBO Graph",
        ),
        ("a.owl", b"<rdf/>", "an ontology ends in .obo or .json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_ontology_is_a_usage_error(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in (message := refusal("obo", tmp_path / name))
    assert "\n" not in message
    assert str(tmp_path / name) in message
