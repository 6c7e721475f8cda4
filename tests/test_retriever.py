"""Search: distinct concepts in a fixed order, for any mention that can be searched."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bioelx_mcp.errors import InvalidArtifactError, UsageError
from bioelx_mcp.linker import Linker
from bioelx_mcp.retriever import (
    _AHEAD,
    MAX_CANDIDATES,
    Chosen,
    Found,
    Query,
    Retriever,
    check_mention,
)
from bioelx_mcp.schema import Candidate, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH

MENTIONS = (
    "myocardial infarction",
    "Herzinfarkt",
    "diarhea",
    "อาการปวดหัวมาก",
    "しんきんこうそく",
    "AS",
    "C0004057",
    "UMLS:C9999999",
    "zzzz qqqq",
    "!?",
    "🫀",
)


@pytest.fixture(scope="module")
def retriever(linker: Linker) -> Retriever:
    return linker._retriever


def found(retriever: Retriever, mention: str, limit: int = 10) -> list[Candidate]:
    return retriever.search_candidates([Mention(mention)], limit)[0]


def assert_valid(candidates: Sequence[Candidate], length: int) -> None:
    assert len(candidates) == length
    assert len({candidate.concept_id for candidate in candidates}) == length
    scores = [candidate.retrieval_score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert all(0.0 <= candidate.hit.similarity <= 1.0 for candidate in candidates)
    assert all(candidate.hit.alias for candidate in candidates)


@pytest.mark.parametrize("mention", MENTIONS)
@pytest.mark.parametrize("limit", [1, 10, 90])
def test_candidates_are_distinct_sorted_and_as_many_as_asked(
    retriever: Retriever, mention: str, limit: int
) -> None:
    candidates = found(retriever, mention, limit)
    assert_valid(candidates, limit)
    assert candidates == found(retriever, mention, limit)  # and the same each time


@pytest.mark.parametrize("mention", ["fever", "!?", "C0004057"])
def test_a_search_for_all_concepts_finds_each_once(retriever: Retriever, mention: str) -> None:
    concepts = retriever.index.manifest.concepts
    everything = found(retriever, mention, concepts)
    assert_valid(everything, concepts)
    assert found(retriever, mention, MAX_CANDIDATES) == everything


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=MAX_NAME_LENGTH))
def test_any_text_gives_a_valid_list_or_is_refused_as_empty(
    retriever: Retriever, mention: str
) -> None:
    if mention.strip():
        assert_valid(found(retriever, mention, 5), 5)
    else:
        with pytest.raises(UsageError, match="empty"):
            found(retriever, mention)


def test_a_batch_gives_what_its_mentions_give_one_by_one(retriever: Retriever) -> None:
    texts = [*MENTIONS, *(f"{word} {i}" for i in range(30) for word in ("pain", "ปวด"))]
    assert len(texts) > 64
    together = retriever.search_candidates([Mention(text) for text in texts], 5)
    for text, candidates in zip(texts, together, strict=True):
        alone = found(retriever, text, 5)
        assert [c.concept_id for c in candidates] == [c.concept_id for c in alone]
        assert [c.retrieval_score for c in candidates] == pytest.approx(
            [c.retrieval_score for c in alone], abs=2e-4
        )


def test_of_many_mentions_a_bounded_number_is_searched_ahead(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, waiting = 0, list[int]()
    search, tell = retriever.search_channels, retriever._tell

    def watched_search(*args: Any, **named: Any) -> list[tuple[Found, ...]]:
        nonlocal begun
        begun += 1
        return search(*args, **named)

    def watched_tell(chosen: Sequence[Chosen]) -> list[list[Candidate]]:
        waiting.append(begun - len(waiting))
        return tell(chosen)

    monkeypatch.setattr(retriever, "search_channels", watched_search)
    monkeypatch.setattr(retriever, "_tell", watched_tell)
    monkeypatch.setattr("bioelx_mcp.retriever._BATCH", 1)
    retriever.search_candidates([Mention(f"pain {i}") for i in range(40)], 1)
    assert begun == len(waiting) == 40
    assert max(waiting) <= _AHEAD + 1


def test_what_goes_wrong_in_one_of_many_searches_is_raised(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = retriever.search_channels

    def broken(queries: Sequence[Query], **named: Any) -> list[tuple[Found, ...]]:
        if any("7" in query.texts[0] for query in queries):
            raise InvalidArtifactError("the disk is gone")
        return search(queries, **named)

    monkeypatch.setattr(retriever, "search_channels", broken)
    with pytest.raises(InvalidArtifactError, match="the disk is gone"):
        retriever.search_candidates([Mention(f"pain {i}") for i in range(300)], 1)


def test_a_mention_that_is_repeated_is_searched_once(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = retriever.index.encoder.encode

    def watched(texts: Sequence[str]) -> NDArray[np.float32]:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(retriever.index.encoder, "encode", watched)
    mentions = [Mention("fever", "a"), Mention("cough"), Mention("fever", "b")] * 40
    together = retriever.search_candidates(mentions, 3)
    assert encoded == ["fever", "cough"]
    assert together == [together[0], together[1], together[0]] * 40
    together[0].clear()
    assert len(together[2]) == 3


def test_no_mention_gives_no_list(retriever: Retriever) -> None:
    assert retriever.search_candidates([], 5) == []


@pytest.mark.parametrize(
    ("mention", "name"),
    [
        ("Myocardial-Infarction", "myocardial infarction"),
        ("  herzinfarkt ", "myocardial infarction"),
        ("ไซนัสอักเสบ", "sinusitis"),
        ("あすぴりん", "aspirin"),
    ],
)
def test_a_name_of_the_index_comes_first_as_an_exact_match(
    retriever: Retriever, mention: str, name: str
) -> None:
    first = found(retriever, mention)[0]
    assert (first.preferred_name, first.retrieval_score) == (name, 1.0)
    assert (first.hit.channel, first.hit.similarity) == ("exact", 1.0)
    assert first.hit.source == "starter"


@pytest.mark.parametrize("mention", ["AS", "HD", "AD", "PTX"])
def test_homonyms_are_all_exact_and_come_before_the_rest(
    retriever: Retriever, mention: str
) -> None:
    candidates = found(retriever, mention)
    channels = [candidate.hit.channel for candidate in candidates]
    exact = channels.count("exact")
    assert exact >= 2
    assert channels[:exact] == ["exact"] * exact
    assert all(candidate.retrieval_score < 1.0 for candidate in candidates[exact:])


@pytest.mark.parametrize(
    "mention", ["C0004057", " umls:c0004057 ", "http://example.org/UMLS_C0004057"]
)
def test_an_id_finds_its_concept_first(retriever: Retriever, mention: str) -> None:
    candidates = found(retriever, mention, 5)
    first = candidates[0]
    assert (first.concept_id, first.preferred_name) == ("UMLS:C0004057", "aspirin")
    assert (first.hit.channel, first.hit.alias) == ("id", mention.strip())
    assert_valid(candidates, 5)


@pytest.mark.parametrize(
    ("mention", "name"),
    [
        ("diarhea", "diarrhea"),
        ("myocardal infraction", "myocardial infarction"),
        ("Kopfschmerzn", "headache"),
        ("парацетомол", "paracetamol"),
    ],
)
def test_a_misspelt_name_is_found(retriever: Retriever, mention: str, name: str) -> None:
    assert name in [candidate.preferred_name for candidate in found(retriever, mention, 3)]


@pytest.mark.parametrize(
    ("mention", "message"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("x" * (MAX_NAME_LENGTH + 1), "513 characters, at most 512"),
        ("pain " * 2000, "10000 characters"),
        ("fever \udcff", "lone surrogate"),
    ],
)
def test_a_mention_that_cannot_be_searched_is_refused(
    retriever: Retriever, mention: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        retriever.search_candidates([Mention("fever"), Mention(mention)])


@pytest.mark.parametrize("limit", [0, -1, MAX_CANDIDATES + 1])
def test_a_limit_out_of_range_is_refused(retriever: Retriever, limit: int) -> None:
    with pytest.raises(UsageError, match=f"limit is {limit}; it must lie within 1 and 1000"):
        found(retriever, "fever", limit)


def test_a_mention_of_the_greatest_length_is_searched(retriever: Retriever) -> None:
    longest = "fever " * 85 + "xy"
    check_mention(longest)
    assert len(longest) == MAX_NAME_LENGTH
    assert_valid(found(retriever, longest, 3), 3)


def test_a_longer_list_begins_as_a_shorter_one(retriever: Retriever) -> None:
    """Up to 24 candidates; scores differ a little where more aliases are asked for, as beyond 24, where the order may as well."""
    for mention in MENTIONS:
        longer, shorter = (found(retriever, mention, limit)[:5] for limit in (24, 5))
        assert [c.concept_id for c in longer] == [c.concept_id for c in shorter]


def test_an_abbreviation_means_what_its_context_says(retriever: Retriever) -> None:
    contexts = {
        "ankylosing spondylitis": "He has ankylosing spondylitis (AS) and takes naproxen.",
        "aortic stenosis": "Severe aortic stenosis (AS) was seen.",
    }
    for name, context in contexts.items():
        (candidates,) = retriever.search_candidates([Mention("AS", context)], 5)
        assert candidates[0].preferred_name == name
        assert_valid(candidates, 5)
        assert "AS" in [candidate.hit.alias for candidate in candidates]  # its namesakes stay


def test_an_abbreviation_that_is_an_id_is_an_id(retriever: Retriever) -> None:
    context = "Cutaneous 0004057 (C0004057)"
    (candidates,) = retriever.search_candidates([Mention("C0004057", context)], 2)
    assert candidates[0].concept_id == "UMLS:C0004057"


def test_the_language_of_a_mention_sways_among_namesakes_and_leaves_none_out(
    retriever: Retriever,
) -> None:
    plain = found(retriever, "AS", 20)
    for language in ("", "en", "de", "pt-BR"):
        (candidates,) = retriever.search_candidates([Mention("AS", language=language)], 20)
        assert {c.concept_id for c in candidates} >= {
            c.concept_id for c in plain if c.hit.channel == "exact"
        }
    with pytest.raises(UsageError, match="no BCP-47 tag"):
        retriever.search_candidates([Mention("AS", language="klingonish")])
