"""Python, shell and MCP give the same answer to the same question: ids, order, scores, NIL, reasons."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from callers import Cli, ask
from mcp import Client
from model_server import ModelServer, Script, vllm_reranker

from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention, Ranking
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

pytestmark = pytest.mark.anyio

MENTIONS = ["Herzinfarkt", "diarhea", "帕金森氏症", "MI", "hoge bloeddruk", "C0027051", "x y", "ไข้"]


@pytest.fixture(scope="module")
async def client(starter_index: Path) -> AsyncIterator[Client]:
    async with Client(build_server(load_settings(index=starter_index))) as client:
        yield client


async def test_a_search_gives_the_same_candidates(
    client: Client, linker: Linker, cli: Cli, starter_index: Path
) -> None:
    by_python = [
        [(c.concept_id, c.preferred_name, round(c.retrieval_score, 3)) for c in found]
        for found in linker.search(MENTIONS, 7)
    ]
    shell = cli("search", "--json", "--limit", "7", "--index", str(starter_index), *MENTIONS)
    by_shell = [
        [(c["concept_id"], c["preferred_name"], round(c["retrieval_score"], 3)) for c in line["candidates"]]
        for line in shell.lines
    ]  # fmt: skip
    _, structured = await ask(client, "search_candidates", mentions=MENTIONS, limit=7)
    by_mcp = [
        [(c["id"], c["label"], c["score"]) for c in one["candidates"]]
        for one in structured["results"]
    ]
    assert by_python == by_shell == by_mcp


def judge(query: str, document: str) -> float:
    """By the length of a document: some order, and NIL for some."""
    return (4.0 if "acute" in query else -20.0) - len(document) % 7


def told(ranking: Ranking) -> tuple[str | None, list[tuple[str, float | None]], str]:
    ranked = [
        (each.candidate.concept_id, each.rank_score if each.rank_score is None else round(each.rank_score, 3))
        for each in ranking.candidates
    ]  # fmt: skip
    best = ranking.best.candidate.concept_id if ranking.best else None
    return best, ranked, ranking.degraded


@pytest.mark.parametrize("ranker", ["none", "judge", "down"])
async def test_linking_gives_the_same_rankings(
    starter_index: Path, cli: Cli, model_server: Callable[[Script], ModelServer], ranker: str
) -> None:
    given = [Mention(m, f"{'acute' if i % 2 else 'no'} {m}.") for i, m in enumerate(MENTIONS)]
    url = {"none": None, "down": "http://127.0.0.1:9"}.get(ranker) or (
        model_server(vllm_reranker(judge)).url if ranker == "judge" else None
    )
    settings = load_settings(index=starter_index, ranker_url=url)
    by_python = [told(ranking) for ranking in Linker.from_settings(settings).link(given, 10)]

    stdin = "".join(json.dumps({"mention": m.text, "context": m.context}) + "\n" for m in given)
    options = ["--ranker-url", url] if url else []
    shell = cli("link", "--json", "--index", str(starter_index), *options, stdin=stdin)
    by_shell = []
    for line in shell.lines:
        ranked = [
            (c["candidate"]["concept_id"], c["rank_score"] and round(c["rank_score"], 3))
            for c in line["candidates"]
        ]
        best = line["best"] and line["best"]["candidate"]["concept_id"]
        by_shell.append((best, ranked, line["degraded"]))

    items = [{"mention": m.text, "context": m.context} for m in given]
    async with Client(build_server(settings)) as client:
        _, structured = await ask(client, "rank_candidates", items=items, limit=10)
    by_mcp = [
        (
            one.get("best"),
            [(c["id"], c.get("score")) for c in one["ranked"]],
            one.get("degraded", ""),
        )
        for one in structured["results"]
    ]
    assert by_python == by_shell == by_mcp
    best = [each[0] for each in by_python]
    assert (None in best) is (ranker == "judge") and any(best)
    assert all(bool(each[2]) is (ranker == "down") for each in by_python)


async def test_a_concept_is_the_same_by_tool_and_from_python(
    client: Client, linker: Linker
) -> None:
    ids = ["c0027051", "C0004057", "C0015967"]
    arguments: dict[str, Any] = {"ids": ids, "response_format": "detailed"}
    _, structured = await ask(client, "get_concepts", **arguments)
    for id, card in zip(ids, structured["concepts"], strict=True):
        concept = linker.concept(id)
        assert concept is not None
        assert (card["id"], card["label"]) == (concept.concept_id, concept.preferred_name)
        assert card["definition"] == concept.definition
        assert tuple(card["types"]) == concept.semantic_types
        named = {(name, language) for language, names in card["names"].items() for name in names}
        assert named <= set(linker.names(id)) and len(card["names"]) >= 10
