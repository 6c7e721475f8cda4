"""The 127 semantic types of the UMLS Semantic Network and their 15 groups.

The table beside this file names each type by its TUI, as in `T047`, and its group by code and name, as in `DISO`
and `Disorders`. Groups: McCray, Burgun, Bodenreider: Aggregating UMLS semantic types (MEDINFO 2001). Case does
not matter in what is asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from bioelx_mcp.errors import UsageError


@dataclass(frozen=True, slots=True)
class SemanticType:
    """A semantic type, and the group it is in."""

    tui: str
    name: str
    group: str
    group_name: str


@cache
def semantic_types() -> tuple[SemanticType, ...]:
    """All types, by TUI."""
    table = Path(__file__).with_suffix(".tsv").read_text(encoding="utf-8")
    return tuple(SemanticType(*line.split("\t")) for line in table.splitlines()[1:])


def semantic_type(name_or_tui: str) -> SemanticType | None:
    """The type of this name or TUI; None where there is none."""
    return _by_name().get(_key(name_or_tui))


def semantic_group(name_or_tui: str) -> str | None:
    """The code of the group that this type is in; None where there is no such type."""
    found = semantic_type(name_or_tui)
    return found.group if found else None


def is_group(name: str) -> bool:
    """Whether this is the code or name of a semantic group."""
    return any(_key(name) in _group_keys(one) for one in semantic_types())


def types_of(groups: Iterable[str] = (), types: Iterable[str] = ()) -> tuple[SemanticType, ...]:
    """The types in these groups (codes or names), and these types (names or TUIs), by TUI.

    Raises:
        UsageError: there is no such group or type.
    """
    wanted: set[SemanticType] = set()
    for group in groups:
        found = {one for one in semantic_types() if _key(group) in _group_keys(one)}
        if not found:
            known = dict.fromkeys(f"{one.group} ({one.group_name})" for one in semantic_types())
            raise UsageError(f"no semantic group {group!r}; there are {', '.join(sorted(known))}")
        wanted |= found
    for name in types:
        one = semantic_type(name)
        if one is None:
            names = [one.name for one in semantic_types()]
            near = get_close_matches(name, names, n=3, cutoff=0.4) or names
            raise UsageError(f"no semantic type {name!r}; near it: {', '.join(near)}")
        wanted.add(one)
    return tuple(one for one in semantic_types() if one in wanted)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _group_keys(one: SemanticType) -> tuple[str, str]:
    return _key(one.group), _key(one.group_name)


@cache
def _by_name() -> dict[str, SemanticType]:
    types = semantic_types()
    return {_key(one.tui): one for one in types} | {_key(one.name): one for one in types}
