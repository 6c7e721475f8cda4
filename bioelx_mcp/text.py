"""The one alias normalisation, its character grams, the marking of a mention in its context; and texts made safe to show.

The builder and the reader both call these; TEXT_VERSION changes whenever an answer of
`normalize_alias` or `character_grams` does, and an index made under another version is refused.
"""

import json
import re
import unicodedata
from typing import Any

from opencc import OpenCC

TEXT_VERSION = 2
MAX_NAME_LENGTH = 512  # characters; longer aliases are set aside, longer mentions refused
MAX_GRAMS = 48  # distinct grams kept of one name

# Marks that readers leave out: Latin, Greek and Cyrillic accents, Hebrew points, Arabic vowels and tatweel.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
# Soft hyphens, joiners, direction marks, variant selectors. Not the non-joiner: Persian also writes a space there.
_UNSEEN = (
    "\u00ad\u200b\u200d-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"
)
_LEFT_OUT = re.compile(f"[{_MARKS}{_UNSEEN}]")
# Marks that make the word, and that `\w` leaves out: Indic, Thai, Lao, Burmese, Khmer vowels, kana voicing.
_SEPARATORS = re.compile(
    r"[^\w\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3099\u309a]+|_+"
)
_HIRAGANA = {chr(kana): chr(kana - 0x60) for kana in range(0x30A1, 0x30F7)}
# As Lucene's ArabicNormalizer and PersianNormalizer; hamza and madda have gone with the marks.
_ARABIC = {"ى": "ي", "ی": "ي", "ے": "ي", "ک": "ك", "ة": "ه", "ہ": "ه", "ە": "ه", "ٱ": "ا"}
# Letters whose stroke or ligature no decomposition takes apart.
_LATIN = {"ø": "o", "đ": "d", "ħ": "h", "ł": "l", "ŧ": "t", "ı": "i"}
_LATIN |= {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
_LETTERS = str.maketrans(_HIRAGANA | _ARABIC | _LATIN)
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_TO_TRADITIONAL = OpenCC("jp2t")  # from the simplified characters of Japanese
_TO_SIMPLIFIED = OpenCC("t2s")
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"
        " upsilon phi chi psi omega".split(),
        strict=True,
    )
)
# A Greek letter that is in no Greek word, nor the micro of a unit. (Begins with a class: three times faster.)
_LONE_GREEK = re.compile(r"[α-ω](?<![\u0370-\u03ff].)(?![\u0370-\u03ff]|(?<=μ)[a-z])")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
# Prefix -> its other spellings, in lower case without `_` and `-`; hosts and folders of addresses among them.
_SPELLINGS = {
    "CHEBI": "",
    "DOID": "do",
    "HGNC": "",
    "HP": "hpo",
    "ICD10": "icd10who",
    "ICD10CM": "",
    "ICD11": "",
    "ICD9": "",
    "ICD9CM": "mthicd9",
    "LOINC": "lnc",
    "MEDDRA": "mdr",
    "MESH": "msh",
    "MONDO": "",
    "NCBITaxon": "ncbitaxonomy ncbitaxid taxonomy taxid",
    "NCIT": "nci ncithesaurus thesaurus.owl",
    "OMIM": "mim omim.org www.omim.org",
    "ORPHA": "ordo orphanet orphacode orphanet.ordo",
    "RXNORM": "rxcui",
    "SNOMEDCT": "snomed snomedctus sctid sct snomed.info",
    "UMLS": "umlscui",
    "WIKIDATA": "wd www.wikidata.org",
}
_PREFIXES = {
    spelling: prefix
    for prefix, others in _SPELLINGS.items()
    for spelling in (prefix.lower(), *others.split())
}
_ID = re.compile(
    r"(?P<prefix>[A-Za-z][A-Za-z0-9._-]*:|[A-Za-z][A-Za-z0-9.]*_)"
    r"(?:(?P<again>[A-Za-z]+):)?(?P<local>[A-Za-z0-9][A-Za-z0-9.-]*)"
)
_RELEASE = re.compile(
    r"(?:[._-]?20\d\d(?:[_-]\d\d[a-z]?)*)+$"
)  # SNOMEDCT_US_2023_03_01, NCI2009_04D
_ORPHA = re.compile(r"^(?:ORPHA)+(?=\d)")
_LOCAL = re.compile(r"[A-Za-z]*\d[A-Za-z0-9.-]*")
_JOINERS = "\u200c\u200d"
_SURROGATE = re.compile("[\ud800-\udfff]")
_DISAMBIGUATION = re.compile(
    r"(?P<name>.*\S)(?:\s+\((?P<ascii>[^()（）]+)\)|\s*（(?P<wide>[^()（）]+)）)"
)
_CUI = re.compile(r"[Cc]\d{7}")


def normalize_alias(text: str) -> str:
    """The key under which equal names meet.

    Folded away: compatibility forms, case, punctuation, spacing, what is not seen; diacritics and strokes of
    Latin, Greek, Cyrillic, Hebrew and Arabic, Persian letters against Arabic ones; digits of any script; traditional,
    simplified and Japanese forms of Chinese characters; katakana against hiragana; `α` against `alpha`.
    Idempotent. A text of punctuation alone gives the empty string.
    """
    if text.isascii():
        return " ".join(_SEPARATORS.sub(" ", text.lower()).split())
    folded = unicodedata.normalize("NFKD", text).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()  # some folds expose another one
    folded = unicodedata.normalize("NFC", _LEFT_OUT.sub("", folded)).translate(_LETTERS)
    folded = _SEPARATORS.sub(" ", folded)
    if _HAN.search(folded):
        folded = _fold_han(folded)
    folded = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), folded)
    folded = _LONE_GREEK.sub(lambda match: f" {_GREEK[match[0]]} ", folded)
    return " ".join(folded.split())


