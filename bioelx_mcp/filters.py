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

    def __init__(self, table: pa.Table) -> None:
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
            wanted = wanted_languages(filters.languages)
            known = [*self._languages, *map(primary_language, self._languages)]
            left &= self._passing(
                "languages",
                filters.languages,
                self._languages,
                lambda tag: speaks(tag, wanted),
                known,
            )
        if filters.types or filters.groups:
            left &= self._of_types(filters)
        if filters.vocabularies:
            names = {name.casefold().strip() for name in filters.vocabularies}
            left &= self._passing(
                "vocabularies",
                filters.vocabularies,
                self._sources,
                lambda sources: any(source.casefold() in names for source in sources),
                (source for sources in self._sources for source in sources),
            )
        if filters.prefixes:
            prefixes = {prefix.casefold().strip().rstrip(":") for prefix in filters.prefixes}
            left &= self._passing(
                "prefixes",
                filters.prefixes,
                self._prefixes,
                lambda prefix: prefix.casefold() in prefixes,
                self._prefixes,
            )
        if not left.any():
            told = "; ".join(
                f"{field} {', '.join(values)}" for field, values in _told(filters) if values
            )
            raise UsageError(
                f"no alias of the index passes all of the filters at once ({told}): leave one of them out"
            )
        return left

    def _of_types(self, filters: Filters) -> NDArray[np.bool_]:
        names = {name.casefold().strip() for name in filters.types}
        umls = set(types_of(groups=filters.groups))
        umls |= {one for one in map(semantic_type, filters.types) if one is not None}

        def passes(types: list[str]) -> bool:
            return any(name.casefold() in names or semantic_type(name) in umls for name in types)

        field = "types" if filters.types else "groups"
        known = (name for types in self._types for name in types)
        return self._passing(field, filters.types or filters.groups, self._types, passes, known)

    def _passing(
        self,
        field: str,
        asked: Iterable[str],
        values: Sequence[Any],
        passes: Callable[[Any], bool],
        known: Iterable[str],
    ) -> NDArray[np.bool_]:
        """Bool (facets,): whose value passes.

        Raises:
            UsageError: none does; the message says what was asked for, and what the index has.
        """
        left = np.fromiter(map(passes, values), np.bool_, len(values))
        if left.any():
            return left
        raise UsageError(f"{field}: {_nearest(list(asked), sorted({one for one in known if one}))}")


def _nearest(asked: list[str], known: list[str]) -> str:
    """What an index lacks, and those of its own that are spelt most alike, else some of them."""
    by_key = {name.casefold(): name for name in known}
    near = [
        by_key[key]
        for one in asked
        for key in get_close_matches(one.casefold(), by_key, n=3, cutoff=0.6)
    ]
    lacks = f"the index has none of {', '.join(map(repr, asked))}"
    if near:
        return f"{lacks}; did you mean {', '.join(dict.fromkeys(near))}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{lacks}; it has {', '.join(known[:_SHOWN]) or 'no value there at all'}{more}"


def _told(filters: Filters) -> list[tuple[str, tuple[str, ...]]]:
    return [(field, getattr(filters, field)) for field in Filters.__slots__]
