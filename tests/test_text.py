"""Normalisation, grams, ids and marks: what builder and reader must agree on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.text import (
    MAX_GRAMS,
    character_grams,
    mark_mention,
    normalize_alias,
    normalize_concept_id,
    split_disambiguation,
)

# What folds into something else, joins, or is looked up in context.
TRICKY = "aAİıßẞſﬁΣςᾴйЙёЁ́̈ﾊﾟﾞガが한ㄱखि์ָؐش乾隆坤覆蓋麼著、·_-’ \u00a0\u200d\u3000１Ⅳ㎎½悪戱敘滬蕓⿴⾱αμg\u0375øﬀıىیکة٣२\u00ad\u200c\u0640"


@given(st.text() | st.text(st.sampled_from(TRICKY)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_alias(text)
    assert normalize_alias(once) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Diabetes Mellitus", "DIABETES mellitus"),
        ("  type-2 diabetes,  (NIDDM) ", "Type 2 diabetes NIDDM"),
        ("non_small_cell", "non-small cell"),
        ("Sjögren’s syndrome", "sjogren's syndrome"),
        ("cafe\u0301", "café"),
        ("nin\u0303o", "niño"),
        ("Straße", "STRASSE"),
        ("ﬁbrosis", "fibrosis"),
        ("H₂O", "h2o"),
        ("ＣＯＶＩＤ－１９", "covid-19"),
        ("5 µg", "5 μg"),
        ("ｱｽﾋﾟﾘﾝ", "アスピリン"),
        ("воспаление лёгких", "Воспаление легких"),
        ("грудной", "грудно\u0438\u0306"),
        ("ΆΣΘΜΑ", "άσθμα"),
        ("ΠΌΝΟΣ", "πόνος"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("고혈압", "\u1100\u1169\u1112\u1167\u11af\u110b\u1161\u11b8"),
        ("盜汗", "盗汗"),
        ("アスピリン", "あすぴりん"),
        ("悪性", "惡性"),  # Japan's simplification, and what it simplifies
        ("悪性", "恶性"),  # and China's
        ("脳", "脑"),
        ("葛\U000e0100根", "葛根"),
        ("hyper\u00adtension", "hypertension"),
        ("क\u094d\u200dष", "क\u094dष"),
        ("\u200eداء\u200f", "داء"),
        ("داء الســكري", "داء السكري"),
        ("إنفلونزا", "انفلونزا"),
        ("مثانة", "مثانه"),
        ("حمى", "حمي"),
        ("بیماری کبد", "بيماري كبد"),
        ("بیماری\u200cها", "بيماري ها"),
        ("ٱلدم", "الدم"),
        ("نوع ٢", "نوع 2"),
        ("نوع ۲", "نوع 2"),
        ("प्रकार २", "प्रकार 2"),
        ("Østrogen", "ostrogen"),
        ("đường", "duong"),
        ("ból głowy", "bol glowy"),
        ("ALZHEIMER HASTALIĞI", "alzheimer hastalığı"),
        ("Œdème", "oedeme"),
        ("cæcum", "caecum"),
        ("α-thalassemia", "alpha thalassemia"),
        ("TNFα", "TNF-alpha"),
        ("17β-estradiol", "17 beta estradiol"),
        ("Ω-3", "omega 3"),
        ("μ-opioid", "mu opioid"),
    ],
)
def test_spellings_of_one_name_meet(left: str, right: str) -> None:
    assert normalize_alias(left) == normalize_alias(right) != ""


@pytest.mark.parametrize(
    "words",
    [
        ("ขาว", "ข่าว", "ข้าว", "ขาวี"),  # Thai tones and vowels
        ("कल", "कला", "किल", "कुल", "कील"),  # Hindi vowel signs
        ("মা", "মি", "মু"),  # Bengali
        ("はい", "ばい", "ぱい"),  # kana voicing
        ("ハイ", "バイ", "パイ"),
        ("あ", "あ\u3099", "あ\u309a"),  # voiced as no single character is
        ("高血压", "低血压"),
        ("vitamin B1", "vitamin B12"),
        ("α-thalassemia", "β-thalassemia"),
        ("5 μg", "5 mg", "5 mu g"),  # a unit, no letter
        ("αβ", "alpha beta", "alphabeta"),  # a word in Greek
        ("ملح", "ملك"),
    ],
)
def test_marks_that_make_another_word_survive(words: tuple[str, ...]) -> None:
    assert len({normalize_alias(word) for word in words}) == len(words)


@pytest.mark.parametrize("word", ["ไซนัสอักเสบ", "मधुमेह", "हृदय", "がん", "ဆီး", "ជំងឺ"])
def test_a_word_with_marks_stays_one_whole_word(word: str) -> None:
    assert normalize_alias(word) == word


@pytest.mark.parametrize("text", ["", " ", "-", "!?", "___", "。、", "\u200b\u2060", "\n\t"])
def test_a_text_of_punctuation_alone_gives_nothing(text: str) -> None:
    assert normalize_alias(text) == ""
    assert character_grams(normalize_alias(text)) == []


@given(st.text())
def test_grams_are_distinct_few_and_free_of_spaces(text: str) -> None:
    normalized = normalize_alias(text)
    grams = character_grams(normalized)
    assert len(grams) == len(set(grams)) <= MAX_GRAMS
    assert " ".join(grams).split() == grams  # a whitespace tokenizer gives them back
    assert bool(grams) == bool(normalized)


def test_the_number_of_grams_is_capped_for_one_long_word_and_for_many() -> None:
    words = [chr(97 + i // 26) + chr(97 + i % 26) * 2 + "x" for i in range(200)]
    assert len(character_grams("".join(words))) == MAX_GRAMS
    assert len(character_grams(" ".join(words))) == MAX_GRAMS


@pytest.mark.parametrize(
    ("left", "right"),
    [("diarrhea", "diarhea"), ("肺炎", "肺炎球菌"), ("癌", "肺癌"), ("ปวดหัว", "ปวดหัวมาก")],
)
def test_names_that_look_alike_share_grams(left: str, right: str) -> None:
    assert set(character_grams(left)) & set(character_grams(right))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C0004238", "UMLS:C0004238"),
        ("c0004238", "UMLS:C0004238"),
        ("umls:c0004238", "UMLS:C0004238"),
        (" UMLS_C0004238\n", "UMLS:C0004238"),
        ("mondo_0005148", "MONDO:0005148"),
        ("MONDO:0005148", "MONDO:0005148"),
        ("http://purl.obolibrary.org/obo/HP_0001250", "HP:0001250"),
        ("https://uts.nlm.nih.gov/uts/umls/concept/C0004238", "UMLS:C0004238"),
        ("hgnc:4851", "HGNC:4851"),
        ("Made:aB.c-1", "MADE:aB.c-1"),
        ("MSH:D000001", "MESH:D000001"),
        ("UMLS_CUI:c0004238", "UMLS:C0004238"),
        ("http://linkedlifedata.com/resource/umls/id/C0004238", "UMLS:C0004238"),
        ("Orphanet_12345", "ORPHA:12345"),
        ("http://www.orpha.net/ORDO/Orphanet_12345", "ORPHA:12345"),
        ("Orphanet:ORPHA12345", "ORPHA:12345"),
        ("ORPHA:ORPHA", "ORPHA:ORPHA"),
        ("SNOMEDCT_US_2023_03_01:12345", "SNOMEDCT:12345"),
        ("SCTID:12345", "SNOMEDCT:12345"),
        ("http://snomed.info/id/12345", "SNOMEDCT:12345"),
        ("NCI2009_04D:C12345", "NCIT:C12345"),
        ("http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl#C12345", "NCIT:C12345"),
        ("ICD-10:A00.1", "ICD10:A00.1"),
        ("ICD-10-CM:A00.1", "ICD10CM:A00.1"),
        ("ICD9CM_2006:001.2", "ICD9CM:001.2"),
        ("http://identifiers.org/mesh/D000001", "MESH:D000001"),
        ("http://identifiers.org/mesh:D000001", "MESH:D000001"),
        ("http://www.wikidata.org/entity/Q1", "WIKIDATA:Q1"),
        ("HPO:HP:0000001", "HP:0000001"),
        ("GO:HP:0000001", None),
        ("MIM:100000", "OMIM:100000"),
        ("OMIMPS:100000", "OMIMPS:100000"),  # a series of diseases, not a disease
        ("NCBITAXON_9606", "NCBITaxon:9606"),
        ("NCBI_TaxID:9606", "NCBITaxon:9606"),
        ("other_one_2019_01:1", "OTHER_ONE_2019_01:1"),
        ("umls/aspirin", None),
        ("and/or", None),
        *((text, None) for text in ("", "  ", "aspirin", "C123", "C00042381", "x:", ":1", "a: b")),
        ("heart attack", None),
        ("9P:1", None),
    ],
)
def test_ids_are_understood_in_any_spelling(text: str, expected: str | None) -> None:
    assert normalize_concept_id(text) == expected


PIECES = (*"Cc019:_/.-mM#é ", "ORPHA", "HP", "hpo", "_2019", "SNOMED", "UMLS", "CUI", "x.org")


@given(
    st.text(st.sampled_from("Cc01239:_/.-mMzé ")) | st.lists(st.sampled_from(PIECES)).map("".join)
)
def test_a_normalised_id_stays_as_it_is(text: str) -> None:
    once = normalize_concept_id(text)
    assert once is None or normalize_concept_id(once) == once


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Mercury (element)", ("Mercury", "element")),
        ("Mercury_(element)", ("Mercury", "element")),
        ("水星（惑星）", ("水星", "惑星")),
        ("水星 (惑星)", ("水星", "惑星")),
        ("(R)-limonene (drug)", ("(R)-limonene", "drug")),
        ("one (two) (three)", ("one (two)", "three")),
        *(
            (whole, (whole, ""))
            for whole in (
                "Mercury",
                "(R)-limonene",
                "(element)",
                "f(x)",
                "iron(II)",
                "one (two (three))",
                "one (two (three)",
                "one (two",
                "one (+)",
                "one ()",
                "",
            )
        ),
    ],
)
def test_only_a_last_part_in_brackets_is_split_off_a_title(
    title: str, expected: tuple[str, str]
) -> None:
    assert split_disambiguation(title) == expected


@given(st.text("a_ ()（）é"))
def test_what_is_split_off_a_title_leaves_a_name(title: str) -> None:
    name, part = split_disambiguation(title)
    assert bool(name) == bool(title.replace("_", " ").strip())
    assert name == name.strip() and part == part.strip()


@pytest.mark.parametrize(
    ("context", "mention", "start", "expected"),
    [
        ("AS and AS", "AS", None, "[[AS]] and AS"),
        ("AS and AS", "AS", 7, "AS and [[AS]]"),
        ("AS and AS", "AS", 3, "[[AS]] and AS"),  # not there: the first one
        ("AS and AS", "AS", 99, "[[AS]] and AS"),
        ("Given: Aspirin", "aspirin", None, "Given: [[Aspirin]]"),
        ("as, then AS", "AS", None, "as, then [[AS]]"),
        ("a+b (c)", "+b (", None, "a[[+b (]]c)"),
        ("nothing here", "MI", None, "[[MI]] nothing here"),
        ("", "MI", None, "[[MI]]"),
    ],
)
def test_one_occurrence_of_the_mention_is_marked(
    context: str, mention: str, start: int | None, expected: str
) -> None:
    assert mark_mention(context, mention, start, marks=("[[", "]]")) == expected


@given(st.text(), st.text(min_size=1), st.text())
def test_marking_at_the_offset_keeps_every_character(before: str, name: str, after: str) -> None:
    marked = mark_mention(before + name + after, name, len(before), marks=("«", "»"))
    assert marked == f"{before}«{name}»{after}"
