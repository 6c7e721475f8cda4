"""Abbreviations that a text defines, by the algorithm of Schwartz and Hearst (PSB 2003, "A simple algorithm for
identifying abbreviation definitions in biomedical text"), for every script that has letters of its own words.

The packages that offer it leave out other scripts than Latin, or configure logging when imported
(benchmarks/LOG.md).
"""

import re
from collections.abc import Iterator

_BRACKETED = re.compile(r"[(（]([^()（）]{2,200})[)）]")
_SENTENCE_END = re.compile(r"[.!?。！？;；]\s|\n")
_REST = re.compile(r"[,;:，；：]")
_LONGEST_SHORT, _MOST_WORDS = 10, 2


def find_abbreviations(text: str) -> dict[str, str]:
    """Short form to long form, of `long form (SF)` and `SF (long form)`; the first definition stands."""
    found: dict[str, str] = {}
    for short, long in _definitions(text):
        found.setdefault(short, long)
    return found


def expand_abbreviations(mention: str, context: str) -> str | None:
    """The mention with the abbreviations in it that its context defines written out; None where there is none.

    A plural counts as its singular: `DMDs` is written out where `DMD` is defined.
    """
    if not _BRACKETED.search(context):
        return None
    defined = find_abbreviations(context)
    if not defined:
        return None
    forms = "|".join(re.escape(short) for short in sorted(defined, key=len, reverse=True))
    expanded = re.sub(
        rf"(?<!\w)({forms})(?:s|’s|'s)?(?!\w)", lambda match: defined[match[1]], mention
    )
    return None if expanded == mention or mention in defined.values() else expanded


def _definitions(text: str) -> Iterator[tuple[str, str]]:
    for match in _BRACKETED.finditer(text):
        inside = _REST.split(match[1], maxsplit=1)[0].strip()
        before = _SENTENCE_END.split(text[: match.start()])[-1].rstrip()
        if _is_short(inside) and (long := _long_form(inside, before)):
            yield inside, long
        elif (
            before
            and _is_short(short := before.split()[-1])
            and _long_form(short, inside) == inside
        ):
            yield short, inside


def _is_short(text: str) -> bool:
    return (
        2 <= len(text) <= _LONGEST_SHORT
        and len(text.split()) <= _MOST_WORDS
        and text[0].isalnum()
        and any(letter.isalpha() for letter in text)
        and text != text.lower()
    )


def _long_form(short: str, before: str) -> str | None:
    """The shortest end of the text before a short form whose letters hold those of the short form, in order.

    The first letter must begin a word, and the words are no more than |A| + 5, nor than 2 |A|.
    """
    words = list(re.finditer(r"\S+", before))[-min(len(short) + 5, 2 * len(short)) :]
    if not words:
        return None
    offset = words[0].start()
    candidate = before[offset:]
    place = len(candidate)
    letters = [letter for letter in short.casefold() if letter.isalnum()]
    for number, letter in reversed(list(enumerate(letters))):
        place -= 1
        while place >= 0 and not (
            candidate[place].casefold() == letter
            and (number > 0 or place == 0 or not candidate[place - 1].isalnum())
        ):
            place -= 1
        if place < 0:
            return None
    long = candidate[place:].strip()
    return long if len(long) > len(short) and short not in long.split() else None
