"""The things everybody talks about: mention, filters, concept, alias, hit, candidate, ranking.

Plain frozen values without behaviour; the Arrow schemas of the two index tables stand in `manifest.py`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Channel = Literal["id", "exact", "lexical", "dense"]
AliasKind = Literal["preferred", "synonym", "translation", "related", "broad", "narrow"]
ALIAS_KINDS: tuple[AliasKind, ...] = get_args(AliasKind)  # the nearer to the concept, the earlier


@dataclass(frozen=True, slots=True)
class Mention:
    """A text to link, the text around it, and where it stands there.

    `start` is the mention's character offset in `context`; without it the first occurrence is meant. `language` (BCP-47)
    sways among concepts of one name, and excludes nothing.
    """

    text: str
    context: str = ""
    start: int | None = None
    language: str = ""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is confined to: of each field that is not empty, an alias must have one value.

    `languages` and `vocabularies` (sources) are those of the alias, `prefixes` those of the concept's id; `types`
    and `groups` are semantic types and groups of the concept, by name or code, and count as one field.
    """

    languages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    vocabularies: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.languages, self.types, self.groups, self.vocabularies, self.prefixes))


@dataclass(frozen=True, slots=True)
class Concept:
    """An entry of the knowledge base. `alt_ids` are further ids of the same thing, answered for as well.

    `parents` are the ids of broader concepts; `popularity` counts Wikipedia pages and the like, 0 if unknown.
    """

    concept_id: str
    preferred_name: str
    semantic_types: tuple[str, ...] = ()
    definition: str = ""
    xrefs: tuple[str, ...] = ()
    alt_ids: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    popularity: int = 0


@dataclass(frozen=True, slots=True)
class Alias:
    """One surface form of one concept. `language` is a BCP-47 tag, or empty where the source names none."""

    concept_id: str
    text: str
    language: str
    kind: AliasKind = "synonym"
    source: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class AliasHit:
    """An alias that one channel found for a mention; `similarity` in [0, 1], higher is nearer."""

    alias: str
    language: str
    source: str
    channel: Channel
    similarity: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A concept with its evidence. `retrieval_score` in [0, 1], comparable within one mention only.

    `hit` is the alias that speaks loudest for the concept.
    """

    concept_id: str
    preferred_name: str
    semantic_types: tuple[str, ...]
    retrieval_score: float
    hit: AliasHit


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A candidate after the ranker; `rank_score` is the probability that it is meant, or None if unranked."""

    candidate: Candidate
    rank_score: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A permutation of the candidates of one mention, best first.

    `best` is None for NIL: no candidate fits. `ranker` names what ordered them (`retrieval` for none);
    `degraded` holds the reason where a ranker was wanted and could not answer. `agreement` is the share of orders
    that agree on the first, where a second look was taken.
    """

    mention: Mention
    candidates: tuple[RankedCandidate, ...]
    best: RankedCandidate | None
    ranker: str
    degraded: str = ""
    agreement: float | None = None
