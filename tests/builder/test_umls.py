"""The umls source: every layout of a release, what becomes of its tables, options, and bad rows."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_mcp.schema import Alias, Concept
from builder.conftest import read, read_rows, refusal
from index_builder.config import SourceConfig
from index_builder.sources import open_source
from index_builder.sources.formats import reading

Layout = Callable[[Path], Path]


def atom(
    cui: str,
    text: str,
    status: str = "P|PF|Y",
    *,
    lat: str = "ENG",
    sab: str = "MSH",
    tty: str = "ET",
    code: str = "D900001",
    srl: str = "0",
    suppress: str = "N",
) -> str:
    ts, stt, preferred = status.split("|")
    ids = f"{cui}|{lat}|{ts}|L1|{stt}|S1|{preferred}|A1|||"
    return f"{ids}|{sab}|{tty}|{code}|{text}|{srl}|{suppress}|256|\n"


RELEASE = {
    "MRCONSO.RRF": "".join(
        (
            atom("C9000001", "red fever", sab="MSH", tty="MH"),
            atom("C9000001", "fever, red", "S|VO|N", sab="SNOMEDCT_US", tty="PT", code="990001"),
            atom("C9000001", "RF", "S|PF|Y", sab="NCI", tty="AB", code="C99001", suppress="Y"),
            atom("C9000001", "rubric fever", "S|PF|N", sab="NCI", tty="PT", code="C99001"),
            atom("C9000001", "the old red", sab="SNOMEDCT_US", tty="OAP", suppress="O"),
            atom("C9000001", "rotes Fieber", lat="GER", sab="MDRGER", srl="3"),
            atom("C9000001", "赤い熱", lat="JPN", sab="MDRJPN", srl="3"),
            atom("C9000002", 'a 5" stick', sab="MTH", tty="PN", code="NOCODE"),
            atom("C9000002", "stick", "S|PF|Y", sab="HPO", tty="PT", code="HP:9000002"),
        )
    ),
    "MRSTY.RRF": "C9000001|T047|B2|Disease or Syndrome|AT1||\n"
    "C9000001|T184|||AT2||\nC9000002|T074|||AT3||\n",
    "MRDEF.RRF": "C9000001|A1|AT4||MDRGER|Ein roter.|N||\nC9000001|A1|AT5||NCI|Red one.|N||\n"
    "C9000001|A1|AT6||MSH|Old one.|O||\nC9000002|A1|AT7||MDRGER|Ein Stock.|N||\n",
    "MRCUI.RRF": "C9000008|2001AA|SY|||C9000002|Y|\nC9000009|2001AA|RB|||C9000002|Y|\n"
    "C9000007|2001AA|DEL||||N|\n",
    "MRRANK.RRF": "0400|MSH|MH|N|\n0300|SNOMEDCT_US|PT|N|\n0200|NCI|PT|N|\n0100|NCI|AB|Y|\n",
    "MRSAB.RRF": "".join(
        f"|C1|{sab}_1|{sab}|||{version}|||||||{srl}||||||{lat}|UTF-8|{current}|Y|||\n"
        for sab, version, srl, lat, current in (
            ("MSH", "2029", "0", "ENG", "Y"),
            ("MSH", "2028", "1", "ENG", "N"),
            ("NCI", "", "0", "ENG", "Y"),
            ("MTH", "", "0", "ENG", "Y"),
            ("SNOMEDCT_US", "2029_03", "9", "ENG", "Y"),
            ("MDRGER", "30", "3", "GER", "Y"),
        )
    ),
}


def write(directory: Path, files: dict[str, str] = RELEASE) -> Path:
    """A META directory."""
    meta = directory / "META"
    meta.mkdir(parents=True)
    for name, text in files.items():
        (meta / name).write_text(text, encoding="utf-8")
    return meta


def split(files: dict[str, str]) -> dict[str, bytes]:
    """Compressed, MRCONSO in three parts: cut within a row, and within a gzip member."""
    packed = {f"{name}.gz": gzip.compress(text.encode()) for name, text in files.items()}
    atoms = files["MRCONSO.RRF"].encode()
    del packed["MRCONSO.RRF.gz"]
    joined = gzip.compress(atoms[:100]) + gzip.compress(atoms[100:])
    cuts = {"aa": joined[:30], "ab": joined[30:150], "ac": joined[150:]}
    return packed | {f"MRCONSO.RRF.{part}.gz": data for part, data in cuts.items()}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def in_meta(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"2029AA/META/{name}": data for name, data in files.items()}


def as_parts(directory: Path) -> Path:
    meta = directory / "META"
    meta.mkdir()
    for name, data in split(RELEASE).items():
        (meta / name).write_bytes(data)
    return directory


def as_zip(directory: Path) -> Path:
    plain = {name: text.encode() for name, text in RELEASE.items()}
    (directory / "full.zip").write_bytes(zipped(in_meta(plain), zipfile.ZIP_DEFLATED))
    return directory / "full.zip"


def as_zip_of_parts(directory: Path) -> Path:
    (directory / "full.zip").write_bytes(zipped(in_meta(split(RELEASE))))
    return directory / "full.zip"


def nlm() -> dict[str, bytes]:
    """Two archives, MRCONSO's parts in both, and one without any table."""
    packed = in_meta(split(RELEASE))
    halves: list[dict[str, bytes]] = [{}, {}]
    for number, name in enumerate(sorted(packed)):
        halves[number % 2][name] = packed[name]
    others = {"2029AA/NET/SRDEF": b"STY|T047|\n"}
    return {
        "2029aa-1-meta.nlm": zipped(halves[0]),
        "2029aa-2-meta.nlm": zipped(halves[1], zipfile.ZIP_DEFLATED),
        "2029aa-otherks.nlm": zipped(others),
    }


