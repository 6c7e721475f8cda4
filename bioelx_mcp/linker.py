"""Linker: the Python API. Server, command line and evaluation call this and nothing below it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from bioelx_mcp.backends.vllm_http import VllmHttpBackend
from bioelx_mcp.builder import ensure_starter_index
from bioelx_mcp.errors import UsageError
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import Manifest
from bioelx_mcp.prompt import load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.retriever import Retriever, check_mention
from bioelx_mcp.schema import AliasHit, Candidate, Concept, Filters, Mention, Ranking
from bioelx_mcp.settings import Settings, load_settings
from bioelx_mcp.text import normalize_concept_id

_NAMES_SHOWN = 12


class Linker:
    """Links mentions to the concepts of one index.

    linker = Linker.open()
    for ranking in linker.link(["Herzinfarkt", "ไซนัสอักเสบ"]):
        print(ranking.mention.text, ranking.best)
    """

    def __init__(self, index: AliasIndex, settings: Settings) -> None:
        self._index = index
        self._retriever = Retriever(index)
        backend = settings.ranker_url and VllmHttpBackend(
            settings.ranker_url,
            model=settings.ranker_model,
            key=settings.ranker_key,
            timeout=settings.ranker_timeout,
        )
        self._ranker = Ranker(self._describe, load_prompt(settings.prompt), backend or None)

    @classmethod
    def open(cls, index: Path | str | None = None, **arguments: Any) -> Self:
        """Open an index; without one, the starter index (made in the user's cache on first use).

        Args:
            index: an index directory.
            arguments: other fields of `settings.Settings`, such as `ranker_url`.

        Raises:
            UsageError: a setting is wrong.
            MissingArtifactError: there is no index or prompt.
            InvalidArtifactError: the index or prompt is broken.
        """
        return cls.from_settings(load_settings(index=index, **arguments))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        directory = settings.index or ensure_starter_index(settings.cache)
        return cls(AliasIndex(directory, threads=settings.threads), settings)

    @property
    def index(self) -> AliasIndex:
        """The opened index, for evaluation; its rows are no part of the API."""
        return self._index

    @property
    def ranks(self) -> bool:
        """Whether there is a ranker; without one the retrieval order stands."""
        return self._ranker.backend is not None

    @property
    def manifest(self) -> Manifest:
        return self._index.manifest

    def search(
        self, mentions: Iterable[Mention | str], limit: int = 10, filters: Filters | None = None
    ) -> list[list[Candidate]]:
        """For each mention its candidates, best first, distinct, at most `limit`; only such as pass the filters.

        Raises:
            UsageError: a mention is empty or too long, the limit out of range, or the filters leave nothing.
        """
        return self._retriever.search_candidates([_mention(m) for m in mentions], limit, filters)

    def rank(self, items: Iterable[tuple[Mention | str, Sequence[Candidate]]]) -> list[Ranking]:
        """For each mention with its candidates a ranking of exactly these; degrades, never fails."""
        return self._ranker.rank_candidates(
            [(_mention(mention), candidates) for mention, candidates in items]
        )

    def link(
        self, mentions: Iterable[Mention | str], limit: int = 10, filters: Filters | None = None
    ) -> list[Ranking]:
        """Search, then rank: one ranking a mention; `best` is the answer, None where nothing fits."""
        given = [_mention(m) for m in mentions]
        return self.rank(zip(given, self.search(given, limit, filters), strict=True))

    def concept(self, concept_id: str) -> Concept | None:
        """A concept by its id (any spelling) or an alternative id; None if the index does not hold it."""
        row = self._index.find_concept(concept_id)
        return None if row is None else self._index.concept(row)

    def names(self, concept_id: str) -> list[tuple[str, str]]:
        """(name, language) of a concept's aliases, preferred ones first; empty for an unknown id."""
        row = self._index.find_concept(concept_id)
        return [] if row is None else self._index.names(row)

    def complete(self, start: str, limit: int = 10) -> tuple[list[str], int]:
        """At most `limit` concept ids that begin as typed, in any spelling of the prefix, and how many do."""
        typed = start.strip()
        prefix, _, local = typed.replace("_", ":", 1).rpartition(":")
        spellings = [typed, normalize_concept_id(typed), f"{prefix}:{local}" if prefix else None]
        spellings += [typed.upper(), f"{prefix}:{local}".upper(), f"UMLS:{local}".upper()]
        for spelling in dict.fromkeys(each for each in spellings if each is not None):
            found, total = self._index.complete_id(spelling, limit)
            if found:
                return found, total
        return [], 0

    def candidates(self, mention: str, concept_ids: Iterable[str]) -> list[Candidate]:
        """Concepts as candidates for a mention, each once, in the order given; see `candidate`."""
        found = [self.candidate(mention, concept_id) for concept_id in concept_ids]
        return list({one.concept_id: one for one in found}.values())

    def candidate(self, mention: str, concept_id: str) -> Candidate:
        """A concept as candidate for a mention, as if it had been searched for by its id.

        Raises:
            UsageError: the index does not hold it, or the mention is empty or too long.
        """
        check_mention(mention)
        concept = self.concept(concept_id)
        if concept is None:
            raise UsageError(f"not in index {self.manifest.index_id}: {concept_id}")
        hit = AliasHit(mention, "", "", "id", 1.0)
        return Candidate(
            concept.concept_id, concept.preferred_name, concept.semantic_types, 1.0, hit
        )

    def _describe(self, candidate: Candidate) -> tuple[Concept, list[str]]:
        """The concept and its names: the one that matched, then English ones and those of the match's language.

        Of a candidate that is not of this index only what it says itself is known.
        """
        row = self._index.find_concept(candidate.concept_id)
        if row is None:
            told = (candidate.concept_id, candidate.preferred_name, candidate.semantic_types)
            return Concept(*told), [candidate.hit.alias]
        wanted = ("en", candidate.hit.language)
        names = [name for name, language in self._index.names(row) if language in wanted]
        matched = [] if candidate.hit.channel == "id" else [candidate.hit.alias]
        return self._index.concept(row), (matched + names)[:_NAMES_SHOWN]


def _mention(mention: Mention | str) -> Mention:
    return Mention(mention) if isinstance(mention, str) else mention
