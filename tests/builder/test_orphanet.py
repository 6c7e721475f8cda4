from pathlib import Path

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, read_rows, refusal

EXACT = "E (Exact mapping: the two concepts are equivalent)"
NARROWER = "NTBT (ORPHAcode is narrower than the targeted code used to represent it)"


def product(*disorders: str, encoding: str = "UTF-8") -> str:
    return f"""<?xml version="1.0" encoding="{encoding}"?>
<JDBOR date="2026-06-23 07:53:50" version="1.3.42 / 4.1.8 [2026-06-23] (orientdb version)" copyright="Orphanet (c) 2026">
  <Availability>
    <Licence>
      <FullName lang="en">Creative Commons Attribution 4.0 International</FullName>
    </Licence>
  </Availability>
  <DisorderList count="{len(disorders)}">
{"".join(disorders)}  </DisorderList>
</JDBOR>
"""


def reference(
    source: str, number: str, exact: bool = True, validated: bool = True, language: str = "en"
) -> str:
    relation = ("21527", EXACT) if exact else ("21541", NARROWER)
    status = ("21611", "Validated") if validated else ("21618", "Not yet validated")
    return f"""        <ExternalReference id="1">
          <Source>{source}</Source>
          <Reference>{number}</Reference>
          <DisorderMappingRelation id="{relation[0]}">
            <Name lang="{language}">{relation[1]}</Name>
          </DisorderMappingRelation>
          <DisorderMappingICDRelation/>
          <DisorderMappingValidationStatus id="{status[0]}">
            <Name lang="{language}">{status[1]}</Name>
          </DisorderMappingValidationStatus>
        </ExternalReference>
"""


def disorder(
    code: str,
    name: str,
    *synonyms: str,
    language: str = "en",
    references: str = "",
    definition: str = "",
    flags: tuple[int, ...] = (1,),
    moved_to: str = "",
) -> str:
    spoken = "".join(f'<Synonym lang="{language}">{text}</Synonym>' for text in synonyms)
    raised = "".join(
        f'<DisorderFlag id="475"><Value>{flag}</Value><Label></Label></DisorderFlag>'
        for flag in flags
    )
    moved = f"""<DisorderDisorderAssociationList count="1">
        <DisorderDisorderAssociation>
          <TargetDisorder id="2"><OrphaCode>{moved_to}</OrphaCode><Name lang="{language}">Target</Name></TargetDisorder>
          <RootDisorder id="1" cycle="true"/>
          <DisorderDisorderAssociationType id="21471"><Name lang="{language}">Moved to</Name></DisorderDisorderAssociationType>
        </DisorderDisorderAssociation>
      </DisorderDisorderAssociationList>"""
    return f"""    <Disorder id="17">
      <OrphaCode>{code}</OrphaCode>
      <ExpertLink lang="{language}">http://www.orpha.net/consor/cgi-bin/OC_Exp.php?lng={language}&amp;Expert={code}</ExpertLink>
      <Name lang="{language}">{name}</Name>
      <DisorderFlagList count="1">{raised}</DisorderFlagList>
      <SynonymList count="{len(synonyms)}">{spoken}</SynonymList>
      <DisorderType id="21394"><Name lang="{language}">Disease</Name></DisorderType>
      <ExternalReferenceList count="0">
{references}      </ExternalReferenceList>
      {moved if moved_to else ""}
      <SummaryInformationList count="1">
        <SummaryInformation id="3" lang="{language}">
          <TextSectionList count="1">
            <TextSection id="4" lang="{language}">
              <TextSectionType id="16907"><Name lang="{language}">Definition</Name></TextSectionType>
              <Contents>{definition}</Contents>
            </TextSection>
          </TextSectionList>
        </SummaryInformation>
      </SummaryInformationList>
    </Disorder>
"""


ZOLG = disorder(
    "900001",
    "Zolg syndrome, &quot;type 2&quot;",
    "ZS2",
    "Zolg-Marb disease",
    references=reference("UMLS", "C9000001")
    + reference("MONDO", "7800")
    + reference("MeSH", "D900001", exact=False)
    + reference("OMIM", "900100", validated=False)
    + reference("ICD-10", "Q99.9")
    + reference("GARD", "99001"),
    definition="A disease of the &lt;i&gt;zolg&lt;/i&gt; gene.",
)