def as_nlm_in_zip(directory: Path) -> Path:
    members = {f"2029AA-full/{name}": data for name, data in nlm().items()}
    (directory / "full.zip").write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    return directory / "full.zip"


def as_nlm(directory: Path) -> Path:
    inside = directory / "2029AA-full"
    inside.mkdir()
    for name, data in nlm().items():
        (inside / name).write_bytes(data)
    return directory


def as_one_nlm(directory: Path) -> Path:
    (directory / "meta.nlm").write_bytes(zipped(in_meta(split(RELEASE))))
    return directory / "meta.nlm"


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    return write(tmp_path)


def texts(path: Path, **options: Any) -> list[str]:
    return [row["text"] for row in read_rows("umls", path, **options).aliases]


def test_atoms_become_aliases_with_rank_and_licence(meta: Path) -> None:
    kept = ("concept_id", "text", "language", "kind", "source", "license", "rank", "line")
    rows = [tuple(row[name] for name in kept) for row in read_rows("umls", meta).aliases]
    none, snomed, meddra = "UMLS SRL 0", "UMLS SRL 9", "UMLS SRL 3"
    assert rows == [
        ("UMLS:C9000001", "red fever", "ENG", "preferred", "MSH", none, 400, 1),
        ("UMLS:C9000001", "fever, red", "ENG", "synonym", "SNOMEDCT_US", snomed, 300, 2),
        ("UMLS:C9000001", "rubric fever", "ENG", "synonym", "NCI", none, 200, 4),
        ("UMLS:C9000001", "rotes Fieber", "GER", "preferred", "MDRGER", meddra, 0, 6),
        ("UMLS:C9000001", "赤い熱", "JPN", "preferred", "MDRJPN", meddra, 0, 7),
        ("UMLS:C9000002", 'a 5" stick', "ENG", "preferred", "MTH", none, 0, 8),
        ("UMLS:C9000002", "stick", "ENG", "synonym", "HPO", none, 0, 9),
    ]


def test_the_other_tables_describe_concepts(meta: Path) -> None:
    assert [one for one in read("umls", meta) if isinstance(one, Concept)] == [
        # Entry terms, abbreviations and NOCODE give no cross-reference.
        Concept("UMLS:C9000001", "", xrefs=("MESH:D900001", "SNOMEDCT:990001", "NCIT:C99001")),
        Concept("UMLS:C9000002", "", xrefs=("HP:9000002",)),
        Concept("UMLS:C9000001", "", ("Disease or Syndrome", "Sign or Symptom")),
        Concept("UMLS:C9000002", "", ("Medical Device",)),
        # An English definition before another, the only one there is before none.
        Concept("UMLS:C9000001", "", definition="Red one."),
        Concept("UMLS:C9000002", "", definition="Ein Stock."),
        Concept("UMLS:C9000002", "", alt_ids=("UMLS:C9000008",)),
    ]


