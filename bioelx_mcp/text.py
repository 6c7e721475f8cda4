"""The one alias normalisation, its character grams, and the marking of a mention in its context.

The builder and the reader both call these; TEXT_VERSION changes whenever an answer of
`normalize_alias` or `character_grams` does, and an index made under another version is refused.
"""

import re
import unicodedata

from opencc import OpenCC

TEXT_VERSION = 1
MAX_NAME_LENGTH = 512  # characters; longer aliases are set aside, longer mentions refused
MAX_GRAMS = 48  # distinct grams kept of one name

# Marks that readers leave out: Latin, Greek and Cyrillic accents, Hebrew points, Arabic vowels.
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]")
# Marks that make the word, and that `\w` leaves out: Indic, Thai, Lao, Burmese, Khmer vowels, kana voicing.
_SEPARATORS = re.compile(
    r"[^\w\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3099\u309a]+|_+"
)
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_TO_SIMPLIFIED = OpenCC("t2s")
_TO_HIRAGANA = {ord(kana): ord(kana) - 0x60 for kana in map(chr, range(0x30A1, 0x30F7))}
_ID = re.compile(r"(?P<prefix>[A-Za-z][A-Za-z0-9.]*)[:_](?P<local>[A-Za-z0-9][A-Za-z0-9.-]*)")
_MIXED_CASE = {"NCBITAXON": "NCBITaxon"}  # prefixes that are not written in capitals
_SURROGATE = re.compile("[\ud800-\udfff]")
_CUI = re.compile(r"[Cc]\d{7}")


def normalize_alias(text: str) -> str:
    """The key under which equal names meet.

    Compatibility forms, case, Latin/Greek/Cyrillic diacritics, punctuation, spacing, traditional against
    simplified Chinese and katakana against hiragana are folded away. Idempotent. A text of punctuation alone gives the empty string.
    """
    if text.isascii():
        return " ".join(_SEPARATORS.sub(" ", text.lower()).split())
    folded = unicodedata.normalize("NFKD", text).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()  # some folds expose another one
    folded = unicodedata.normalize("NFC", _COMBINING.sub("", folded)).translate(_TO_HIRAGANA)
    if _HAN.search(folded):
        folded = _TO_SIMPLIFIED.convert(
            _TO_SIMPLIFIED.convert(folded)
        )  # one pass leaves 薴 at 苧, not 苎
    return " ".join(_SEPARATORS.sub(" ", folded).split())


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
    """A concept id as a CURIE with its prefix in capitals (but NCBITaxon), or None where the text is no id.

    `C0004238`, `umls:C0004238`, `mondo_0005148` and OBO addresses are understood.
    """
    text = text.strip().rsplit("/", 1)[-1]
    if _CUI.fullmatch(text):
        return f"UMLS:{text.upper()}"
    match = _ID.fullmatch(text)
    if match is None:
        return None
    local, prefix = match["local"], match["prefix"].upper()
    return f"{_MIXED_CASE.get(prefix, prefix)}:{local.upper() if _CUI.fullmatch(local) else local}"


def has_surrogate(text: str) -> bool:
    """Whether the text holds a lone surrogate: no Unicode character, or a byte that was no UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None


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
