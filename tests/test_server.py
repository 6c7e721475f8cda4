"""The MCP server through a real client in memory, in both protocol eras."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from callers import ask
from conftest import LONG
from mcp import Client, MCPError
from mcp.types import TextContent, TextResourceContents
from model_server import ModelServer, Script, vllm_reranker

from bioelx_mcp.manifest import IndexLayout
from bioelx_mcp.server import INSTRUCTIONS, build_server
from bioelx_mcp.settings import load_settings

pytestmark = pytest.mark.anyio
TOOLS = ("search_candidates", "rank_candidates", "get_concepts")
TOO_LONG = "mention must have 1-512 characters"


async def read(client: Client, uri: str) -> Any:
    (contents,) = (await client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    assert contents.mime_type == "application/json"
    return json.loads(contents.text)


async def test_three_read_only_tools_with_closed_arguments_and_output_schemas(
    client: Client,
) -> None:
    tools = (await client.list_tools()).tools
    assert tuple(tool.name for tool in tools) == TOOLS
    assert len(INSTRUCTIONS) < 600 and client.instructions == INSTRUCTIONS
    for tool in tools:
        assert tool.annotations is not None and tool.description is not None
        hints = tool.annotations.model_dump(exclude_none=True)
        assert hints == {
            "read_only_hint": True,
            "idempotent_hint": True,
            "destructive_hint": False,
            "open_world_hint": False,
        }
        assert len(tool.description.encode()) < 2048  # what Claude Code shows of it
        assert tool.input_schema["additionalProperties"] is False
        assert "anyOf" not in json.dumps(tool.input_schema)
        assert tool.output_schema is not None and "index" in tool.output_schema["required"]
        assert '"title":' not in json.dumps([tool.input_schema, tool.output_schema])


async def test_tools_list_is_the_golden_one_and_under_8000_bytes(
    client: Client, golden: Callable[[str, str], None]
) -> None:
    listed = (await client.list_tools()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert len(json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()) <= 8000
    golden("tools_list.json", json.dumps(listed["tools"], indent=1, sort_keys=True) + "\n")


async def test_a_search_answers_in_the_order_of_the_mentions_in_both_channels(
    client: Client, served: Path
) -> None:
    mentions = ["rotes Fieber", "c0000002", "Green Rash"]
    text, structured = await ask(client, "search_candidates", mentions=mentions, limit=1)
    (index_id,) = (path.name for path in IndexLayout(served).generations.iterdir())
    found: list[dict[str, Any]] = [
        {"id": "UMLS:C0000001", "label": "red fever", "score": 1.0, "matched": "rotes Fieber", "language": "de"},
        {"id": "UMLS:C0000002", "label": "blue cough", "score": 1.0, "matched": "c0000002"},
        {"id": "MADE:3", "label": "green rash", "score": 1.0},
    ]  # fmt: skip
    assert structured == {
        "results": [
            {"mention": mention, "candidates": [one]}
            for mention, one in zip(mentions, found, strict=True)
        ],
        "index": index_id,
    }
    assert text == (
        "# rotes Fieber\nUMLS:C0000001\tred fever\t1\tvia rotes Fieber (de)\n"
        "# c0000002\nUMLS:C0000002\tblue cough\t1\tvia c0000002\n"
        f"# Green Rash\nMADE:3\tgreen rash\t1\nindex {index_id}"
    )


async def test_a_detailed_search_adds_channel_types_and_the_start_of_the_definition(
    client: Client,
) -> None:
    arguments: dict[str, Any] = {"mentions": ["red fever", "緑の発疹"], "limit": 1}
    text, structured = await ask(
        client, "search_candidates", **arguments, response_format="detailed"
    )
    first, second = (result["candidates"][0] for result in structured["results"])
    assert (first["channel"], first["types"]) == ("exact", ["Disease", "Finding"])
    assert first["definition"] == "A red one."
    assert second["definition"] == LONG[:200]
    assert "UMLS:C0000001\tred fever\t1\texact\tDisease; Finding\tA red one." in text
    concise = (await ask(client, "search_candidates", **arguments))[1]
    assert not {"channel", "types", "definition"} & set(concise["results"][0]["candidates"][0])


async def test_a_bad_mention_fails_alone_within_its_batch(client: Client) -> None:
    text, structured = await ask(
        client, "search_candidates", mentions=["red fever", " ", "x" * 513, "y" * 512], limit=1
    )
    errors = [result.get("error") for result in structured["results"]]
    assert errors == [None, TOO_LONG, TOO_LONG, None]
    assert structured["results"][2] == {
        "mention": "x" * 80,
        "candidates": [],
        "error": TOO_LONG,
    }
    assert text.splitlines()[2] == f"# \tERROR: {TOO_LONG}"
    items = [
        {"mention": "red fever"},
        {"mention": "x" * 513},
        {"mention": "a", "candidates": ["UMLS:C0000001", "NO:1\n# red fever\tUMLS:C0000001"]},
        {"mention": "", "candidates": ["UMLS:C0000001"]},
    ]
    answer = (await client.call_tool("rank_candidates", {"items": items})).content[0]
    assert isinstance(answer, TextContent) and "items.3.mention" in answer.text
    text, structured = await ask(client, "rank_candidates", items=items[:3])
    assert [result.get("best") for result in structured["results"]] == ["UMLS:C0000001", None, None]
    assert structured["results"][1]["error"] == TOO_LONG
    assert f"not in index {structured['index']}: NO:1" in structured["results"][2]["error"]
    assert sum(line.startswith("# ") for line in text.splitlines()) == 3  # none is made up


async def test_the_largest_limit_returns_each_concept_once(client: Client) -> None:
    _, structured = await ask(client, "search_candidates", mentions=["red fever"], limit=100)
    ids = [candidate["id"] for candidate in structured["results"][0]["candidates"]]
    assert ids[0] == "UMLS:C0000001" and sorted(ids) == ["MADE:3", "UMLS:C0000001", "UMLS:C0000002"]


async def test_the_index_card_holds_sources_counts_and_encoder(client: Client) -> None:
    listed = (await client.list_resources()).resources
    assert [str(resource.uri) for resource in listed] == ["bioelx-mcp://index"]
    card = await read(client, "bioelx-mcp://index")
    assert (card["concepts"], card["aliases"]) == (3, 8)
    assert card["languages"] == {"de": 3, "en": 3, "es": 1, "ja": 1}
    assert [source["name"] for source in card["sources"]] == ["made"]
    assert card["encoder"]["dimension"] > 0 and "probes" not in card


async def test_a_concept_is_a_resource_by_its_curie_in_any_spelling(client: Client) -> None:
    (template,) = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "bioelx-mcp://concept/{curie}"
    expected = {
        "id": "UMLS:C0000001",
        "label": "red fever",
        "names": {"en": ["red fever"], "de": ["rotes Fieber"], "es": ["fiebre roja"]},
        "types": ["Disease", "Finding"],
        "definition": "A red one.",
        "xrefs": ["X:1", "Y:2", "OLD:7"],
    }
    for spelling in ("UMLS:C0000001", "c0000001", "OLD:7"):
        assert await read(client, f"bioelx-mcp://concept/{spelling}") == expected
    text, structured = await ask(
        client, "get_concepts", ids=["c0000001", "MADE:9\nX", "UMLS:C0000002"]
    )
    assert structured["concepts"][0] == expected
    assert structured["concepts"][1] == {
        "id": "UMLS:C0000002",
        "label": "blue cough",
        "names": {"en": ["blue cough"], "de": ["blauer Husten"]},
    }
    assert structured["not_found"] == ["MADE:9\nX"] and "MADE:9 X\tNOT FOUND" in text.splitlines()


@pytest.mark.parametrize("uri", ["bioelx-mcp://concept/MADE:9", "bioelx-mcp://nothing"])
async def test_an_unknown_resource_is_a_protocol_error(client: Client, uri: str) -> None:
    with pytest.raises(MCPError) as caught:
        await client.read_resource(uri)
    assert caught.value.error.code == -32602
    assert "MADE:9" in caught.value.error.message or uri in caught.value.error.message


async def test_the_prompt_names_the_tools_and_marks_the_text_as_data(client: Client) -> None:
    (prompt,) = (await client.list_prompts()).prompts
    assert prompt.name == "link_entities"
    (message,) = (await client.get_prompt("link_entities", {"text": "He has {MI}."})).messages
    assert isinstance(message.content, TextContent)
    assert message.content.text.endswith("-----\nHe has {MI}.\n-----")
    named = set(re.findall(r"\b[a-z]+_[a-z]+\b", message.content.text))
    assert named == {"search_candidates", "rank_candidates"}


async def test_without_a_ranker_the_retrieval_order_stands_and_says_so(client: Client) -> None:
    items = [{"mention": "red fever", "candidates": ["MADE:3", "c0000001", "MADE_3", "OLD:7"]}]
    text, structured = await ask(client, "rank_candidates", items=items)
    assert structured["results"] == [
        {
            "mention": "red fever",
            "best": "MADE:3",
            "ranked": [
                {"id": "MADE:3", "label": "green rash"},
                {"id": "UMLS:C0000001", "label": "red fever"},
            ],
        }
    ]
    assert structured["ranker"] == "retrieval"
    assert text.startswith(
        "# red fever\tMADE:3\nMADE:3\tgreen rash\nUMLS:C0000001\tred fever\nranker "
    )


async def test_a_ranker_orders_by_the_sentence_names_itself_and_says_nil(
    served: Path, mode: Any, model_server: Callable[[Script], ModelServer]
) -> None:
    def judge(query: str, document: str) -> float:
        red = "red fever" in document
        return (4.0 if red else -2.0) if "[sure]" in query else (-30.0 if red else -20.0)

    server = model_server(vllm_reranker(judge))
    settings = load_settings(index=served, ranker_url=server.url, ranker_model="m")
    items = [
        {"mention": "fever", "context": context, "candidates": ["UMLS:C0000002", "UMLS:C0000001"]}
        for context in ("fever [sure]", "no fever")
    ]
    async with Client(build_server(settings), mode=mode) as client:
        text, structured = await ask(client, "rank_candidates", items=items, limit=1)
    sure, nil = structured["results"]
    assert sure["best"] == "UMLS:C0000001" and [one["id"] for one in sure["ranked"]] == [
        "UMLS:C0000001"
    ]
    assert 0.5 < sure["ranked"][0]["score"] < 1
    assert "best" not in nil and nil["ranked"][0]["score"] == 0.0
    assert structured["ranker"] == "m/qwen3-reranker@2"
    assert (
        "# fever\tUMLS:C0000001\n" in text
        and "# fever\tNIL\nUMLS:C0000002\tblue cough\t0\n" in text
    )
    assert "degraded" not in text


async def test_a_ranker_that_is_down_is_told_in_both_channels(served: Path, mode: Any) -> None:
    settings = load_settings(index=served, ranker_url="http://127.0.0.1:9", ranker_model="m")
    async with Client(build_server(settings), mode=mode) as client:
        text, structured = await ask(client, "rank_candidates", items=[{"mention": "red fever"}])
    (result,) = structured["results"]
    assert (result["best"], structured["ranker"]) == ("UMLS:C0000001", "retrieval")
    assert "http://127.0.0.1:9/v1/models cannot be reached" in result["degraded"]
    assert f"degraded: {result['degraded']}" in text.splitlines()