def test_codes_lose_the_prefix_that_their_vocabulary_writes(tmp_path: Path) -> None:
    codes = {
        ("ORPHANET", "PT"): ("ORPHA99", "ORPHA:99"),
        ("ORPHANET", "PT "): ("Orphanet_99", None),
        ("GO", "PT"): ("GO:0099999", "GO:0099999"),
        ("HGNC", "ACR"): ("HGNC:99", "HGNC:99"),
        ("NCBI", "SCN"): ("99", "NCBITaxon:99"),
        ("RXNORM", "SCD"): ("99", "RXNORM:99"),
        ("LNC", "LN"): ("99-9", "LOINC:99-9"),
        ("OMIM", "PT"): ("MTHU009999", None),
        ("MEDCIN", "PT"): ("99", None),
    }
    atoms = [
        atom("C9000001", "x", sab=sab, tty=tty, code=code)
        for (sab, tty), (code, _) in codes.items()
    ]
    meta = write(tmp_path, {"MRCONSO.RRF": "".join(atoms)})
    (concept,) = read_rows("umls", meta).concepts
    assert concept["xrefs"] == [xref for _, xref in codes.values() if xref]


@pytest.mark.parametrize(
    "layout",
    [as_parts, as_zip, as_zip_of_parts, as_nlm_in_zip, as_nlm, as_one_nlm],
    ids=lambda layout: layout.__name__,
)
def test_every_layout_of_a_release_reads_the_same(
    tmp_path: Path, meta: Path, layout: Layout
) -> None:
    (tmp_path / "other").mkdir()
    path = layout(tmp_path / "other")
    found, expected = read_rows("umls", path), read_rows("umls", meta)
    assert found.aliases == expected.aliases
    assert found.concepts == expected.concepts
    assert found.read == expected.read
    assert not found.rejected


def test_meta_may_lie_below_and_whole_files_go_before_split_ones(tmp_path: Path) -> None:
    meta = write(tmp_path / "2029AA")
    (meta / "MRCONSO.RRF.aa.gz").write_bytes(b"not read")
    (meta / "MRCONSO.RRF.gz").write_bytes(b"not read")
    expected = read_rows("umls", meta).aliases
    assert read_rows("umls", tmp_path / "2029AA").aliases == expected
    assert read_rows("umls", tmp_path).aliases == expected


def test_blocks_say_their_table_and_how_far_the_disk_is_read(
    tmp_path: Path, meta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_rows("umls", meta)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 100)
    for number, layout in enumerate([lambda _: meta, as_parts, as_nlm_in_zip]):
        (tmp_path / str(number)).mkdir()
        path = layout(tmp_path / str(number))
        source = open_source(SourceConfig(kind="umls", path=path))
        blocks = list(source.blocks())
        assert list(source.blocks()) == blocks
        positions = [block.position for block in blocks]
        assert positions == sorted(positions)
        assert 0.9 * source.size < positions[-1] <= source.size
        names = list(dict.fromkeys(Path(block.file).name for block in blocks))
        assert names == [f"{n}.RRF" for n in "MRCONSO MRSTY MRDEF MRCUI MRRANK MRSAB".split()]
        assert len(blocks) > 12
        assert read_rows("umls", path).aliases == whole.aliases


def test_languages_keep_names_and_leave_cross_references(meta: Path) -> None:
    found = read_rows("umls", meta, languages=["de", "ja-JP"])
    assert [row["text"] for row in found.aliases] == ["rotes Fieber"]
    assert found.concepts == read_rows("umls", meta).concepts
    assert texts(meta, languages=["GER", "jpn"]) == ["rotes Fieber", "赤い熱"]


def test_vocabularies_keep_names_references_and_definitions(meta: Path) -> None:
    found = read_rows("umls", meta, vocabularies=["MSH", "MDRGER"])
    assert [row["text"] for row in found.aliases] == ["red fever", "rotes Fieber"]
    assert [xref for row in found.concepts for xref in row["xrefs"]] == ["MESH:D900001"]
    assert [row["definition"] for row in found.concepts if row["definition"]] == [
        "Ein roter.",
        "Ein Stock.",
    ]


def test_suppressible_and_obsolete_rows_come_on_request(meta: Path) -> None:
    assert "RF" in texts(meta, suppressible=True)
    assert "the old red" not in texts(meta, suppressible=True)
    found = read_rows("umls", meta, obsolete=True)
    assert "the old red" in [row["text"] for row in found.aliases]
    assert "RF" not in [row["text"] for row in found.aliases]
    assert "Old one." in [row["definition"] for row in found.concepts]


