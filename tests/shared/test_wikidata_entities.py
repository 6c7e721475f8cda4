"""Real entities of Wikidata: ids, names in hundreds of languages, and nothing set aside."""

from pathlib import Path

import pytest
from builder.conftest import read_rows

from bioelx_mcp.language import normalize_language

pytestmark = pytest.mark.shared


def test_real_entities_give_their_names(shared_data: Path) -> None:
    directory = shared_data / "sources" / "wikidata"
    found = read_rows("wikidata", directory / "entities_dump_style.json")
    assert (found.read, found.rejected) == (10, [])
    concepts = {concept["concept_id"]: concept for concept in found.concepts}
    assert len(concepts) == 11  # Q764 has two CUIs, Q127960 none but a MeSH id
    lion = concepts["UMLS:C0023756"]
    assert lion["xrefs"] == ["WIKIDATA:Q140", "MESH:D008045", "NCBITaxon:9689"]
    assert lion["exact"] == ["MESH:D008045"]
    assert lion["popularity"] > 200
    assert lion["definition"]
    assert concepts["UMLS:C0369241"]["exact"] == concepts["UMLS:C0016832"]["exact"] == []
    assert concepts["MESH:D046009"]["xrefs"] == ["WIKIDATA:Q127960", "NCBITaxon:9688"]
    names = {(a["concept_id"], a["text"], a["language"]): a for a in found.aliases}
    assert len(names) == len(found.aliases) > 2400
    assert names["UMLS:C0023756", "Löwe", "de"]["kind"] == "preferred"
    squirrel = names["UMLS:C1018515", "Eekhoorn", "nl"]
    assert squirrel["disambiguation"] == "zoogdier"
    assert all(normalize_language(language) is not None for _, _, language in names)
    assert {a["source"] for a in found.aliases} == {"wikidata", "wikipedia"}


def test_real_entities_without_biomedical_ids_give_nothing(shared_data: Path) -> None:
    path = shared_data / "sources" / "wikidata" / "entities_without_biomedical_ids.jsonl"
    found = read_rows("wikidata", path)
    assert (found.read, found.concepts, found.aliases, found.rejected) == (6, [], [], [])
