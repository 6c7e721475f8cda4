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
)

# What folds into something else, joins, or is looked up in context.
TRICKY = "aAİıßẞſﬁΣςᾴйЙёЁ́̈ﾊﾟﾞガが한ㄱखि์ָؐش乾隆坤覆蓋麼著、·_-’ \u00a0\u200d\u3000１Ⅳ㎎½"


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
        *((text, None) for text in ("", "  ", "aspirin", "C123", "C00042381", "x:", ":1", "a: b")),
        ("heart attack", None),
        ("9P:1", None),
    ],
)
def test_ids_are_understood_in_any_spelling(text: str, expected: str | None) -> None:
    assert normalize_concept_id(text) == expected


@given(st.text(st.sampled_from("Cc01239:_/.-mMzé ")))
def test_a_normalised_id_stays_as_it_is(text: str) -> None:
    once = normalize_concept_id(text)
    assert once is None or normalize_concept_id(once) == once


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
