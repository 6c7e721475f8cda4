"""Translations: Babelon tables and ROBOT's synonym templates, by status, language and how exact they are."""

import gzip
from pathlib import Path

import pytest
from conftest import write_tsv

from builder.conftest import Gathered, read_rows, refusal

COLUMNS = (
    *("source_language", "translation_language", "subject_id", "predicate_id"),
    *("source_value", "translation_value", "translation_status"),
)
ROWS = [
    ("MADE:1", "rdfs:label", "red fever", "rotes Fieber", "OFFICIAL"),
    ("MADE:1", "oboInOwl:hasExactSynonym", "RF", '"Fieber, ""rot"""', "CANDIDATE"),
    ("MADE:1", "oio:hasRelatedSynonym", "hot rash", "heißer Ausschlag", "CANDIDATE"),
    ("MADE:1", "oio:broadSynonym", "fever", "Fieber", "official"),
    ("MADE:1", "hasNarrowSynonym", "toe fever", "Zehenfieber", ""),
    ("MADE:1", "IAO:0000115", "A fever.", "Ein Fieber.", "OFFICIAL"),
    ("MADE:2", "rdfs:label", "cold", 'kalt "wie Eis"', "UNDER_REVIEW"),
    ("MADE:3", "rdfs:label", "toe", "NA", "NOT_TRANSLATED"),
    ("MADE:4", "rdfs:label", "nose", "", "OFFICIAL"),
]
BABELON = "\n".join(map("\t".join, [COLUMNS, *(("en", "de", *row) for row in ROWS)])) + "\n"
CZECH = [
    ["subject_id", "translation_value", "note", "comment"],
    ["ID", "AL oboInOwl:hasExactSynonym@cs SPLIT=;", "", ""],
    ["MADE:1", "horečka; teplo", " about fever", "OFFICIAL"],
    ["MADE:1", "RF|RF", "seen", "CANDIDATE"],
    ["MADE:2", "cold", "", "NOT_TRANSLATED"],
    ["MADE:3", "prst", "", "a comment"],
]
TEMPLATE = "\n".join(map("\t".join, CZECH)) + "\n"


def told(rows: Gathered) -> list[tuple[str, str, str, str]]:
    return [(row["concept_id"], row["text"], row["language"], row["kind"]) for row in rows.aliases]


def test_babelon_gives_names_of_the_wanted_status_and_skips_what_is_no_name(tmp_path: Path) -> None:
    path = tmp_path / "made-de.babelon.tsv"
    path.write_text(BABELON)
    rows = read_rows("translations", path, license="L")
    assert told(rows) == [
        ("MADE:1", "rotes Fieber", "de", "translation"),
        ("MADE:1", 'Fieber, "rot"', "de", "translation"),
        ("MADE:1", "heißer Ausschlag", "de", "related"),
        ("MADE:1", "Fieber", "de", "broad"),
        ("MADE:1", "Zehenfieber", "de", "narrow"),
    ]
    assert {(row["source"], row["license"]) for row in rows.aliases} == {("made-de", "L")}
    assert [row["line"] for row in rows.aliases] == [2, 3, 4, 5, 6]
    assert (rows.read, rows.rejected, rows.concepts) == (9, [], [])
    wider = read_rows("translations", path, statuses=["UNDER_REVIEW"])
    assert told(wider) == [
        ("MADE:1", "Zehenfieber", "de", "narrow"),
        ("MADE:2", 'kalt "wie Eis"', "de", "translation"),
    ]


def test_the_translated_names_are_taken_too_where_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(BABELON)
    rows = read_rows("translations", path, source_names=True)
    assert [one[1:] for one in told(rows) if one[2] == "en"] == [
        ("red fever", "en", "synonym"),
        ("RF", "en", "synonym"),
        ("hot rash", "en", "related"),
        ("fever", "en", "broad"),
        ("toe fever", "en", "narrow"),
        ("cold", "en", "synonym"),
        ("toe", "en", "synonym"),
        ("nose", "en", "synonym"),
    ]


def test_a_translation_that_is_not_exact_says_how_it_stands_to_the_concept(tmp_path: Path) -> None:
    head = ["subject_id", "predicate_id", "translation_language", "translation_value"]
    cells = ("EXACT", "CLOSE", "BROADER", "NARROWER", "")
    table = [["MADE:1", "rdfs:label", "ja", f"名{n}", cell] for n, cell in enumerate(cells)]
    path = write_tsv(tmp_path / "a.tsv", [[*head, "translation_precision"], *table])
    kinds = [row["kind"] for row in read_rows("translations", path).aliases]
    assert kinds == ["translation", "related", "broad", "narrow", "translation"]


