"""An entity of Wikidata's JSON, cut down to what a build wants: its ids, its names, how well it is known."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from bioelx_mcp.language import normalize_language, speaks, wanted_languages
from bioelx_mcp.schema import AliasKind
from bioelx_mcp.text import normalize_concept_id, split_disambiguation

_WITH_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9.]*[:_]")


class Label(NamedTuple):
    """What is known of a name beside its text and language. `source` is empty for Wikidata itself."""

    kind: AliasKind
    source: str = ""
    disambiguation: str = ""


class Item(NamedTuple):
    """An entity that bears ids: a list of them for each property, in the order of the properties."""

    ids: list[list[str]]
    names: dict[tuple[str, str], Label]  # by text and language
    definition: str
    popularity: int  # pages in Wikipedias


def read_item(
    entity: Any,
    properties: Mapping[str, str],
    languages: tuple[str, ...],
    refuse: Callable[[str, str], None],
) -> Item | None:
    """What we want of an entity; None where no property gives it an id.

    `refuse` is told the property and the value of which no id can be made.

    Raises:
        KeyError, TypeError, AttributeError: this is not how Wikidata writes an entity.
    """
    ids = _ids(entity.get("claims") or {}, properties, refuse)
    if not ids:
        return None
    # An empty mapping may be written as an empty list: old dumps did.
    names: dict[tuple[str, str], Label] = {}
    for code, label in (entity.get("labels") or {}).items():
        _add(names, label["value"].strip(), code, languages, Label("preferred"))
    for code, aliases in (entity.get("aliases") or {}).items():
        for alias in aliases:
            _add(names, alias["value"].strip(), code, languages, Label("synonym"))
    editions = 0
    for site, link in (entity.get("sitelinks") or {}).items():
        if code := edition_language(site):
            text, disambiguation = split_disambiguation(link["title"])
            _add(names, text, code, languages, Label("synonym", "wikipedia", disambiguation))
            editions += 1
    described = (entity.get("descriptions") or {}).get("en") or {"value": ""}
    return Item(ids, names, described["value"].strip(), editions)


def concept_id(value: str, prefix: str) -> str | None:
    """The CURIE of an identifier, which may bring its own prefix; None where it makes none."""
    return normalize_concept_id(value if _WITH_PREFIX.match(value) else f"{prefix}:{value}")


@lru_cache(maxsize=4096)
def wanted_tag(code: str, languages: tuple[str, ...]) -> str | None:
    """The tag of a language, None where nobody asked for it. What is no language goes on, to be reported."""
    tag = normalize_language(code)
    if not languages or not tag:
        return code if tag is None else tag
    return tag if speaks(tag, wanted_languages(languages)) else None


@lru_cache(maxsize=4096)
def edition_language(site: str) -> str:
    """The language of a Wikipedia by its site id; empty for every other project.

    Commons, Wikispecies, Meta and the like end in `wiki` as well, but what stands before it is no language.
    """
    code = site.removesuffix("wiki")
    return (normalize_language(code) or "") if code != site else ""


def _ids(
    claims: Mapping[str, Any], properties: Mapping[str, str], refuse: Callable[[str, str], None]
) -> list[list[str]]:
    found = []
    for name, prefix in properties.items():
        ids: dict[str, None] = {}
        for value in _values(claims[name]) if name in claims else ():
            if one := concept_id(value, prefix):
                ids[one] = None
            else:
                refuse(name, value)
        if ids:
            found.append(list(ids))
    return found


def _values(statements: list[dict[str, Any]]) -> list[str]:
    """The values of the best rank: preferred ones if there are any, deprecated ones never."""
    best = [s for s in statements if s["rank"] == "preferred"]
    best = best or [s for s in statements if s["rank"] != "deprecated"]
    snaks = [s["mainsnak"] for s in best]
    return [str(snak["datavalue"]["value"]) for snak in snaks if snak["snaktype"] == "value"]


def _add(
    names: dict[tuple[str, str], Label],
    text: str,
    code: str,
    languages: tuple[str, ...],
    label: Label,
) -> None:
    """Add a name; one that is there already stays, and learns what a title says in brackets."""
    language = wanted_tag(code, languages)
    if not text or language is None:
        return
    before = names.setdefault((text, language), label)
    if label.disambiguation and not before.disambiguation:
        names[text, language] = before._replace(disambiguation=label.disambiguation)