@pytest.mark.parametrize(
    "options",
    [
        {"semantic_groups": ["DISO"]},
        {"semantic_groups": ["disorders"]},
        {"semantic_types": ["T184"]},
        {"semantic_types": ["Sign or Symptom"]},
        {"semantic_groups": ["GEOG"], "semantic_types": ["t047"]},
    ],
)
def test_a_concept_is_kept_that_has_one_of_the_types(meta: Path, options: dict[str, Any]) -> None:
    found = read_rows("umls", meta, **options)
    assert {row["concept_id"] for row in found.aliases + found.concepts} == {"UMLS:C9000001"}
    assert ["Disease or Syndrome", "Sign or Symptom"] in [
        row["semantic_types"] for row in found.concepts
    ]
    assert found.read == read_rows("umls", meta).read


def test_versions_are_those_of_the_current_vocabularies(meta: Path) -> None:
    source = open_source(SourceConfig(kind="umls", path=meta))
    assert source.versions() == {
        "MDRGER": "30",
        "MSH": "2029",
        "MTH": "MTH_1",
        "NCI": "NCI_1",
        "SNOMEDCT_US": "2029_03",
    }
    config = SourceConfig.model_validate({"kind": "umls", "path": meta, "vocabularies": ["MSH"]})
    assert open_source(config).versions() == {"MSH": "2029"}


def test_mrconso_alone_is_enough(tmp_path: Path) -> None:
    meta = write(tmp_path, {"MRCONSO.RRF": atom("C9000001", "red fever", sab="ANY", srl="4")})
    alias = Alias("UMLS:C9000001", "red fever", "ENG", "preferred", "ANY", "UMLS SRL 4")
    assert read("umls", meta, vocabularies=["ANY"]) == [alias]
    assert read_rows("umls", meta).aliases[0]["rank"] == 0
    assert "no MRSTY" in refusal("umls", meta, semantic_groups=["DISO"])


def test_types_that_are_no_more_keep_the_name_of_the_release(tmp_path: Path) -> None:
    types = "C9000001|T119|A1|Lipid|AT1||\nC9000001|T998|||AT2||\n"
    meta = write(tmp_path, {"MRCONSO.RRF": atom("C9000001", "fat", tty="X"), "MRSTY.RRF": types})
    found = read_rows("umls", meta)
    assert [row["semantic_types"] for row in found.concepts] == [["Lipid"]]
    assert [(one.reason, one.where, one.row) for one in found.rejected] == [
        ("no such semantic type", f"{meta}/MRSTY.RRF:2", "C9000001|T998|")
    ]


def test_bad_rows_are_set_aside_with_their_lines_and_the_others_kept(tmp_path: Path) -> None:
    good = [atom("C9000001", "red"), atom("C9000001", "blue"), atom("C9000002", "blück")]
    short, other = "C9000001|ENG|P|L1|PF|short|N|256|\n", atom("C9X", "no id")
    lines = [good[0], short, good[1], "\n", other, atom("C9000001", "bad \x00 one"), good[2]]
    meta = write(
        tmp_path, RELEASE | {"MRRANK.RRF": "0400|MSH|ET|N|\n0300|NCI|PT|\nlow|NCI|SY|N|\n"}
    )
    data = "".join(lines).encode().replace(b"\x00", b"\xff")
    (meta / "MRCONSO.RRF").write_bytes(data)
    found = read_rows("umls", meta)
    assert [(row["text"], row["line"], row["rank"]) for row in found.aliases] == [
        ("red", 1, 400),
        ("blue", 3, 400),
        ("blück", 7, 400),
    ]
    assert [(one.reason, one.where) for one in found.rejected] == [
        ("not the 18 fields of MRCONSO", f"{meta}/MRCONSO.RRF:2"),
        ("not a CUI", f"{meta}/MRCONSO.RRF:5"),
        ("not UTF-8", f"{meta}/MRCONSO.RRF:6"),
        ("not the 4 fields of MRRANK", f"{meta}/MRRANK.RRF:2"),
    ]
    assert found.rejected[0].row == short.strip()
    assert "bad \\xff one" in found.rejected[2].row
    expected = sum(len(text.splitlines()) for name, text in RELEASE.items() if "MRC" not in name)
    assert found.read == 6 + 3 + expected - len(RELEASE["MRRANK.RRF"].splitlines()) + 3


