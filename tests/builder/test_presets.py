"""The catalog and the presets: whole, true to each other, and read without a row set aside."""

import gzip
import json
import re
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bioelx_mcp.errors import UsageError
from bioelx_mcp.index import AliasIndex
from builder.conftest import read_rows
from index_builder.config import PRESETS, BuildConfig, SourceConfig, preset_path
from index_builder.downloads import fetch, plan_downloads, read_catalog, render_plan
from index_builder.pipeline import build_index
from index_builder.sources import REGISTRY

NAMES = sorted(path.stem for path in PRESETS.glob("*.toml") if path.stem != "catalog")

MESH = """<?xml version="1.0"?>
<DescriptorRecordSet LanguageCode = "eng">
<DescriptorRecord DescriptorClass = "1">
 <DescriptorUI>D900001</DescriptorUI><DescriptorName><String>Zolgia</String></DescriptorName>
 <ConceptList><Concept PreferredConceptYN="Y"><ConceptUI>M900001</ConceptUI>
  <TermList><Term IsPermutedTermYN="N"><String>Zolgia</String></Term></TermList>
 </Concept></ConceptList>
</DescriptorRecord>
</DescriptorRecordSet>
"""
ORPHANET = """<?xml version="1.0" encoding="UTF-8"?>
<JDBOR date="2026-06-23 07:53:50"><DisorderList count="1">
 <Disorder id="1"><OrphaCode>900001</OrphaCode><Name lang="en">Zolg syndrome</Name></Disorder>
</DisorderList></JDBOR>
"""


def read_preset(name: str, base: Path) -> BuildConfig:
    return BuildConfig.read(preset_path(name), base)


def fetched(config: BuildConfig) -> list[tuple[SourceConfig, str]]:
    return [(source, entry) for source in config.sources for entry in source.fetch]


def ontology(prefix: str) -> str:
    node = {
        "id": f"http://purl.obolibrary.org/obo/{prefix}_9000001",
        "lbl": "zolgia",
        "type": "CLASS",
        "meta": {"xrefs": [{"val": "UMLS:C9000001"}]},
    }
    return json.dumps({"graphs": [{"nodes": [node], "edges": []}]})