def _fold_han(text: str) -> str:
    """Simplified characters for traditional and Japanese ones, until nothing changes (薴 gives 苧, that gives 苎)."""
    for _ in range(4):
        text, before = _TO_SIMPLIFIED.convert(_TO_TRADITIONAL.convert(text)), text
        if text == before:
            break
    return text


def character_grams(normalized: str) -> list[str]:
    """Distinct character 2- and 3-grams of a normalised name, in order, at most MAX_GRAMS.

    Grams lie within words padded by `·`, and hold no space, so a whitespace tokenizer gives them back.
    Scripts without spaces (Thai, Chinese, Japanese) work the same way: their run of letters is the word,
    and single letters of words of at most two letters are kept too.
    """
    grams: dict[str, None] = {}
    for word in normalized.split():
        padded = f"·{word}·"
        for size in (3, 2):
            for start in range(len(padded) - size + 1):
                grams[padded[start : start + size]] = None
        if len(word) <= 2:
            grams.update(dict.fromkeys(word))
        if len(grams) >= MAX_GRAMS:
            break
    return list(grams)[:MAX_GRAMS]


def normalize_concept_id(text: str) -> str | None:
    """A concept id as a CURIE whose prefix is spelled one way, or None where the text is no id.

    A bare CUI, `umls:c0004238`, `mondo_0005148`, `SNOMEDCT_US_2023_03_01:73211009`, `HGNC:HGNC:5` and the
    addresses of OBO, Orphanet, Wikidata, identifiers.org and the like are understood.
    """
    *folders, last = re.split("[/#]", text.strip())
    if _CUI.fullmatch(last):
        return f"UMLS:{last.upper()}"
    match = _ID.fullmatch(last)
    if match is None:
        named = [p for folder in reversed(folders) if (p := _known_prefix(folder))]
        return f"{named[0]}:{last}" if named and _LOCAL.fullmatch(last) else None
    local, prefix = match["local"], match["prefix"][:-1]
    prefix = _known_prefix(prefix) or prefix.upper()
    if match["again"] and (_known_prefix(match["again"]) or match["again"].upper()) != prefix:
        return None
    if prefix == "ORPHA":
        local = _ORPHA.sub("", local)  # ORPHA:ORPHA558
    return f"{prefix}:{local.upper() if _CUI.fullmatch(local) else local}"


def _known_prefix(text: str) -> str | None:
    """The one spelling of a prefix, whatever release of the vocabulary it names; None if it is not known."""
    lowered = text.lower()
    for candidate in (lowered, _RELEASE.sub("", lowered)):
        if prefix := _PREFIXES.get(candidate.replace("_", "").replace("-", "")):
            return prefix
    return None


def split_disambiguation(title: str) -> tuple[str, str]:
    """The name in a Wikipedia title, and what stands in brackets behind it to tell its namesakes apart.

    `Mercury_(element)` gives `Mercury` and `element`; without such a part, or where brackets do not pair up,
    the second is empty.
    """
    title = title.replace("_", " ").strip()
    match = _DISAMBIGUATION.fullmatch(title)
    part = (match["ascii"] or match["wide"]).strip() if match else ""
    if match is None or not _balanced(match["name"]) or not re.search(r"\w", part):
        return title, ""
    return match["name"], part


def has_surrogate(text: str) -> bool:
    """Whether the text holds a lone surrogate: no Unicode character, or a byte that was no UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def _unseen(char: str) -> bool:
    """Whether a terminal obeys a character, or shows nothing: controls, direction marks, line ends, tags, surrogates.

    Not the joiners, which spelling needs in Persian and Indic scripts.
    """
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS


def spaced(text: str) -> str:
    """The text with a space for each character that is not seen; as long as it was."""
    if text.isprintable():  # says no to all of these, and to some spaces
        return text
    return "".join(" " if _unseen(char) else char for char in text)


def visible(text: str) -> str:
    """The text with what is not seen written out, as `\\x1b` or `\\u202e`: a terminal obeys nothing of it."""
    if text.isprintable():
        return text
    written = (char.encode("unicode_escape").decode() if _unseen(char) else char for char in text)
    return "".join(written)


def visible_line(text: str) -> str:
    """The same on one line, its spacing evened out."""
    return visible(" ".join(text.split()))


def visible_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, exact: what is not seen stands in it as `\\u202e`, which says the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _unseen(c) and c != "\n" else c for c in text)


def _balanced(text: str) -> bool:
    """Whether every bracket of a text is closed in it."""
    return text.count("(") == text.count(")") and text.count("（") == text.count("）")


def find_mention(context: str, mention: str, start: int | None = None) -> int | None:
    """Where the mention stands: at `start` if it does, else its first occurrence, compared without case at last.

    None where the context lacks it.
    """
    if start is not None and context[start : start + len(mention)] == mention:
        return start
    found = context.find(mention)
    if found >= 0:
        return found
    match = re.search(re.escape(mention), context, re.IGNORECASE)
    return match.start() if match else None


def mark_mention(
    context: str, mention: str, start: int | None = None, *, marks: tuple[str, str]
) -> str:
    """The context with one occurrence of the mention between the marks.

    The occurrence at `start` (a character offset) is marked when it holds the mention, else the first
    one, compared without case; a context that lacks the mention is put behind it.
    """
    left, right = marks
    place = find_mention(context, mention, start)
    if place is None:
        marked = f"{left}{mention}{right}"
        return f"{marked} {context}" if context else marked
    end = place + len(mention)
    return f"{context[:place]}{left}{context[place:end]}{right}{context[end:]}"
