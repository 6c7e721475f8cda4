"""UMLS: names from MRCONSO, semantic types, definitions, retired ids; a META directory, the release zip, `.nlm`.

`languages` keeps names only; `vocabularies` (SABs), `suppressible`, `obsolete` also say which atoms may give
cross-references and definitions; `semantic_types` and `semantic_groups` keep concepts that have one of them.
Of MRCONSO's companions MRSTY, MRDEF, MRCUI, MRRANK and MRSAB those are read that are there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bioelx_mcp.errors import UsageError
from bioelx_mcp.language import normalize_language, speaks, wanted_languages
from bioelx_mcp.semantic_types import semantic_type, types_of
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.rrf import CUI, Release, read_rows

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]

# SAB -> prefix of its codes as CURIEs, and the term types (TTY) that name the thing that has the code. Entry
# terms, abbreviations and old names are left out: they may stand in a concept of their own, under the same code.
_HEADINGS = {"PT", "HT"}
XREFS: dict[str, tuple[str, set[str]]] = {
    "ATC": ("ATC", {"PT", "IN"}),
    "DRUGBANK": ("DRUGBANK", {"IN"}),
    "FMA": ("FMA", {"PT"}),
    "GO": ("GO", {"PT"}),
    "HGNC": ("HGNC", {"PT", "ACR"}),
    "HPO": ("HP", {"PT"}),
    "ICD10": ("ICD10", _HEADINGS),
    "ICD10CM": ("ICD10CM", _HEADINGS),
    "ICD9CM": ("ICD9CM", _HEADINGS),
    "LNC": ("LOINC", {"LN", "LPN", "LA"}),
    "MDR": ("MEDDRA", {"PT", "HT", "HG", "OS"}),
    "MONDO": ("MONDO", {"PT"}),
    "MSH": ("MESH", {"MH", "NM", "TQ"}),
    "MTHSPL": ("UNII", {"SU"}),
    "NCBI": ("NCBITaxon", {"SCN"}),
    "NCI": ("NCIT", {"PT"}),
    "OMIM": ("OMIM", {"PT"}),
    "ORPHANET": ("ORPHA", {"PT"}),
    "RXNORM": (
        "RXNORM",
        set("IN PIN MIN BN SCD SBD SCDC SBDC SCDF SBDF SCDG SBDG GPCK BPCK DF DFG".split()),
    ),
    "SNOMEDCT_US": ("SNOMEDCT", {"PT"}),
}
_NO_CODE = "^(?:NOCODE|MTHU.*|)$"  # made up by the Metathesaurus where the vocabulary has none
_OWN_PREFIX = "^(?:[A-Za-z]+[:_]|ORPHA)"  # as in HP:0000001, Orphanet_1

# Whose definition is taken where several define a concept: those that write for readers who do not know it.
DEFINITIONS = ("MSH", "NCI", "HPO", "MONDO", "GO", "FMA", "SNOMEDCT_US", "CSP", "MEDLINEPLUS")

# Columns: what a _Shared is made of; whether an atom is its concept's preferred name; the small tables.
_SHARED = ("LAT", "SAB", "TTY", "SRL", "SUPPRESS")
_STATUS = ("TS", "STT", "ISPREF")
_RANK = ("RANK", "SAB", "TTY", "SUPPRESS")
_VOCABULARY = ("RSAB", "VSAB", "SVER", "SRL", "LAT", "CURVER", "SABIN")


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """What MRSAB says about the current version of a vocabulary."""

    version: str
    license: str
    language: str


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known before any name is read."""

    tables: dict[str, int]  # name -> bytes on disk
    ranks: dict[tuple[str, str, str], int]  # by SAB, TTY, SUPPRESS
    vocabularies: dict[str, _Vocabulary]  # by SAB


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all atoms of one LAT, SAB, TTY, SRL and SUPPRESS have in common."""

    named: bool  # they give names
    rank: int
    license: str
    prefix: str  # of a cross-reference; empty: they give none


class UmlsSource(Source):
    """A release, or a subset that MetamorphoSys wrote.

    `suppressible` also keeps what NLM's editors or defaults suppress (SUPPRESS E, Y), `obsolete` what is
    obsolete (O). Groups are codes or names (`DISO`, `Disorders`), types names or TUIs.
    """

    vocabularies: tuple[str, ...] = ()
    suppressible: bool = False
    obsolete: bool = False
    semantic_types: tuple[str, ...] = ()
    semantic_groups: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(_facts(self.path).tables.values())

    def check(self) -> None:
        super().check()
        _facts.cache_clear()  # the files may have changed since an earlier build of this process
        _concepts_of.cache_clear()
        facts = _facts(self.path)
        try:
            wanted = self._tuis
        except UsageError as error:
            raise UsageError(f"source {self.path}: {error}") from error
        if wanted and "MRSTY" not in facts.tables:
            raise UsageError(f"source {self.path}: no MRSTY, so no choice by semantic type")
        for sab in self.vocabularies if facts.vocabularies else ():
            if sab not in facts.vocabularies:
                known = sorted(facts.vocabularies)
                near = ", ".join(get_close_matches(sab.upper(), known) or known)
                raise UsageError(
                    f"source {self.path}: no vocabulary {sab!r} in MRSAB; near it: {near}"
                )

    @property
    def _tuis(self) -> tuple[str, ...]:
        return tuple(one.tui for one in types_of(self.semantic_groups, self.semantic_types))

    def versions(self) -> dict[str, str]:
        return {
            sab: vocabulary.version
            for sab, vocabulary in sorted(_facts(self.path).vocabularies.items())
            if not self.vocabularies or sab in self.vocabularies
        }

    def blocks(self) -> Iterator[Block]:
        before = 0
        with Release(self.path) as release:
            for table in release.tables.values():
                for block in table.blocks():
                    yield replace(block, position=before + block.position)
                before += table.size

    def parse(self, block: Block, rows: Rows) -> None:
        match Path(block.file).stem:
            case "MRCONSO":
                self._read_atoms(block, rows)
            case "MRSTY":
                self._read_types(block, rows)
            case "MRDEF":
                self._read_definitions(block, rows)
            case "MRCUI":
                self._read_retired(block, rows)
            case "MRRANK":  # read whole where it is needed; here only its bad rows are of interest
                read_rows(block, rows, *_RANK)
            case "MRSAB":
                read_rows(block, rows, *_VOCABULARY)

    def _read_atoms(self, block: Block, rows: Rows) -> None:
        atoms = read_rows(block, rows, "CUI", *_SHARED, *_STATUS, "CODE", "STR")
        atoms = self._of_wanted_types(atoms)
        of_atom, shared = _told(atoms, _SHARED, self._shared)

        named = np.array([one.named for one in shared], bool)[of_atom]
        names, of_name = atoms.filter(pa.array(named)), pa.array(of_atom[named])
        status = pc.binary_join_element_wise(*(names[column] for column in _STATUS), "|")
        aliases = {
            "concept_id": _curies("UMLS", names["CUI"]),
            "text": names["STR"],
            "language": names["LAT"],
            "kind": pc.if_else(pc.equal(status, "P|PF|Y"), "preferred", "synonym"),
            "source": names["SAB"],
            "license": pa.array([one.license for one in shared], pa.string()).take(of_name),
            "rank": pa.array([one.rank for one in shared], pa.int32()).take(of_name),
            "line": names["line"],
        }
        rows.add_aliases(pa.table(aliases))

        coded = np.array([bool(one.prefix) for one in shared], bool)[of_atom]
        codes, of_code = atoms.filter(pa.array(coded)), pa.array(of_atom[coded])
        prefixes = pa.array([one.prefix for one in shared], pa.string()).take(of_code)
        xrefs = _curies(prefixes, pc.replace_substring_regex(codes["CODE"], _OWN_PREFIX, ""))
        real = pc.invert(pc.match_substring_regex(codes["CODE"], _NO_CODE))
        _describe_runs(rows, codes.filter(real), "xrefs", xrefs.filter(real))

    def _shared(self, language: str, sab: str, tty: str, srl: str, suppress: str) -> _Shared:
        facts = _facts(self.path)
        kept = self._keeps(sab, suppress)
        prefix, types = XREFS.get(sab, ("", _HEADINGS))
        vocabulary = facts.vocabularies.get(sab)
        return _Shared(
            named=kept and self._speaks(language),
            rank=facts.ranks.get((sab, tty, suppress), 0),
            license=f"UMLS SRL {vocabulary.license if vocabulary else srl}",
            prefix=prefix if kept and tty in types else "",
        )

    def _keeps(self, sab: str, suppress: str) -> bool:
        if self.vocabularies and sab not in self.vocabularies:
            return False
        return self.obsolete if suppress == "O" else self.suppressible or suppress not in ("E", "Y")

    def _speaks(self, language: str) -> bool:
        """Whether names in it are wanted; one that is not understood is left to the later stages."""
        tag = normalize_language(language)
        wanted = wanted_languages(self.languages)
        return not wanted or not tag or speaks(tag, wanted)

    def _of_wanted_types(self, table: pa.Table) -> pa.Table:
        """The rows whose CUI has one of the wanted semantic types."""
        if not self._tuis:
            return table
        numbers = pc.cast(pc.utf8_replace_slice(table["CUI"], 0, 1, ""), pa.int32())
        return table.filter(pa.array(_concepts_of(self.path, self._tuis)[numbers.to_numpy()]))

    def _read_types(self, block: Block, rows: Rows) -> None:
        types = self._of_wanted_types(read_rows(block, rows, "CUI", "TUI", "STY"))
        # The full release leaves the names out; a TUI of long ago has one only there.
        of_row, told = _told(types, ("TUI", "STY"), _type_name)
        names = pa.array(told, pa.string()).take(pa.array(of_row))
        known = pc.not_equal(names, "")
        for row in types.filter(pc.invert(known)).to_pylist():
            rows.set_aside("no such semantic type", row["line"], f"{row['CUI']}|{row['TUI']}|")
        _describe_runs(rows, types.filter(known), "semantic_types", names.filter(known))

    def _read_definitions(self, block: Block, rows: Rows) -> None:
        table = read_rows(block, rows, "CUI", "SAB", "SUPPRESS", "DEF")
        table = self._of_wanted_types(table)
        of_row, places = _told(table, ("SAB", "SUPPRESS"), self._place)
        place = pa.array(places, pa.int32()).take(pa.array(of_row))
        table = table.append_column("place", place).filter(pc.greater_equal(place, 0))
        table = table.sort_by([(name, "ascending") for name in ("CUI", "place", "line")])
        best = table.take(_starts(table["CUI"]))
        _describe(rows, best, "definition", best["DEF"])

    def _place(self, sab: str, suppress: str) -> int:
        """Where a vocabulary's definition stands among those of a concept; -1: nowhere."""
        if not self._keeps(sab, suppress):
            return -1
        vocabulary = _facts(self.path).vocabularies.get(sab)
        foreign = vocabulary is not None and vocabulary.language not in ("ENG", "")
        known = DEFINITIONS.index(sab) if sab in DEFINITIONS else len(DEFINITIONS)
        return known + foreign * (len(DEFINITIONS) + 1)

    def _read_retired(self, block: Block, rows: Rows) -> None:
        table = read_rows(block, rows, "CUI1", "REL", "CUI2")
        same = pc.and_(pc.equal(table["REL"], "SY"), pc.match_substring_regex(table["CUI2"], CUI))
        table = table.filter(same).rename_columns(["CUI1", "REL", "CUI", "line"])
        table = self._of_wanted_types(table)
        _describe_runs(rows, table, "alt_ids", _curies("UMLS", table["CUI1"]))


