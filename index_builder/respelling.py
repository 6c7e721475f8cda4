"""Respelling: a name as a document may write it, inflected or misspelt, to be a positive pair with the name itself.

Knowledge bases hold base forms, documents hold Finnish cases and German plurals. A name paired with a distorted copy
is how Mirror-BERT learns (Liu et al., EMNLP 2021); here the distortion imitates inflection: endings are exchanged
for those of other words of the language.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = 4  # letters of the shortest word that is respelt
_STEM = 3  # letters that stay
_ENDING = 3  # letters, at most
_INFLECTED = 0.7  # share of the words; of the others letters are lost, doubled or exchanged


def respell_pairs(
    texts: Sequence[str], languages: NDArray[np.int64], share: float, rng: np.random.Generator
) -> list[str]:
    """The names of n pairs, first ones then second ones (2n), with a `share` of the second ones respelt first ones.

    `languages` (2n,) numbers their languages: endings are taken from the names of the same one. Where
    respelling leaves the first name as it is, the second stays.
    """
    result = list(texts)
    count = len(result) // 2
    endings = _endings(texts, languages)
    for pair in np.flatnonzero(rng.random(count) < share).tolist():
        respelt = _respell(result[pair], endings[int(languages[pair])], rng)
        if respelt != result[pair]:
            result[count + pair] = respelt
    return result


def _endings(texts: Sequence[str], languages: NDArray[np.int64]) -> dict[int, list[str]]:
    """By language, the last letters of its words; no ending is one, too."""
    endings: dict[int, list[str]] = defaultdict(lambda: [""])
    for text, language in zip(texts, languages.tolist(), strict=True):
        for word in text.split():
            if len(word) > _WORD and word.isalpha():
                endings[language] += [word[-length:] for length in range(1, _ENDING + 1)]
    return endings


def _respell(name: str, endings: Sequence[str], rng: np.random.Generator) -> str:
    """The name with one of its words respelt, and each of the others as likely as not."""
    words = name.split(" ")
    places = [i for i, word in enumerate(words) if len(word) >= _WORD and word.isalpha()]
    if places:
        sure = places[int(rng.integers(len(places)))]
        for place in places:
            if place == sure or rng.random() < 0.5:
                words[place] = _respell_word(words[place], endings, rng)
    return " ".join(words)


def _respell_word(word: str, endings: Sequence[str], rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < _INFLECTED:
        stem = word[: max(_STEM, len(word) - int(rng.integers(_ENDING + 1)))]
        return stem + endings[int(rng.integers(len(endings)))]
    place = int(rng.integers(1, len(word)))
    before, letter, after = word[: place - 1], word[place - 1 : place + 1], word[place + 1 :]
    kind = (kind - _INFLECTED) / (1 - _INFLECTED)
    if kind < 1 / 3:
        return before + letter[1] + after
    return before + (letter[0] + letter if kind < 2 / 3 else letter[::-1]) + after
