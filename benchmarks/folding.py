"""What each folding of `text.normalize_alias` brings: exact matches on the XL-BEL development half, and homonyms.

    python benchmarks/folding.py --shared ../shared/data

One folding at a time is taken out, or one that we do without is put in. Percent of the covered queries whose gold
concept has a name with the mention's key; *only wrong*: other concepts have, it has not. Last, over all names of
the open KB: how many the folding brings together within a concept, and how many between concepts.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from opencc import OpenCC

from bioelx_mcp import text
from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.text import normalize_alias, normalize_concept_id

Fold = Callable[[str], str]
NEVER = re.compile("(?!)")
HAN = text._HAN

# What stands in for a part of `text` to take a folding out.
TAKEN_OUT: dict[str, dict[str, Any]] = {
    "diacritics": {"_LEFT_OUT": re.compile(f"[{text._UNSEEN}]")},
    "signs that are not seen": {"_LEFT_OUT": re.compile(f"[{text._MARKS}]")},
    "Latin strokes, ligatures": {"_LETTERS": str.maketrans(text._HIRAGANA | text._ARABIC)},
    "Arabic and Persian letters": {"_LETTERS": str.maketrans(text._HIRAGANA | text._LATIN)},
    "katakana to hiragana": {"_LETTERS": str.maketrans(text._ARABIC | text._LATIN)},
    "Chinese and Japanese characters": {"_HAN": NEVER},
    "of these, Japanese ones": {"_TO_TRADITIONAL": SimpleNamespace(convert=lambda text: text)},
    "digits of other scripts": {"_OTHER_DIGIT": NEVER},
    "α to alpha": {"_LONE_GREEK": NEVER},
}


def replacing(pattern: str, by: str) -> Fold:
    compiled = re.compile(pattern)
    return lambda key: compiled.sub(by, key)


def converting(config: str) -> Fold:
    convert = OpenCC(config).convert
    return lambda key: convert(key) if HAN.search(key) else key


# Foldings of a key.
PUT_IN: dict[str, Fold] = {
    "no spaces": replacing(" ", ""),
    "Alzheimer s to Alzheimer": replacing(r"(?<=\w) s\b", ""),
    "oe, ae to e (oedema)": replacing("[ao]e", "e"),
    "oe, ae, ue to o, a, u (Oedem)": replacing("(?<=[aou])e", ""),
    "plural s": replacing(r"(?<=[a-z]{3})s\b", ""),
    "Taiwan's words to China's": converting("tw2sp"),
    "no long vowel mark (ー)": replacing("ー", ""),
    "ゔぁ to ば": lambda key: key.translate(str.maketrans("ゔ", "ぶ")).replace("ぶぁ", "ば"),
    "no Thai tones": replacing("[\u0e47-\u0e4e]", ""),
    "words in alphabetical order": lambda key: " ".join(sorted(key.split())),
}
# Foldings of a text before it is normalised.
PUT_BEFORE: dict[str, Fold] = {
    "no apostrophes": replacing(r"(?<=\w)['’](?=\w)", ""),
    "no hyphens": replacing(r"(?<=\w)[-‐‑](?=\w)", ""),
    "no Persian non-joiner": replacing("\u200c", ""),
    "no disambiguation": lambda name: text.split_disambiguation(name)[0],
}


@dataclass(frozen=True)
class Measured:
    """Percent right by language and percent only wrong; distinct (concept, key), and keys less than that."""

    right: dict[str, float]
    only_wrong: float
    pairs: int
    shared: int


def measure(
    names: list[tuple[str, str]], queries: list[tuple[Query, set[str]]], fold: Fold
) -> Measured:
    """`names` are (concept, text) or (concept, key), whichever `fold` takes; mentions are folded alike."""
    mentions = [fold(query.mention.text) for query, _ in queries]
    wanted = set(mentions)
    pairs = {(concept, fold(name)) for concept, name in names}
    concepts: dict[str, set[str]] = defaultdict(set)
    for concept, key in pairs:
        if key in wanted:
            concepts[key].add(concept)
    outcomes: dict[str, list[bool]] = defaultdict(list)
    only_wrong = 0
    for (query, gold), key in zip(queries, mentions, strict=True):
        right = bool(gold & concepts[key])
        outcomes[query.language].append(right)
        only_wrong += not right and bool(concepts[key])
    return Measured(
        {
            language: 100 * sum(rights) / len(rights)
            for language, rights in sorted(outcomes.items())
        },
        100 * only_wrong / len(queries),
        len(pairs),
        len(pairs) - len({key for _, key in pairs}),
    )


def row(label: str, measured: Measured, fine: Measured, coarse: Measured) -> str:
    rights = list(measured.right.values())
    cells = [label, *(f"{value:.1f}" for value in rights), f"{sum(rights) / len(rights):.2f}"]
    cells += [f"{measured.only_wrong:.2f}"]
    cells += [str(fine.pairs - coarse.pairs), str(coarse.shared - fine.shared)]
    return line(cells)


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    known: dict[str, str] = {}
    concepts = pq.read_table(
        args.shared / "open_kb" / "concepts.parquet", columns=["concept_id", "alt_cuis"]
    )
    for concept in concepts.to_pylist():
        for other in (concept["concept_id"], *concept["alt_cuis"]):
            known.setdefault(normalize_concept_id(other) or other, concept["concept_id"])
    table = pq.read_table(
        args.shared / "open_kb" / "aliases.parquet", columns=["concept_id", "name"]
    )
    names = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    queries = [
        (query, gold)
        for query in read_xlbel(args.shared / "eval" / "xlbel")
        if (gold := {known[one] for one in query.gold if one in known})
    ]
    languages = sorted({query.language for query, _ in queries})
    write = sys.stdout.write
    write(f"{len(names):,} names, {len(queries)} covered queries\n\n")
    write(line(["folding", *languages, "average", "only wrong", "one concept", "several"]))
    write("|---|" + "---|" * (len(languages) + 4) + "\n")
    ours = measure(names, queries, normalize_alias)
    write(row("**ours**", ours, ours, ours))
    for label, parts in TAKEN_OUT.items():
        with patch.multiple(text, **parts):
            without = measure(names, queries, normalize_alias)
        write(row(f"without {label}", without, fine=without, coarse=ours))
    foldings = {label: compose(normalize_alias, fold) for label, fold in PUT_IN.items()}
    foldings |= {label: compose(fold, normalize_alias) for label, fold in PUT_BEFORE.items()}
    for label, fold in foldings.items():
        also = measure(names, queries, fold)
        write(row(f"also {label}", also, fine=ours, coarse=also))
        sys.stdout.flush()
    return 0


def compose(first: Fold, then: Fold) -> Fold:
    return lambda text: then(first(text))


if __name__ == "__main__":
    raise SystemExit(main())
