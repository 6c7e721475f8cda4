"""Language tags: any spelling to one, and what filters ask of them."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.language import normalize_language, primary_language, speaks

SPELLINGS = {
    "en": ("en", "EN", "eng", "ENG", " en\n", "simple"),
    "en-US": ("en-us", "en_US", "EN-US-x-mine"),
    "de": ("de", "deu", "GER", "de-formal", "de-x-formal"),
    "hr": ("hr", "SCR", "HRV"),
    "sr": ("sr", "SCC"),
    "sr-Cyrl": ("sr-ec", "sr-cyrl"),
    "sr-Latn": ("sr-el", "sh", "hbs"),
    "no": ("no", "nb", "NOR", "nob"),
    "nn": ("nn", "NNO"),
    "zh": ("zh", "CHI", "zho", "cmn"),
    "zh-Hant": ("zh-hant", "zh_Hant"),
    "zh-TW": ("zh-tw",),
    "lzh": ("zh-classical", "zh_classical", "lzh"),
    "nan": ("zh-min-nan", "nan"),
    "yue": ("zh-yue", "yue"),
    "ar": ("ar", "ARA", "arb"),
    "gsw": ("als", "gsw"),
    "be-tarask": ("be-x-old", "be-tarask"),
    "rup": ("roa-rup",),
    "nap": ("roa-tara",),
    "jv": ("map-bms",),
    "sgs": ("bat-smg",),
    "vro": ("fiu-vro",),
    "nds-NL": ("nds-nl",),
    "cbk": ("cbk-zam",),
    "bho": ("bh",),
    "es-419": ("es-419",),
    "": ("", " ", "und", "mul", "zxx", "mis", "mis-x-other"),
}
NO_TAGS = ("english", "e", "12", "en-", "-en", "x-mine", "qaa", "qqq", "xx", "en-en", "pt-bra", "é")


@pytest.mark.parametrize("tag", SPELLINGS)
def test_every_spelling_of_a_language_gives_its_one_tag(tag: str) -> None:
    assert {normalize_language(spelling) for spelling in (tag, *SPELLINGS[tag])} == {tag}


@pytest.mark.parametrize("text", NO_TAGS)
def test_what_names_no_language_gives_none(text: str) -> None:
    assert normalize_language(text) is None


@given(
    st.text("aebnqxz-_419", max_size=12)
    | st.lists(
        st.sampled_from(["en", "zh", "als", "x", "old", "latn", "US", "no", "nb", "formal", "1996"])
    ).map("-".join)
)
def test_a_normalised_tag_stays_as_it_is(text: str) -> None:
    once = normalize_language(text)
    assert once is None or normalize_language(once) == once


def test_a_wanted_language_includes_its_regions_and_a_wanted_region_is_that_one_alone() -> None:
    assert primary_language("pt-BR") == primary_language("pt") == "pt"
    assert speaks("pt", frozenset({"de", "pt"}))
    assert speaks("pt-BR", frozenset({"de", "pt"}))
    assert speaks("pt-BR", frozenset({"pt-BR"}))
    assert not speaks("pt", frozenset({"pt-BR"}))
    assert not speaks("", frozenset({"pt"}))
    assert not speaks("ptx", frozenset({"pt"}))


def test_langcodes_is_loaded_at_the_first_call_only() -> None:
    code = "import sys, bioelx_mcp.language; sys.exit('langcodes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