def write_sample(entry: str, path: Path) -> None:
    """A row or two in the format of a catalog's entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if read_catalog()[entry].each:
        path.mkdir()
    if entry.startswith("wikidata"):
        item = '<http://www.wikidata.org/entity/Q1>\t"de"\t"Zolgie"@de\t"9000001"\t"preferred"'
        cui = item.replace("9000001", "C9000001") if entry == "wikidata-umls" else item
        (path / "de.tsv").write_text(f"?item\t?lang\t?name\t?cui\t?kind\n{cui}\n")
    elif entry == "hpo-translations":
        header = "source_language\ttranslation_language\tsubject_id\tpredicate_id\tsource_value"
        label = "en\tde\tHP:9000001\trdfs:label\tZolgia\tZolgie\tOFFICIAL"
        text = f"{header}\ttranslation_value\ttranslation_status\n{label}\n"
        (path / "hp-de.babelon.tsv").write_text(text)
    elif entry == "orphanet":
        (path / "en_product1.xml").write_text(ORPHANET)
    elif entry == "mesh":
        path.write_bytes(gzip.compress(MESH.encode()))
    elif entry == "ncit":
        cells = ["C900001", "<http://x#C900001>", "C900000", "Zolg Neoplasm|Zolgoma", "A tumor."]
        with zipfile.ZipFile(path, "w") as archive:
            cells += ["", "", "Neoplastic Process", ""]
            archive.writestr("Thesaurus.txt", "\t".join(cells) + "\n")
    elif entry.startswith("mondo-"):
        row = "MONDO:9000001\tskos:exactMatch\tUMLS:C9000001"
        path.write_text(f"subject_id\tpredicate_id\tobject_id\n{row}\n")
    else:
        path.write_text(ontology({"hpo": "HP", "mondo": "MONDO", "doid": "DOID"}[entry]))


def test_every_entry_is_read_by_a_source_and_states_its_licence() -> None:
    for name, entry in read_catalog().items():
        assert entry.kind in REGISTRY, name
        assert entry.license, name
        for url in (*entry.url, entry.license_url, entry.homepage):
            assert urlsplit(url).scheme == "https", url
        assert not entry.each or entry.identifier or all("{}" in url for url in entry.url), name


def test_no_two_files_of_the_catalog_share_a_place() -> None:
    files = [w.file for entry in read_catalog().values() for w in entry.wanted(Path())]
    assert len(files) == len(set(files))


def test_the_presets_are_these() -> None:
    assert NAMES == ["open", "umls"]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_reads_public_files_with_the_source_that_they_are_for(
    name: str, tmp_path: Path
) -> None:
    config, catalog = read_preset(name, tmp_path), read_catalog()
    assert config.out.parent == tmp_path
    assert {(s.kind, e) for s, e in fetched(config)} == {
        (catalog[e].kind, e) for _, e in fetched(config)
    }


def test_every_source_of_the_open_preset_reads_its_file_from_a_mirror(tmp_path: Path) -> None:
    config, catalog = read_preset("open", tmp_path), read_catalog()
    for source, entry in fetched(config):
        write_sample(entry, tmp_path / catalog[entry].local)
        rows = read_rows(source.kind, tmp_path / catalog[entry].local, **source.options)
        assert (rows.rejected, rows.read) == ([], 1), entry
        assert rows.concepts or rows.aliases, entry
        if entry == "ncit":
            (concept,) = rows.concepts
            assert concept["concept_id"] == "NCIT:C900001"
            assert (concept["definition"], concept["parents"]) == ("A tumor.", ["NCIT:C900000"])
            kinds = {alias["text"]: alias["kind"] for alias in rows.aliases}
            assert kinds == {"Zolg Neoplasm": "preferred", "Zolgoma": "synonym"}


def test_what_a_mirror_lacks_is_told(tmp_path: Path) -> None:
    config = read_preset("open", tmp_path)
    names = [entry for _, entry in fetched(config)]
    with pytest.raises(
        Exception, match=r"lacks \d+ of \d+ files \(mondo_exactmatch_umls.sssom.tsv, "
    ):
        plan_downloads(names, tmp_path / "cache", tmp_path)
    write_sample("doid", tmp_path / "doid.json")
    plan = plan_downloads(["doid"], tmp_path / "cache", tmp_path)
    found = fetch(plan, lambda done, total, text: None)
    assert found == {"doid": tmp_path / "doid.json"}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_preset_fetches_can_be_told_before(name: str, tmp_path: Path) -> None:
    names = [entry for _, entry in fetched(read_preset(name, tmp_path))]
    text = render_plan(plan_downloads(names, tmp_path / "cache"))
    for entry in names:
        assert f"\n{entry} " in text
    assert "\nto be fetched: about 1." in text
    assert not (tmp_path / "cache").exists()


def test_the_umls_preset_takes_the_release_from_the_command_line(tmp_path: Path) -> None:
    given = [{"kind": "umls", "path": tmp_path / "META"}]
    config = BuildConfig.read(preset_path("umls"), tmp_path, sources=given)
    assert [s.path for s in config.sources if s.kind == "umls"] == [tmp_path / "META"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_preset_comments_out_can_be_taken_in(name: str, tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# (?=\w+ = |\[)", "", preset_path(name).read_text())
    path = tmp_path / "build.toml"
    path.write_text(text.replace('encoder = "starter"', "") if "\n[train]" in text else text)
    whole, preset = BuildConfig.read(path), read_preset(name, tmp_path)
    assert (len(whole.sources), whole.train) != (len(preset.sources), preset.train)


def test_the_open_preset_builds_from_a_mirror_and_is_answered_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror, catalog = tmp_path / "mirror", read_catalog()
    config = read_preset("open", tmp_path).model_copy(update={"mirror": mirror})
    for _, entry in fetched(config):
        path = mirror / catalog[entry].local
        write_sample(entry, path)
        for wanted in catalog[entry].wanted(mirror):
            if not wanted.path.exists():  # one of many: the same rows once more
                wanted.path.write_bytes(next(path.iterdir()).read_bytes())
    manifest = build_index(config)
    told = capsys.readouterr().err
    assert "to be fetched" not in told
    assert f"index: {manifest.index_id} in service" in told
    assert {"de", "en"} <= set(manifest.languages)
    licenses = {card.name: card.licenses for card in manifest.sources}
    assert licenses["HPO"] == ("HPO licence: cite, state the version, do not alter",)
    index = AliasIndex(config.out)
    found = {
        index.concept(int(index.alias_concept[row])).concept_id
        for row in index.search_exact("zolgie")
    }
    assert "UMLS:C9000001" in found  # HP and Mondo meet there
    row = index.find_concept("MONDO:9000001")
    assert row is not None
    assert index.concept(row).concept_id == "UMLS:C9000001"


def test_a_public_file_is_read_by_no_other_kind_of_source(tmp_path: Path) -> None:
    write_sample("doid", tmp_path / "doid.json")
    source = {"kind": "table", "fetch": "doid"}
    data = {"out": tmp_path / "out", "sources": [source], "mirror": tmp_path, "encoder": "starter"}
    with pytest.raises(UsageError, match="fetch: doid is read by kind 'obo', not 'table'"):
        build_index(BuildConfig.parse(data, "options"))
