"""Abbreviations: what a text defines is found in any script that has letters of words, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.abbreviations import expand_abbreviations, find_abbreviations


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "Patients with non-insulin-dependent diabetes mellitus (NIDDM) had it.",
            {"NIDDM": "non-insulin-dependent diabetes mellitus"},
        ),
        (
            "acute myocardial infarction (AMI, n=3) and CHF (congestive heart failure)",
            {"AMI": "acute myocardial infarction", "CHF": "congestive heart failure"},
        ),
        (
            "Patient mit koronarer Herzkrankheit (KHK)",
            {"KHK": "koronarer Herzkrankheit"},
        ),
        ("острый инфаркт миокарда (ОИМ) и", {"ОИМ": "острый инфаркт миокарда"}),
        (
            "enfermedad pulmonar obstructiva crónica（EPOC）",
            {"EPOC": "enfermedad pulmonar obstructiva crónica"},
        ),
        (
            "First Polycystic kidney (PK). Then protein kinase (PK) was measured.",
            {"PK": "Polycystic kidney"},
        ),
        ("urinary tract infection (UTI) of the tract", {"UTI": "urinary tract infection"}),
    ],
)
def test_a_definition_is_found_on_either_side_of_the_bracket(
    text: str, found: dict[str, str]
) -> None:
    assert find_abbreviations(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(((((",
        "a (b",
        "(AMI) at the start",
        "the patient (he) was seen",
        "in Beijing (China) and (see Table 2)",
        "a dose (10 mg) of it",
        "heart failure. Later (HF) came",  # of another sentence
        "HF (HF) twice",
        "急性心筋梗塞（AMI）",  # no letter of the one is in the other
    ],
)
def test_what_is_no_definition_is_none(text: str) -> None:
    assert find_abbreviations(text) == {}


def test_a_mention_is_written_out_whole_or_in_part_and_in_the_plural() -> None:
    context = "Duchenne muscular dystrophy (DMD) is not Becker's."
    long = "Duchenne muscular dystrophy"
    assert expand_abbreviations("DMD", context) == long
    assert expand_abbreviations("DMDs", context) == long
    assert expand_abbreviations("severe DMD", context) == f"severe {long}"
    assert expand_abbreviations("XDMD", context) is None
    assert expand_abbreviations("dmd", context) is None
    assert expand_abbreviations(long, context) is None
    assert expand_abbreviations("DMD", "nothing (in) brackets") is None
    assert expand_abbreviations("DMD", "") is None


@given(st.text(alphabet="ab AB(),.（）é я漢\n", max_size=60), st.text(max_size=10))
def test_any_text_is_read(context: str, mention: str) -> None:
    for short, long in find_abbreviations(context).items():
        assert short in context
        assert long in context
    expand_abbreviations(mention, context)