def test_a_truncated_part_costs_what_is_behind_it_and_one_row(tmp_path: Path) -> None:
    meta = write(tmp_path)
    data = gzip.compress((meta / "MRCONSO.RRF").read_bytes())
    (meta / "MRCONSO.RRF").unlink()
    (meta / "MRCONSO.RRF.aa.gz").write_bytes(data[:100])
    (meta / "MRCONSO.RRF.ab.gz").write_bytes(data[100:-60])
    found = read_rows("umls", meta)
    assert [row["text"] for row in found.aliases][:2] == ["red fever", "fever, red"]
    assert 2 <= len(found.aliases) < 7
    assert found.counts == {reading.CUT_SHORT: 1}
    assert ["Medical Device"] in [row["semantic_types"] for row in found.concepts]


@pytest.mark.parametrize("layout", [as_zip, as_zip_of_parts], ids=["plain", "parts"])
def test_a_broken_member_of_an_archive_is_one_bad_row(tmp_path: Path, layout: Layout) -> None:
    path = layout(tmp_path)
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if "MRDEF" in info.filename)
    place = member.header_offset + 30 + len(member.filename) + 20
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    found = read_rows("umls", path)
    assert (found.counts.total(), found.rejected[0].where.split(":")[0]) == (
        1,
        f"{path}/2029AA/META/MRDEF.RRF",
    )
    assert len(found.aliases) == 7


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="|\n\r")), min_size=1))
def test_a_bad_row_changes_nothing_about_the_others(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    atoms = "".join(atom(f"C{n:07d}", name) for n, name in enumerate(names))
    clean = write(tmp_path_factory.mktemp("clean"), {"MRCONSO.RRF": atoms})
    other = write(tmp_path_factory.mktemp("other"), {"MRCONSO.RRF": atoms + "C9000001|\n"})
    found = read_rows("umls", other)
    assert found.aliases == read_rows("umls", clean).aliases
    assert [row["text"] for row in found.aliases] == names
    assert (found.read, found.counts.total()) == (len(names) + 1, 1)


def test_a_path_without_mrconso_is_refused_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "META").mkdir()
    assert "found: no MR* file" in refusal("umls", tmp_path)
    (tmp_path / "META" / "MRSTY.RRF").write_text("")
    assert "MRCONSO.RRF.gz" in refusal("umls", tmp_path)
    assert "found: MRSTY.RRF" in refusal("umls", tmp_path)
    (tmp_path / "other.zip").write_bytes(zipped({"a/MRCOLS.RRF": b"", "b.txt": b""}))
    assert "found: MRCOLS.RRF" in refusal("umls", tmp_path / "other.zip")
    (tmp_path / "names.txt").write_text("C9000001|ENG|")
    assert "neither a META directory nor" in refusal("umls", tmp_path / "names.txt")
    assert "no such file" in refusal("umls", tmp_path / "nowhere")
    broken = zipped({"2029aa-1-meta.nlm": b"no archive"})
    (tmp_path / "broken.zip").write_bytes(broken)
    assert "not a zip file" in refusal("umls", tmp_path / "broken.zip")


def test_two_releases_and_a_missing_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "2028AA")
    meta = write(tmp_path / "2029AA")
    told = refusal("umls", tmp_path)
    assert str(tmp_path / "2028AA" / "META") in told
    assert str(meta) in told
    parts = as_parts(tmp_path / "2028AA" / "META")
    (parts / "META" / "MRCONSO.RRF.ab.gz").unlink()
    told = refusal("umls", parts / "META")
    assert "MRCONSO.RRF.aa.gz, MRCONSO.RRF.ab.gz should be there; found" in told
    assert told.endswith("found: MRCONSO.RRF.aa.gz, MRCONSO.RRF.ac.gz")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"semantic_types": ["Diseases"]},
            "no semantic type 'Diseases'; near it: Tissue, Disease or Synd",
        ),
        ({"semantic_groups": ["DIS"]}, "no semantic group 'DIS'; there are ACTI"),
        ({"vocabularies": ["SNOMEDCT"]}, "no vocabulary 'SNOMEDCT' in MRSAB; near it: SNOMEDCT_US"),
        ({"vocabularies": ["XYZ"]}, "no vocabulary 'XYZ' in MRSAB; near it: MDRGER, MSH"),
        ({"tables": ["MRREL"]}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_choose_nothing_known_are_refused(
    meta: Path, options: dict[str, Any], told: str
) -> None:
    assert told in refusal("umls", meta, **options)
