import gzip
from pathlib import Path

import pytest

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, read_rows, refusal
from index_builder.sources.mesh import MeshSource

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE DescriptorRecordSet SYSTEM "https://www.nlm.nih.gov/databases/dtd/nlmdescriptorrecordset_20250101.dtd">
<DescriptorRecordSet LanguageCode = "eng">
"""
TAIL = "</DescriptorRecordSet>\n"


def term(text: str, permuted: str = "N") -> str:
    return f"""    <Term  ConceptPreferredTermYN="N"  IsPermutedTermYN="{permuted}"  LexicalTag="NON"  RecordPreferredTermYN="N">
     <TermUI>T999</TermUI>
     <String>{text}</String>
    </Term>
"""


ZOLGIA = f"""<DescriptorRecord DescriptorClass = "1">
  <DescriptorUI>D900001</DescriptorUI>
  <DescriptorName>
   <String>Zolgia, Acute</String>
  </DescriptorName>
  <AllowableQualifiersList>
   <AllowableQualifier>
    <QualifierReferredTo>
     <QualifierUI>Q000145</QualifierUI>
     <QualifierName>
      <String>classification</String>
     </QualifierName>
    </QualifierReferredTo>
   </AllowableQualifier>
  </AllowableQualifiersList>
  <PharmacologicalActionList>
   <PharmacologicalAction>
    <DescriptorReferredTo>
     <DescriptorUI>D900077</DescriptorUI>
    </DescriptorReferredTo>
   </PharmacologicalAction>
  </PharmacologicalActionList>
  <TreeNumberList>
   <TreeNumber>C95.100.200</TreeNumber>
   <TreeNumber>C96.300</TreeNumber>
  </TreeNumberList>
  <ConceptList>
   <Concept PreferredConceptYN="Y">
    <ConceptUI>M900001</ConceptUI>
    <ConceptName>
     <String>Zolgia, Acute</String>
    </ConceptName>
    <RegistryNumberList>
     <RegistryNumber>EC 1.2.3.-</RegistryNumber>
     <RegistryNumber>0</RegistryNumber>
     <RegistryNumber>99999-42-1</RegistryNumber>
     <RegistryNumber>Z0LG1A9XYZ</RegistryNumber>
    </RegistryNumberList>
    <ScopeNote>Pain of the zolg &amp; its
    coverings.
    </ScopeNote>
    <ConceptRelationList>
     <ConceptRelation RelationName="NRW">
     <Concept1UI>M900001</Concept1UI>
     <Concept2UI>M900002</Concept2UI>
     </ConceptRelation>
     <ConceptRelation RelationName="NRW">
     <Concept1UI>M900003</Concept1UI>
     <Concept2UI>M900001</Concept2UI>
     </ConceptRelation>
     <ConceptRelation RelationName="REL">
     <Concept1UI>M900001</Concept1UI>
     <Concept2UI>M900004</Concept2UI>
     </ConceptRelation>
    </ConceptRelationList>
    <TermList>
{term("Zolgia, Acute")}{term("Acute Zolgia")}{term("Acutes, Zolgia", "Y")}    </TermList>
   </Concept>
   <Concept PreferredConceptYN="N">
    <ConceptUI>M900002</ConceptUI>
    <TermList>
{term("Left Zolgia")}    </TermList>
   </Concept>
   <Concept PreferredConceptYN="N">
    <ConceptUI>M900003</ConceptUI>
    <TermList>
{term("Zolg Disease")}    </TermList>
   </Concept>
   <Concept PreferredConceptYN="N">
    <ConceptUI>M900004</ConceptUI>
    <TermList>
{term("Zolg Discomfort")}    </TermList>
   </Concept>
  </ConceptList>
 </DescriptorRecord>
"""


def descriptor(ui: str, name: str, tree: str = "") -> str:
    numbers = f"<TreeNumberList><TreeNumber>{tree}</TreeNumber></TreeNumberList>" if tree else ""
    return f"""<DescriptorRecord DescriptorClass = "1">
  <DescriptorUI>{ui}</DescriptorUI>
  <DescriptorName><String>{name}</String></DescriptorName>
  {numbers}
  <ConceptList><Concept PreferredConceptYN="Y"><ConceptUI>M{ui}</ConceptUI>
   <TermList>{term(name)}</TermList>
  </Concept></ConceptList>
 </DescriptorRecord>
"""


def write(path: Path, *records: str) -> Path:
    text = HEAD + "".join(records) + TAIL
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_descriptor_gives_its_terms_by_how_their_concepts_stand_to_the_preferred_one(
    tmp_path: Path,
) -> None:
    concept, *aliases = read("mesh", write(tmp_path / "desc2026.gz", ZOLGIA), name="MeSH")
    assert concept == Concept(
        concept_id="MESH:D900001",
        preferred_name="Zolgia, Acute",
        definition="Pain of the zolg & its coverings.",
        xrefs=("EC:1.2.3.-", "CAS:99999-42-1", "UNII:Z0LG1A9XYZ"),
    )
    rest = ("MeSH", "NLM MeSH terms")
    assert aliases == [
        Alias("MESH:D900001", "Zolgia, Acute", "en", "preferred", *rest),
        Alias("MESH:D900001", "Acute Zolgia", "en", "synonym", *rest),
        Alias("MESH:D900001", "Left Zolgia", "en", "narrow", *rest),
        Alias("MESH:D900001", "Zolg Disease", "en", "broad", *rest),
        Alias("MESH:D900001", "Zolg Discomfort", "en", "related", *rest),
    ]


def test_parents_are_the_descriptors_one_tree_number_up_wherever_they_stand_in_the_file(
    tmp_path: Path,
) -> None:
    after = descriptor("D900009", "Zolg Diseases", "C95.100")
    path = write(tmp_path / "desc2026.xml", ZOLGIA, after, descriptor("D900010", "Pain", "C96"))
    parents = {row["concept_id"]: row["parents"] for row in read_rows("mesh", path).concepts}
    assert parents == {
        "MESH:D900001": ["MESH:D900009", "MESH:D900010"],
        "MESH:D900009": [],
        "MESH:D900010": [],
    }


def test_supplementary_records_are_read_with_their_note_as_definition(tmp_path: Path) -> None:
    path = tmp_path / "supp2026.xml"
    path.write_text(f"""<?xml version="1.0"?>