def test_a_disorder_gives_its_names_definition_and_references(tmp_path: Path) -> None:
    path = tmp_path / "en_product1.xml"
    path.write_text(product(ZOLG))
    concept, *aliases = read("orphanet", path, name="Orphanet")
    assert concept == Concept(
        concept_id="ORPHA:900001",
        preferred_name='Zolg syndrome, "type 2"',
        definition="A disease of the zolg gene.",
        xrefs=("MESH:D900001", "OMIM:900100", "GARD:99001"),
    )
    rest = ("Orphanet", "CC-BY-4.0")
    assert aliases == [
        Alias("ORPHA:900001", 'Zolg syndrome, "type 2"', "en", "preferred", *rest),
        Alias("ORPHA:900001", "ZS2", "en", "synonym", *rest),
        Alias("ORPHA:900001", "Zolg-Marb disease", "en", "synonym", *rest),
    ]


def test_what_orphanet_calls_exact_and_validated_merges(tmp_path: Path) -> None:
    path = tmp_path / "en_product1.xml"
    path.write_text(product(ZOLG))
    (row,) = read_rows("orphanet", path).concepts
    assert row["exact"] == ["UMLS:C9000001", "MONDO:0007800", "ICD10:Q99.9"]


def test_a_directory_is_read_in_all_its_languages_english_first(tmp_path: Path) -> None:
    german = disorder(
        "900001", "Zolg-Syndrom", "Morbus Zolg", language="de", definition="Eine Krankheit."
    )
    (tmp_path / "de_product1.xml").write_text(product(german, encoding="utf-8"))
    (tmp_path / "en_product1.xml").write_text(product(ZOLG))
    (tmp_path / "en_product4.xml").write_text("<JDBOR/>")
    rows = read_rows("orphanet", tmp_path)
    assert [(r["preferred_name"], r["definition"]) for r in rows.concepts] == [
        ('Zolg syndrome, "type 2"', "A disease of the zolg gene."),
        ("", "Eine Krankheit."),
    ]
    german_names = [
        (r["text"], r["kind"], r["rank"]) for r in rows.aliases if r["language"] == "de"
    ]
    assert german_names == [("Zolg-Syndrom", "translation", 1), ("Morbus Zolg", "translation", 0)]


def test_a_file_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "fr_product1.xml"
    french = product(
        disorder("900001", "Maladie du zolg élevé", language="fr"), encoding="ISO-8859-1"
    )
    path.write_bytes(french.encode("latin-1"))
    (alias,) = read_rows("orphanet", path).aliases
    assert (alias["text"], alias["language"]) == ("Maladie du zolg élevé", "fr")


def test_an_inactive_entry_is_answered_for_by_what_it_moved_to(tmp_path: Path) -> None:
    path = tmp_path / "en_product1.xml"
    moved = disorder("900002", "Old zolg", flags=(8192, 256, 1), moved_to="900001")
    gone = disorder("900003", "Older zolg", flags=(8192,))
    path.write_text(product(moved, gone, disorder("900001", "Zolg")))
    rows = read_rows("orphanet", path)
    assert [(r["concept_id"], r["preferred_name"], r["alt_ids"]) for r in rows.concepts] == [
        ("ORPHA:900001", "", ["ORPHA:900002"]),
        ("ORPHA:900001", "Zolg", []),
    ]
    assert [r["text"] for r in rows.aliases] == ["Zolg"]
    assert rows.read == 3


def test_broken_and_empty_records_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "en_product1.xml"
    broken = disorder("900002", "Broken & alone")
    path.write_text(product(broken, disorder("", "No code"), disorder("900001", "Zolg")))
    rows = read_rows("orphanet", path)
    assert [r["concept_id"] for r in rows.concepts] == ["ORPHA:900001"]
    assert [(r.reason, r.where) for r in rows.rejected] == [
        ("no XML", f"{path}:9"),
        ("without an OrphaCode or a name", f"{path}:{9 + broken.count(chr(10))}"),
    ]


def test_a_directory_without_the_product_is_refused(tmp_path: Path) -> None:
    (tmp_path / "en_product4.xml").write_text("<JDBOR/>")
    assert refusal("orphanet", tmp_path) == f"source {tmp_path}: holds no *_product1.xml"
    (tmp_path / "en_product1.xml").write_text("<JDBOR/>")
    assert "holds no <Disorder>" in refusal("orphanet", tmp_path)
