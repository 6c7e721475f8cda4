"""Linker: the Python API. Server, command line and evaluation call this and nothing below it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from bioelx_mcp.backends import Backend
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import BACKENDS, ProbingBackend
from bioelx_mcp.builder import ensure_starter_index
from bioelx_mcp.errors import UsageError
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.language import speaks
from bioelx_mcp.letters import SecondLook
from bioelx_mcp.manifest import Manifest
from bioelx_mcp.prompt import ListwisePrompt, PointwisePrompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.render import Description
from bioelx_mcp.retriever import Retriever, check_mention
from bioelx_mcp.schema import AliasHit, Candidate, Concept, Filters, Mention, Ranking
from bioelx_mcp.settings import Settings, load_settings
from bioelx_mcp.text import normalize_concept_id
from bioelx_mcp.weak import weakly

_TOLD = 12  # names of a candidate, and parents; the prompt takes fewer


class Linker:
    """Links mentions to the concepts of one index.

    linker = Linker.open()
    for ranking in linker.link(["Herzinfarkt", "ไซนัสอักเสบ"]):
        print(ranking.mention.text, ranking.best)
    """

    def __init__(self, index: AliasIndex, settings: Settings) -> None:
        self._index = index
        self._retriever = Retriever(index)
        self._ranker = open_ranker(settings, weakly(self._describe))

    @classmethod
    def open(cls, index: Path | str | None = None, **arguments: Any) -> Self:
        """Open an index; without one, the starter index (made in the user's cache on first use).

        Args:
            index: an index directory, or the URL s3://BUCKET/PREFIX of a published one.
            arguments: other fields of `settings.Settings`, such as `ranker_url`.

        Raises:
            UsageError: a setting is wrong.
            MissingArtifactError: there is no index or prompt.
            InvalidArtifactError: the index or prompt is broken.
        """
        return cls.from_settings(load_settings(index=index, **arguments))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        location = settings.index or ensure_starter_index(settings.cache)
        return cls(AliasIndex(location, threads=settings.threads, cache=settings.cache), settings)

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

    def rank(
        self,
        items: Iterable[tuple[Mention | str, Sequence[Candidate]]],
        stop: threading.Event | None = None,
    ) -> list[Ranking]:
        """For each mention with its candidates a ranking of exactly these; degrades, never fails.

        Many items in one call share the server's time: eight mentions are in flight.

        Raises:
            CancelledError: `stop` was set (by another thread); the requests in flight are closed.
        """
        return self._ranker.rank_candidates(
            [(_mention(mention), candidates) for mention, candidates in items], stop
        )

    def link(
        self,
        mentions: Iterable[Mention | str],
        limit: int = 10,
        filters: Filters | None = None,
        stop: threading.Event | None = None,
    ) -> list[Ranking]:
        """Search, then rank: one ranking a mention; `best` is the answer, None where nothing fits."""
        given = [_mention(m) for m in mentions]
        return self.rank(zip(given, self.search(given, limit, filters), strict=True), stop)

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

    def _describe(self, candidates: Sequence[Candidate]) -> list[Description]:
        """What the index knows of each: its names in the language of the mention, of the match and in English.

        The mention's language is the one in which most candidates were found.
        """
        languages = Counter(c.hit.language for c in candidates if c.hit.language)
        usual = max(languages, key=lambda language: languages[language], default="")
        return [self._describe_one(candidate, usual) for candidate in candidates]

    def _describe_one(self, candidate: Candidate, language: str) -> Description:
        """Of a candidate that is not of this index only what it says itself is known."""
        matched = [] if candidate.hit.channel == "id" else [candidate.hit.alias]
        row = self._index.find_concept(candidate.concept_id)
        if row is None:
            types = candidate.semantic_types
            return Description(candidate.preferred_name, types, tuple(matched))
        concept, names = self._index.concept(row), self._index.names(row)
        theirs = [
            [name for name, tag in names if speaks(tag, frozenset([wanted]))]
            for wanted in dict.fromkeys((language, candidate.hit.language, "en"))
        ]
        told = [name for turn in zip_longest(*theirs) for name in turn if name]
        parents = [self.concept(parent) for parent in concept.parents[:_TOLD]]
        return Description(
            concept.preferred_name,
            concept.semantic_types,
            tuple(dict.fromkeys(matched + told))[:_TOLD],
            tuple(parent.preferred_name for parent in parents if parent),
            concept.definition,
        )


def open_ranker(
    settings: Settings, describe: Callable[[Sequence[Candidate]], list[Description]]
) -> Ranker:
    """The ranker that the settings name; without a model the retrieval order stands.

    Raises:
        UsageError: the settings do not fit together.
        MissingArtifactError: there is no such prompt.
        InvalidArtifactError: a prompt is broken.
        MissingExtraError: the model should run in process, and vLLM is not installed.
    """
    where: dict[str, Any] = {"directory": settings.prompts, "language": settings.prompt_language}
    prompt = load_prompt(settings.prompt, PointwisePrompt, **where)
    backend: Backend | None = None
    if settings.ranker_backend == "in-process":
        if settings.ranker_model is None or settings.ranker_url is not None:
            raise UsageError("ranker_backend in-process: needs a ranker_model, and no ranker_url")
        from bioelx_mcp.backends.in_process import InProcessBackend

        backend = InProcessBackend(settings.ranker_model)
    elif settings.ranker_url is not None:
        kind = settings.ranker_backend
        server = _server(settings, settings.ranker_url, settings.ranker_model)
        backend = ProbingBackend(server, tuple(BACKENDS) if kind == "auto" else (kind,))
    second = None
    if settings.letters_url is not None:
        server = _server(settings, settings.letters_url, settings.letters_model)
        second = SecondLook(
            load_prompt(settings.letters_prompt, ListwisePrompt, **where),
            ProbingBackend(server, ("completions", "chat")),
        )
    return Ranker(describe, prompt, backend, second)


def _server(settings: Settings, url: str, model: str | None) -> HttpServer:
    return HttpServer(url, model=model, key=settings.ranker_key, timeout=settings.ranker_timeout)


def _mention(mention: Mention | str) -> Mention:
    return Mention(mention) if isinstance(mention, str) else mention
