"""Write a META directory of real shape and invented content: MRCONSO of N rows, and the tables beside it.

    python benchmarks/umls_rows.py --rows 5000000 --out DIR

Languages, vocabularies, term types, atoms a concept (4 on average, with a long tail), names that repeat within
and across concepts and bytes a row follow the release of 2024; names are made of invented syllables. Equal
arguments give equal files.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

Ints = npt.NDArray[np.int64]

# Share of the rows; syllables of its script, what stands between words; SAB -> share, TTY -> share.
_LATIN = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_CYRILLIC = [c + v for c in "бвгдклмнпрст" for v in "аеиоу"]
_KANA = list(
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン"
)
_HAN = list("性症病炎癌肝腎肺心脳血管骨筋膜神経腺胃腸皮内外急慢小大多化合物質酸素体組織細胞")
_HANGUL = [chr(0xAC00 + 28 * 21 * c + 28 * v) for c in (0, 2, 3, 5, 6, 7, 9) for v in (0, 4, 8, 13)]
_ACCENTED = [c + v for c in "bcdlmnprst" for v in "aeioáéíóãç"]
_ENGLISH = {
    "SNOMEDCT_US": (0.17, {"PT": 0.32, "FN": 0.30, "SY": 0.38}),
    "NCBI": (0.15, {"SCN": 0.75, "SY": 0.25}),
    "MSH": (0.10, {"MH": 0.04, "NM": 0.32, "ET": 0.24, "PEP": 0.05, "N1": 0.35}),
    "RXNORM": (0.06, {"SCD": 0.2, "SBD": 0.1, "IN": 0.1, "SY": 0.3, "PSN": 0.3}),
    "LNC": (0.07, {"LN": 0.25, "LC": 0.25, "OSN": 0.25, "LPN": 0.25}),
    "MTH": (0.06, {"PN": 0.6, "SY": 0.4}),
    "NCI": (0.06, {"PT": 0.35, "SY": 0.6, "AB": 0.05}),
    "MEDCIN": (0.08, {"PT": 0.7, "SY": 0.3}),
    "ICD10PCS": (0.03, {"PT": 0.5, "AB": 0.5}),
    "ICD10CM": (0.03, {"PT": 0.4, "HT": 0.1, "AB": 0.4, "ET": 0.1}),
    "GO": (0.04, {"PT": 0.3, "SY": 0.5, "ET": 0.2}),
    "OMIM": (0.03, {"PT": 0.3, "PTAV": 0.2, "ACR": 0.3, "SYN": 0.2}),
    "HGNC": (0.02, {"PT": 0.3, "ACR": 0.3, "SYN": 0.4}),
    "CHV": (0.03, {"PT": 0.4, "SY": 0.6}),
    "FMA": (0.02, {"PT": 0.7, "SY": 0.3}),
    "MDR": (0.02, {"PT": 0.25, "LLT": 0.75}),
    "HPO": (0.01, {"PT": 0.5, "SY": 0.5}),
    "MTHSPL": (0.02, {"SU": 0.4, "DP": 0.6}),
}
_MESH_AND_MEDDRA = {"MH": 0.3, "ET": 0.3, "PT": 0.2, "LLT": 0.2}
LANGUAGES: dict[str, tuple[float, list[str], str, dict[str, tuple[float, dict[str, float]]]]] = {
    "ENG": (0.655, _LATIN, " ", _ENGLISH),
    "SPA": (
        0.105,
        _ACCENTED,
        " ",
        {"SCTSPA": (0.75, {"PT": 0.4, "FN": 0.4, "SY": 0.2}), "MSHSPA": (0.25, _MESH_AND_MEDDRA)},
    ),
    "POR": (
        0.035,
        _ACCENTED,
        " ",
        {"MSHPOR": (0.6, _MESH_AND_MEDDRA), "MDRPOR": (0.4, {"LLT": 1})},
    ),
    "FRE": (
        0.035,
        _ACCENTED,
        " ",
        {"MSHFRE": (0.6, _MESH_AND_MEDDRA), "MDRFRE": (0.4, {"LLT": 1})},
    ),
    "RUS": (0.03, _CYRILLIC, " ", {"MSHRUS": (0.6, _MESH_AND_MEDDRA), "MDRRUS": (0.4, {"LLT": 1})}),
    "JPN": (
        0.03,
        _KANA + _HAN,
        "",
        {"MSHJPN": (0.5, _MESH_AND_MEDDRA), "MDRJPN": (0.5, {"LLT": 0.5, "LLTJKN": 0.5})},
    ),
    "DUT": (0.025, _LATIN, " ", {"MSHDUT": (0.5, _MESH_AND_MEDDRA), "MDRDUT": (0.5, {"LLT": 1})}),
    "GER": (0.022, _LATIN, " ", {"MSHGER": (0.5, _MESH_AND_MEDDRA), "MDRGER": (0.5, {"LLT": 1})}),
    "ITA": (0.02, _ACCENTED, " ", {"MSHITA": (0.5, _MESH_AND_MEDDRA), "MDRITA": (0.5, {"LLT": 1})}),
    "CZE": (
        0.018,
        _ACCENTED,
        " ",
        {"MSHCZE": (0.6, _MESH_AND_MEDDRA), "MDRCZE": (0.4, {"LLT": 1})},
    ),
    "KOR": (0.01, _HANGUL, " ", {"KCD5": (0.4, {"PT": 1}), "MDRKOR": (0.6, {"LLT": 1})}),
    "CHI": (0.01, _HAN, "", {"MDRCHI": (0.8, {"LLT": 1}), "LNC-ZH-CN": (0.2, {"LN": 1})}),
    "SWE": (0.005, _LATIN, " ", {"MSHSWE": (1, {"MH": 0.6, "ET": 0.4})}),
}
_TYPES = {  # TUI -> share
    "T204": 0.2, "T002": 0.1, "T007": 0.1, "T121": 0.1, "T109": 0.1, "T116": 0.05, "T047": 0.1, "T033": 0.1,
    "T061": 0.05, "T023": 0.05, "T191": 0.05,
}  # fmt: skip
_WORDS = 30_000  # of a script
_STEP = 500_000


def _drawn(rng: np.random.Generator, shares: Sequence[float], size: int) -> Ints:
    odds = np.asarray(shares, float)
    return rng.choice(len(odds), size, p=odds / odds.sum())


def _words(rng: np.random.Generator, syllables: list[str], count: int) -> pa.Array:
    """Invented words of 2 to 5 syllables, of 1 to 3 where a syllable is a letter."""
    least = 1 if len(syllables[0]) == 1 else 2
    lengths = rng.integers(least, least + (3 if least == 1 else 4), count)
    parts = pa.array(syllables).take(pa.array(rng.integers(0, len(syllables), int(lengths.sum()))))
    return pc.binary_join(_lists(lengths, parts), "")


def _lists(lengths: Ints, values: pa.Array) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _id(letter: str, numbers: Ints, digits: int) -> pa.Array:
    """Numbers with leading zeros behind a letter."""
    texts = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(letter, texts, "")


class _Kinds:
    """The combinations of language, vocabulary and term type, and how often each is drawn."""

    def __init__(self) -> None:
        rows = [
            (language, sab, tty, of_language * of_sab * of_tty)
            for language, (of_language, _, _, sabs) in LANGUAGES.items()
            for sab, (of_sab, types) in sabs.items()
            for tty, of_tty in types.items()
        ]
        self.languages, self.sabs, self.types, self.shares = map(list, zip(*rows, strict=True))

    def column(self, values: list[str], drawn: Ints) -> pa.Array:
        return pa.array(values).take(pa.array(drawn))


def _write(file: BinaryIO, columns: list[pa.Array | str]) -> None:
    """Rows of cells between bars, and a bar at the end."""
    size = next(len(column) for column in columns if not isinstance(column, str))
    arrays = [pa.repeat(c, size) if isinstance(c, str) else c for c in [*columns, ""]]
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="|", quoting_style="none")
    pyarrow.csv.write_csv(pa.table(arrays, [str(n) for n in range(len(arrays))]), file, options)


def _atoms(
    rng: np.random.Generator, kinds: _Kinds, words: list[pa.Array], first: int, rows: int, seen: int
) -> tuple[list[pa.Array | str], Ints]:
    """MRCONSO's columns of about `rows` atoms of the concepts from `first` on, and how many each has."""
    counts = np.minimum(
        rng.geometric(0.4, rows // 4) + rng.pareto(2.5, rows // 4).astype(int) * 2, 200
    )
    counts = counts[: np.searchsorted(np.cumsum(counts), rows) + 1]
    counts[-1] -= counts.sum() - rows
    concepts = np.repeat(np.arange(first, first + len(counts)), counts)
    kind = _drawn(rng, kinds.shares, rows)
    order = np.lexsort(
        (kind, concepts)
    )  # kinds are listed by language, and so are atoms of a concept
    kind = kind[order]
    language = np.array([list(LANGUAGES).index(one) for one in kinds.languages])[kind]

    # A third of the atoms repeat the name before, as one vocabulary has it from another.
    follows = (np.diff(concepts, prepend=-1) == 0) & (np.diff(language, prepend=-1) == 0)
    new = ~(follows & (rng.random(rows) < 0.35))
    lengths = rng.integers(1, 8, rows)
    names = _names(rng, words, language, lengths)
    names = names.take(pa.array(np.maximum.accumulate(np.where(new, np.arange(rows), 0))))
    names = pc.if_else(pa.array(rng.random(rows) < 0.3), pc.utf8_capitalize(names), names)

    begins = np.diff(concepts * 100 + language, prepend=-1) != 0  # of a language within a concept
    suppress = pa.array(["N", "O", "Y", "E"]).take(pa.array(_drawn(rng, [90, 6, 3, 1], rows)))
    numbers = np.arange(seen + 1, seen + rows + 1)
    codes = pa.array(rng.integers(10**4, 10**8, rows)).cast(pa.string())
    columns: list[pa.Array | str] = [
        _id("C", concepts, 7),
        kinds.column(kinds.languages, kind),
        pc.if_else(pa.array(begins), "P", "S"),
        _id("L", numbers, 7),
        pc.if_else(pa.array(new), "PF", "VC"),
        _id("S", numbers, 7),
        pc.if_else(pa.array(new), "Y", "N"),
        _id("A", numbers, 8),
        "",
        pc.if_else(pa.array(rng.random(rows) < 0.5), codes, ""),
        "",
        kinds.column(kinds.sabs, kind),
        kinds.column(kinds.types, kind),
        codes,
        names,
        pa.array(_restriction(kinds)).take(pa.array(kind)),
        suppress,
        pc.if_else(pa.array(rng.random(rows) < 0.3), "256", ""),
    ]
    return columns, counts


def _names(
    rng: np.random.Generator, words: list[pa.Array], language: Ints, lengths: Ints
) -> pa.Array:
    """A name for each row, in its language's words."""
    parts, order = [], []
    for number, (of_language, (_, _, between, _)) in enumerate(
        zip(words, LANGUAGES.values(), strict=True)
    ):
        rows = np.flatnonzero(language == number)
        # Few words are frequent, as in any language.
        drawn = (rng.random(int(lengths[rows].sum())) ** 2 * len(of_language)).astype(np.int64)
        parts.append(pc.binary_join(_lists(lengths[rows], of_language.take(drawn)), between))
        order.append(rows)
    back = np.argsort(np.concatenate(order), kind="stable")
    return pa.concat_arrays(parts).take(pa.array(back))


def _restriction(kinds: _Kinds) -> list[str]:
    levels = {"SNOMEDCT_US": "9", "SCTSPA": "9", "MEDCIN": "3"}
    return [levels.get(sab, "3" if sab.startswith(("MDR", "MSH")) else "0") for sab in kinds.sabs]


def write_release(rows: int, out: Path, seed: int = 0) -> None:
    """A META directory in `out`."""
    rng, kinds = np.random.default_rng(seed), _Kinds()
    words = [_words(rng, syllables, _WORDS) for _, syllables, _, _ in LANGUAGES.values()]
    meta = out / "META"
    meta.mkdir(parents=True, exist_ok=True)
    concepts, seen = 1, 0
    names = ("MRCONSO", "MRSTY", "MRDEF", "MRCUI")
    with ExitStack() as stack:
        files = [stack.enter_context((meta / f"{name}.RRF").open("wb")) for name in names]
        conso, sty, definitions, retired = files
        while seen < rows:
            size = min(_STEP, rows - seen)
            columns, counts = _atoms(rng, kinds, words, concepts, size, seen)
            _write(conso, columns)
            first, concepts, seen = concepts, concepts + len(counts), seen + size

            typed = np.repeat(
                np.arange(first, concepts), rng.choice([1, 2], len(counts), p=[0.85, 0.15])
            )
            tuis = pa.array(list(_TYPES)).take(
                pa.array(_drawn(rng, list(_TYPES.values()), len(typed)))
            )
            _write(sty, [_id("C", typed, 7), tuis, "", "", _id("AT", typed, 8), "256"])

            defined = np.flatnonzero(rng.random(len(counts)) < 0.12) + first
            texts = _names(rng, words[:1] * len(words), np.zeros(len(defined), int), rng.integers(8, 60, len(defined)))  # fmt: skip
            sabs = pa.array(["MSH", "NCI", "SNOMEDCT_US"]).take(pa.array(defined % 3))
            ids = [_id(letter, defined, 8) for letter in ("A", "AT")]
            _write(definitions, [_id("C", defined, 7), *ids, "", sabs, texts, "N", ""])

            kept = np.flatnonzero(rng.random(len(counts)) < 0.1) + first
            _write(
                retired,
                [_id("C", kept + 5_000_000, 7), "2001AA", "SY", "", "", _id("C", kept, 7), "Y"],
            )

    pairs = sorted(set(zip(kinds.sabs, kinds.types, strict=True)))
    lines = [f"{len(pairs) - n:04d}|{sab}|{tty}|N|\n" for n, (sab, tty) in enumerate(pairs)]
    (meta / "MRRANK.RRF").write_text("".join(lines))
    told = zip(kinds.sabs, kinds.languages, _restriction(kinds), strict=True)
    lines = [
        f"C9{n:06d}|C8{n:06d}|{sab}_2024|{sab}|The {sab}|{sab}|2024|||2024AA||||{srl}|1|1||||{lat}|UTF-8|Y|Y|||\n"
        for n, (sab, lat, srl) in enumerate(dict.fromkeys(told))
    ]
    (meta / "MRSAB.RRF").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_release(given.rows, given.out, given.seed)


if __name__ == "__main__":
    main()