<!DOCTYPE SupplementalRecordSet SYSTEM "https://www.nlm.nih.gov/databases/dtd/nlmsupplementalrecordset_20250101.dtd">
<SupplementalRecordSet LanguageCode = "eng">
<SupplementalRecord SCRClass = "1">
  <SupplementalRecordUI>C900002</SupplementalRecordUI>
  <SupplementalRecordName><String>bevozolium</String></SupplementalRecordName>
  <Note>structure given in first source
  </Note>
  <HeadingMappedToList><HeadingMappedTo><DescriptorReferredTo>
   <DescriptorUI>*D900001</DescriptorUI>
   <DescriptorName><String>Zolgia, Acute</String></DescriptorName>
  </DescriptorReferredTo></HeadingMappedTo></HeadingMappedToList>
  <ConceptList><Concept PreferredConceptYN="Y"><ConceptUI>M900044</ConceptUI>
   <ConceptName><String>bevozolium</String></ConceptName>
   <TermList>{term("bevozolium")}{term("ZB 12")}</TermList>
  </Concept></ConceptList>
</SupplementalRecord>
</SupplementalRecordSet>
""")
    concept, *aliases = read("mesh", path)
    assert isinstance(concept, Concept)
    assert (concept.concept_id, concept.definition) == (
        "MESH:C900002",
        "structure given in first source",
    )
    texts = [(a.text, a.kind) for a in aliases if isinstance(a, Alias)]
    assert texts == [("bevozolium", "preferred"), ("ZB 12", "synonym")]


def test_a_broken_record_is_set_aside_alone_with_its_line(tmp_path: Path) -> None:
    broken = descriptor("D900002", "Broken").replace("</DescriptorName>", "")
    latin = descriptor("D900003", "M\udce9lange")
    nameless = descriptor("D900005", "")
    text = HEAD + ZOLGIA + broken + latin + descriptor("D900004", "Whole") + nameless + TAIL
    path = tmp_path / "desc2026.xml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    rows = read_rows("mesh", path)
    assert [row["concept_id"] for row in rows.concepts] == ["MESH:D900001", "MESH:D900004"]
    assert rows.read == 5
    first, second, third = rows.rejected
    line = (HEAD + ZOLGIA).count("\n") + 1
    assert (first.reason, first.where) == ("no XML", f"{path}:{line}")
    assert first.row.startswith("<DescriptorRecord")
    assert second.reason == "no XML"
    assert third.reason == "without an id, a name or a concept"


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    path = tmp_path / "desc2026.xml"
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
    record = descriptor("D900001", "&b;")
    path.write_text(f"<?xml version='1.0'?>{bomb}<DescriptorRecordSet>{record}{TAIL}")
    rows = read_rows("mesh", path)
    assert (rows.concepts, dict(rows.counts)) == ([], {"no XML": 1})


def test_a_truncated_file_gives_the_records_before_and_one_row_set_aside(tmp_path: Path) -> None:
    plain = write(
        tmp_path / "plain.xml", descriptor("D900001", "One"), descriptor("D900002", "Two")
    )
    plain.write_bytes(plain.read_bytes()[: -len(TAIL) - 40])
    rows = read_rows("mesh", plain)
    assert [row["concept_id"] for row in rows.concepts] == ["MESH:D900001"]
    assert dict(rows.counts) == {"the file ends inside a record": 1}

    many = [descriptor(f"D9{n:05}", f"Name {n} {n * 7919}") for n in range(300)]
    packed = write(tmp_path / "packed.gz", *many)
    packed.write_bytes(packed.read_bytes()[:-2000])
    rows = read_rows("mesh", packed)
    assert 100 < len(rows.concepts) < 300
    assert sum(rows.counts.values()) == 1


def test_blocks_are_cut_between_records_and_come_again_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "desc.xml", *(descriptor(f"D9{n:05}", f"N {n}") for n in range(40)))
    whole = read_rows("mesh", path)
    monkeypatch.setattr("index_builder.sources.formats.reading.BLOCK_BYTES", 1000)
    blocks = list(MeshSource(path=path).blocks())
    assert blocks == list(MeshSource(path=path).blocks())
    assert len(blocks) > 5
    assert read_rows("mesh", path) == whole
    lines = path.read_text().split("\n")
    assert len(whole.concepts) == 40
    for row in whole.concepts:
        assert lines[row["line"] - 1].startswith("<DescriptorRecord ")
        assert row["concept_id"].removeprefix("MESH:") in lines[row["line"]]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "desc2026.xml"
    path.write_text("<html><body>Please accept the terms</body></html>\n")
    assert refusal("mesh", path) == (
        f"source {path}: holds no <DescriptorRecord> and no <SupplementalRecord>"
    )


def test_the_year_is_in_the_name_of_the_file(tmp_path: Path) -> None:
    assert MeshSource(path=tmp_path / "desc2026.gz", name="MeSH").versions() == {"MeSH": "2026"}
    assert MeshSource(path=tmp_path / "mesh.xml").versions() == {}
