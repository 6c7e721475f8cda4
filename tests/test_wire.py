"""The two channels of an answer: the same facts, few tokens, one line a row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from callers import ask, compact, tokens
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from bioelx_mcp.server import build_server
from bioelx_mcp.serving.wire import (
    CandidateOut,
    MentionOut,
    RankedOut,
    RankingsOut,
    RankOut,
    SearchOut,
    rank_text,
    search_text,
)
from bioelx_mcp.settings import load_settings


def leaves(node: Any) -> Iterator[str]:
    """Every value of structured content, as the text form writes it, and the languages of names."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [f"{language}: " for language in value] if key == "names" else []
            yield from leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)
    else:
        yield f"{node:g}" if isinstance(node, float) else " ".join(str(node).split())


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("search_candidates", {"mentions": ["NIDDM", "diarhea", ""], "response_format": "detailed"}),
        ("rank_candidates", {"items": [{"mention": "MI"}, {"mention": "x", "candidates": ["a:1"]}]}),
        ("get_concepts", {"ids": ["C0027051", "MADE:9"]}),
    ],
)  # fmt: skip
@pytest.mark.anyio
async def test_both_channels_hold_the_same_facts(
    starter_index: Path, mode: Any, tool: str, arguments: dict[str, Any]
) -> None:
    async with Client(build_server(load_settings(index=starter_index)), mode=mode) as client:
        text, structured = await ask(client, tool, **arguments)
    assert [fact for fact in leaves(structured) if fact not in text] == []


MENTIONS = [
    "heart attack", "high blood pressure", "NIDDM", "aspirin", "liver",
    "Herzinfarkt", "心肌梗塞", "ไซนัสอักเสบ", "falta de aire", "инсульт",
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [5, 10])
async def test_a_candidate_costs_at_most_30_tokens_in_either_channel(
    starter_index: Path, limit: int
) -> None:
    """Tokens of o200k_base (bpe-openai), mentions and all else counted in; JSON without spaces, as clients show it."""
    async with Client(build_server(load_settings(index=starter_index))) as client:
        text, structured = await ask(client, "search_candidates", mentions=MENTIONS, limit=limit)
    candidates = sum(len(result["candidates"]) for result in structured["results"])
    assert candidates == len(MENTIONS) * limit
    assert tokens(text) / candidates <= 25
    assert tokens(compact(structured)) / candidates <= 30


@pytest.mark.anyio
async def test_a_concept_costs_little_unless_details_are_asked_for(starter_index: Path) -> None:
    async with Client(build_server(load_settings(index=starter_index))) as client:
        ids = ["C0027051", "C0011860", "C0004057", "C0015967"]
        text, structured = await ask(client, "get_concepts", ids=ids)
    assert max(tokens(text), tokens(compact(structured))) / len(ids) <= 120


TEXTS = st.text(max_size=12)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4), TEXTS)
def test_whatever_a_name_holds_a_row_is_one_line(names: list[tuple[str, str]], other: str) -> None:
    candidates = [
        CandidateOut(id="MADE:1", label=label, score=0.5, matched=alias or None, definition=other)
        for label, alias in names
    ]
    found = SearchOut(
        results=[
            MentionOut(mention=other, candidates=candidates),
            MentionOut(mention=other, candidates=[], error=f"not in: {other}"),
        ],
        index="i",
    )
    assert len(search_text(found).splitlines()) == 3 + len(names)
    ranked = [RankedOut(id="MADE:1", label=label, score=0.5) for label, _ in names]
    rankings = RankingsOut(
        results=[
            RankOut(mention=other, best="MADE:1", ranked=ranked, degraded=f"because {other}"),
            RankOut(mention=other, ranked=[], error=f"not in: {other}"),
        ],
        ranker="r",
        index="i",
    )
    assert len(rank_text(rankings).splitlines()) == 4 + len(names)
