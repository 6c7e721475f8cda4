"""Which aliases a filter leaves: a mask over the rows of an index, found by way of its facets.

A facet is one combination of language, source, id prefix and semantic types; an index has few of them
(benchmarks/LOG.md), so that a filter is decided a facet at a time and is a set of their numbers for the lexicon.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError
from bioelx_mcp.language import primary_language, speaks, wanted_languages
from bioelx_mcp.schema import Filters
from bioelx_mcp.semantic_types import semantic_type, types_of

_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Scope:
    """What a filter leaves of an index.

    Attributes:
        facets: int64 (n,), the numbers of its facets.
        mask: bool (aliases,), the rows that are left; at least one is.
        concepts: bool (concepts,), those that have such a row.
    """

    facets: NDArray[np.int64]
    mask: NDArray[np.bool_]
    concepts: NDArray[np.bool_]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the mask, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def size(self) -> int:
        """How many aliases are left."""
        return int(self.mask.sum())

    @cached_property
    def concept_count(self) -> int:
        return int(self.concepts.sum())


class Facets:
    """The facets of an index, and what filters leave of them."""

    def __init__(self, table: pa.RecordBatch) -> None:
        """`table` has the rows of `manifest.FACETS_SCHEMA`, a facet's number being its row."""
        self._languages: list[str] = table["language"].to_pylist()
        self._sources = [source.split("|") for source in table["source"].to_pylist()]
        self._prefixes: list[str] = table["prefix"].to_pylist()
        self._types: list[list[str]] = table["semantic_types"].to_pylist()

    def select(self, filters: Filters) -> NDArray[np.bool_]:
        """Bool (facets,): those that the filter leaves, of which there is one.

        Raises:
            UsageError: it leaves none, or asks for a language or a semantic group that does not exist.
        """
        left = np.ones(len(self._languages), dtype=np.bool_)
        if filters.languages:
            known = [*self._languages, *map(primary_language, self._languages)]
            left &= _any("languages", filters.languages, _speaks, self._languages, known)
        if filters.types or filters.groups:
            left &= self._of_types(filters)
        if filters.vocabularies:
            known = [source for sources in self._sources for source in sources]
            left &= _any("vocabularies", filters.vocabularies, _holds, self._sources, known)
        if filters.prefixes:
            asked = [prefix.strip().rstrip(":") for prefix in filters.prefixes]
            left &= _any("prefixes", asked, _equals, self._prefixes, self._prefixes)
        if not left.any():
            told = "; ".join(
                f"{field} {', '.join(values)}" for field, values in _told(filters) if values
            )
            raise UsageError(
                f"no alias of the index passes all of the filters at once ({told}): leave one of them out"
            )
        return left

    def _of_types(self, filters: Filters) -> NDArray[np.bool_]:
        known = [name for types in self._types for name in types]
        left = np.zeros(len(self._types), dtype=np.bool_)
        if filters.types:
            left |= _any("types", filters.types, _has_type, self._types, known)
        if filters.groups:
            left |= _any("groups", filters.groups, _in_group, self._types, known)
        return left


Test = Callable[[Any], bool]
"""Whether a value of a facet passes."""


def _speaks(asked: str) -> Test:
    wanted = wanted_languages((asked,))
    return lambda tag: speaks(tag, wanted)


def _has_type(asked: str) -> Test:
    name, umls = asked.casefold().strip(), semantic_type(asked)
    return lambda types: any(
        one.casefold() == name or (umls is not None and semantic_type(one) == umls) for one in types
    )


def _in_group(asked: str) -> Test:
    group = set(types_of(groups=[asked]))
    return lambda types: any(semantic_type(one) in group for one in types)


def _holds(asked: str) -> Test:
    name = asked.casefold().strip()
    return lambda sources: any(source.casefold() == name for source in sources)


def _equals(asked: str) -> Test:
    return lambda prefix: bool(prefix.casefold() == asked.casefold())


def _any(
    field: str,
    asked: Iterable[str],
    test: Callable[[str], Test],
    values: Sequence[Any],
    known: Iterable[str],
) -> NDArray[np.bool_]:
    """Bool (facets,): whose value passes the test of one of the values that are asked for.

    Raises:
        UsageError: for one of these none does; the message says which, and what the index has.
    """
    left = np.zeros(len(values), dtype=np.bool_)
    for one in asked:
        passing = np.fromiter(map(test(one), values), np.bool_, len(values))
        if not passing.any():
            raise UsageError(f"{field}: {_nearest(one, sorted({name for name in known if name}))}")
        left |= passing
    return left


def _nearest(asked: str, known: list[str]) -> str:
    """What an index lacks, and those of its own that are spelt most alike, else some of them."""
    by_key = {name.casefold(): name for name in known}
    near = [by_key[key] for key in get_close_matches(asked.casefold(), by_key, n=3, cutoff=0.6)]
    lacks = f"the index has none of {asked!r}"
    if near:
        return f"{lacks}; did you mean {', '.join(near)}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{lacks}; it has {', '.join(known[:_SHOWN]) or 'no value there at all'}{more}"


def _told(filters: Filters) -> list[tuple[str, tuple[str, ...]]]:
    return [(field, getattr(filters, field)) for field in Filters.__slots__]