def test_a_synonym_template_gives_every_name_of_a_cell_in_the_language_of_its_second_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "made-cs.synonyms.tsv"
    path.write_text(TEMPLATE)
    rows = read_rows("translations", path)
    assert told(rows) == [
        ("MADE:1", "horečka", "cs", "translation"),
        ("MADE:1", "teplo", "cs", "translation"),
        ("MADE:1", "RF|RF", "cs", "translation"),
        ("MADE:3", "prst", "cs", "translation"),
    ]
    template = [
        "ID",
        ">AI oboInOwl:hasSynonymType",
        "AL 'has related synonym'@fr",
        "AL rdfs:label@fr",
    ]
    header = ["id", "kind", "one", "two"]
    path = write_tsv(tmp_path / "b.tsv", [header, template, ["MADE:1", "lay", "a|b", "NA"]])
    rows = read_rows("translations", path)
    assert told(rows) == [("MADE:1", "a", "fr", "related"), ("MADE:1", "b", "fr", "related")]


def test_a_name_that_reads_like_a_template_does_not_make_one(tmp_path: Path) -> None:
    cells = ("en", "de", "MADE:1", "rdfs:label", "ID", "GB", "")
    path = write_tsv(tmp_path / "a.tsv", [COLUMNS, cells])
    assert told(read_rows("translations", path)) == [("MADE:1", "GB", "de", "translation")]


def test_a_directory_gives_all_its_tables_under_one_name(tmp_path: Path) -> None:
    directory = tmp_path / "made-translations"
    directory.mkdir()
    (directory / "b.synonyms.tsv").write_text(TEMPLATE)
    (directory / "a.babelon.tsv.gz").write_bytes(gzip.compress(BABELON.rstrip().encode()))
    (directory / "README.md").write_text("not a table")
    rows = read_rows("translations", directory, statuses=["OFFICIAL"])
    assert [one[2] for one in told(rows)] == ["de"] * 3 + ["cs"] * 3
    assert {row["source"] for row in rows.aliases} == {"made-translations"}


def test_a_bad_row_is_set_aside_with_file_line_and_reason(tmp_path: Path) -> None:
    good = BABELON.splitlines()
    lines = [*good[:2], "en\tde\tMADE:1\trdfs:label\tred fever", "", good[2] + "\tx", good[3]]
    data = "\n".join([*lines, good[2].replace("CANDIDATE", "PERHAPS")]).encode()
    path = tmp_path / "a.babelon.tsv"
    path.write_bytes(data + b"\nen\tde\tMADE:9\trdfs:label\tcaf\xe9\tx\tOFFICIAL\n")
    rows = read_rows("translations", path)
    assert [one[1] for one in told(rows)] == ["rotes Fieber", "heißer Ausschlag"]
    assert [(one.reason, one.where) for one in rows.rejected] == [
        ("another number of fields than the header", f"{path}:3"),
        ("another number of fields than the header", f"{path}:5"),
        ("unknown translation_status", f"{path}:7"),
        ("not UTF-8", f"{path}:8"),
    ]
    assert rows.rejected[3].row == "en\tde\tMADE:9\trdfs:label\tcaf\\xe9\tx\tOFFICIAL"
    assert rows.read == 6


def test_a_table_that_was_cut_short_gives_the_rows_before_the_cut(tmp_path: Path) -> None:
    head, *_ = BABELON.splitlines()
    body = [f"en\tde\tMADE:{n}\trdfs:label\tn\tname {n * 7919 % 104729}\t" for n in range(3000)]
    whole = gzip.compress("\n".join([head, *body]).encode())
    path = tmp_path / "a.babelon.tsv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    rows = read_rows("translations", path)
    assert 100 < len(rows.aliases) < 2900
    assert all("cut short" in reason for reason in rows.counts)
    assert rows.counts.total() == 1


def test_what_is_no_table_of_translations_is_a_usage_error(tmp_path: Path) -> None:
    assert "holds no *.babelon.tsv and no *.synonyms.tsv" in refusal("translations", tmp_path)
    path = write_tsv(tmp_path / "a.tsv", [["subject_id", "name"], ["MADE:1", "x"]])
    assert f"{path}: no column 'predicate_id'; it has subject_id, name" in refusal(
        "translations", path
    )
    (tmp_path / "b.tsv").write_bytes(b"")
    assert "it has nothing that can be read" in refusal("translations", tmp_path / "b.tsv")
    path.write_text(BABELON)
    assert "statuses" in refusal("translations", path, statuses=["official"])
    assert "statuses" in refusal("translations", path, statuses=[])


@pytest.mark.parametrize("line", ["", "# made by hand\n"])
def test_lines_of_metadata_may_stand_before_the_header(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\ufeff" + line + BABELON)
    assert len(read_rows("translations", path).aliases) == 5