def _type_name(tui: str, name: str) -> str:
    known = semantic_type(tui)
    return known.name if known else name


def _told(
    table: pa.Table, columns: tuple[str, ...], tell: Callable[..., T]
) -> tuple[npt.NDArray[np.int32], list[T]]:
    """What is told about each combination of these columns' values, once, and which one each row has."""
    joined = pc.binary_join_element_wise(*(table[column] for column in columns), "|")
    encoded = joined.combine_chunks().dictionary_encode()
    told = [tell(*values.split("|")) for values in encoded.dictionary.to_pylist()]
    return encoded.indices.to_numpy(), told


def _curies(prefix: "str | pa.Array", local: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(prefix, local, ":")


def _starts(ids: pa.ChunkedArray) -> pa.Array:
    """Where a run of equal ids begins; a release is sorted by CUI."""
    ids = ids.combine_chunks()
    new = np.ones(len(ids), bool)
    new[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return pa.array(np.flatnonzero(new), pa.int32())


def _describe(rows: Rows, table: pa.Table, column: str, values: pa.Array) -> None:
    """Add a fact about the concept of each row."""
    ids = _curies("UMLS", table["CUI"])
    if table.num_rows:
        rows.add_concepts(pa.table({"concept_id": ids, column: values, "line": table["line"]}))


def _describe_runs(rows: Rows, table: pa.Table, column: str, values: pa.ChunkedArray) -> None:
    """Add a list of facts about each run of one CUI."""
    starts = _starts(table["CUI"])
    ends = pa.concat_arrays([starts, pa.array([table.num_rows], pa.int32())])
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    _describe(rows, table.take(starts), column, pa.ListArray.from_arrays(ends, values))


@lru_cache(maxsize=4)
def _facts(path: Path) -> _Facts:
    with Release(path) as release:
        return _Facts(
            tables={name: table.size for name, table in release.tables.items()},
            ranks={
                (row["SAB"], row["TTY"], row["SUPPRESS"]): int(row["RANK"])
                for row in _rows_of(release, "MRRANK", _RANK)
                if row["RANK"].isdigit()
            },
            vocabularies={
                row["RSAB"]: _Vocabulary(row["SVER"] or row["VSAB"], row["SRL"], row["LAT"])
                for row in _rows_of(release, "MRSAB", _VOCABULARY)
                if "N" not in (row["CURVER"], row["SABIN"])
            },
        )


def _rows_of(release: Release, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The good rows of a small table; none where there is no such table."""
    if name in release.tables:
        for block in release.tables[name].blocks():
            yield from read_rows(block, Rows("", "", ""), *columns).to_pylist()


@lru_cache(maxsize=2)
def _concepts_of(path: Path, tuis: tuple[str, ...]) -> Mask:
    """For each number of a CUI whether it has one of these types: 10 MB, whatever the release."""
    wanted = np.zeros(10**7, bool)
    with Release(path) as release:
        for block in release.tables["MRSTY"].blocks():
            types = read_rows(block, Rows("", "", ""), "CUI", "TUI")
            ids = types.filter(pc.is_in(types["TUI"], pa.array(tuis)))["CUI"]
            wanted[pc.cast(pc.utf8_replace_slice(ids, 0, 1, ""), pa.int32()).to_numpy()] = True
    return wanted
