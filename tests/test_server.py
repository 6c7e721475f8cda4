"""The MCP server through a real client in memory, in both protocol eras."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from callers import ask, compact, complaint, tokens
from conftest import LONG
from mcp import Client, MCPError
from mcp.types import (
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)
from model_server import ModelServer, Script, vllm_reranker

from bioelx_mcp.manifest import IndexLayout
from bioelx_mcp.server import build_server
from bioelx_mcp.serving.guide import INSTRUCTIONS
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


async def test_tools_list_is_the_golden_one_under_8000_bytes_and_1800_tokens(
    client: Client, golden: Callable[[str, str], None]
) -> None:
    listed = (await client.list_tools()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert len(compact(listed).encode()) <= 8000 and tokens(compact(listed["tools"])) <= 1800
    golden("tools_list.json", json.dumps(listed["tools"], indent=1, sort_keys=True) + "\n")


async def test_a_search_answers_in_the_order_of_the_mentions_in_both_channels(
    client: Client, served: Path
) -> None:
    mentions = ["rotes Fieber", "c0000002", "Green Rash"]
    text, structured = await ask(client, "search_candidates", mentions=mentions, limit=1)
    (index_id,) = (path.name for path in IndexLayout(served).generations.iterdir())
    found: list[dict[str, Any]] = [
        {"id": "UMLS:C0000001", "label": "red fever", "score": 1.0},
        {"id": "UMLS:C0000002", "label": "blue cough", "score": 1.0},
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
        "# rotes Fieber\nUMLS:C0000001\tred fever\t1\n"
        "# c0000002\nUMLS:C0000002\tblue cough\t1\n"
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
    assert (second["matched"], second["language"]) == ("緑の発疹", "ja")
    assert "red fever\t1\tvia red fever (en)\texact\tDisease; Finding\tA red one." in text
    concise = (await ask(client, "search_candidates", **arguments))[1]
    assert not {"channel", "types", "definition", "language"} & set(
        concise["results"][0]["candidates"][0]
    )


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
        {"mention": "b", "context": "x" * 4001},
        {"mention": "blue cough", "candidates": ["UMLS:C0000002"]},
    ]
    text, structured = await ask(client, "rank_candidates", items=items)
    best = [result.get("best") for result in structured["results"]]
    assert best == ["UMLS:C0000001", None, None, None, None, "UMLS:C0000002"]
    errors = [result.get("error") for result in structured["results"]]
    assert errors[1] == errors[3] == TOO_LONG
    assert f"not in index {structured['index']}: NO:1" in errors[2]
    assert errors[4] == "context has 4001 characters, at most 4000: send the sentence"
    assert sum(line.startswith("# ") for line in text.splitlines()) == 6  # none is made up


async def test_a_concise_search_names_the_alias_where_it_is_another_name(client: Client) -> None:
    text, structured = await ask(client, "search_candidates", mentions=["rotes Fiebr"], limit=1)
    (candidate,) = structured["results"][0]["candidates"]
    assert candidate["matched"] == "rotes Fieber" and "\tvia rotes Fieber\n" in text


async def test_the_largest_limit_returns_each_concept_once(client: Client) -> None:
    _, structured = await ask(client, "search_candidates", mentions=["red fever"], limit=100)
    ids = [candidate["id"] for candidate in structured["results"][0]["candidates"]]
    assert ids[0] == "UMLS:C0000001" and sorted(ids) == ["MADE:3", "UMLS:C0000001", "UMLS:C0000002"]


async def test_the_index_card_holds_sources_counts_and_encoder(client: Client) -> None:
    listed = (await client.list_resources()).resources
    assert [str(resource.uri) for resource in listed] == [
        "bioelx-mcp://index",
        "bioelx-mcp://guide",
    ]
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
        "parents": {"MADE:3": "green rash"},
        "xrefs": ["OLD:7", "X:1", "Y:2"],
    }
    for spelling in ("UMLS:C0000001", "c0000001", "OLD:7"):
        assert await read(client, f"bioelx-mcp://concept/{spelling}") == expected
    detailed: dict[str, Any] = {"ids": ["c0000001"], "response_format": "detailed"}
    text, structured = await ask(client, "get_concepts", **detailed)
    assert structured["concepts"] == [expected]
    assert text.startswith(
        "UMLS:C0000001\tred fever\tDisease; Finding\ten: red fever; de: rotes Fieber; es: fiebre roja\t"
        "A red one.\tparents MADE:3 green rash\tOLD:7 X:1 Y:2\n"
    )


async def test_concepts_are_short_each_once_and_say_what_replaced_what(client: Client) -> None:
    ids = ["old_7", "c0000001", "MADE:9\nX", "MADE:3", "x" * 10_000]
    text, structured = await ask(client, "get_concepts", ids=ids)
    red, green = structured["concepts"]
    assert red["id"] == "UMLS:C0000001" and red["names"] == {"en": ["red fever"]}
    assert "xrefs" not in red and red["parents"] == {"MADE:3": "green rash"}
    assert green["definition"] == LONG[:200] and "parents" not in green
    assert structured["replaced_by"] == {"OLD:7": "UMLS:C0000001"}
    assert structured["not_found"] == ["MADE:9\nX", "x" * 256]
    lines = text.splitlines()
    assert "OLD:7\treplaced by UMLS:C0000001" in lines and "MADE:9 X\tNOT FOUND" in lines


async def test_the_guide_is_short_and_names_tools_that_exist(client: Client) -> None:
    (contents,) = (await client.read_resource("bioelx-mcp://guide")).contents
    assert isinstance(contents, TextResourceContents) and contents.mime_type == "text/markdown"
    named = set(re.findall(r"`([a-z]+_[a-z]+)`", contents.text)) - {"mondo_0005148", "replaced_by"}
    assert named == set(TOOLS) and len(contents.text) < 2000


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("UMLS:C000000", ["UMLS:C0000001", "UMLS:C0000002"]),
        ("c0000002", ["UMLS:C0000002"]),
        ("umls:c", ["UMLS:C0000001", "UMLS:C0000002"]),
        ("made_", ["MADE:3"]),
        (" ma", ["MADE:3"]),
        ("", ["MADE:3", "UMLS:C0000001", "UMLS:C0000002"]),
        ("UMLS:C9", []),
        ("\udcff", []),
        ("_" * 10_000, []),
    ],
)
async def test_an_id_is_completed_in_any_spelling(
    client: Client, typed: str, found: list[str]
) -> None:
    template = ResourceTemplateReference(type="ref/resource", uri="bioelx-mcp://concept/{curie}")
    completion = (await client.complete(template, {"name": "curie", "value": typed})).completion
    assert (completion.values, completion.total) == (found, len(found))
    assert not completion.has_more


async def test_nothing_else_is_completed(client: Client) -> None:
    prompt = PromptReference(type="ref/prompt", name="link_entities")
    assert (await client.complete(prompt, {"name": "text", "value": "a"})).completion.values == []


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


async def test_a_search_is_confined_to_ontologies_and_types(client: Client) -> None:
    def ids(structured: dict[str, Any]) -> set[str]:
        return {one["id"] for result in structured["results"] for one in result["candidates"]}

    _, everything = await ask(client, "search_candidates", mentions=["red fever"])
    _, made = await ask(client, "search_candidates", mentions=["red fever"], ontologies=["made"])
    assert ids(made) == {id for id in ids(everything) if id.startswith("MADE:")} != ids(everything)
    _, findings = await ask(client, "search_candidates", mentions=["red fever"], types=["finding"])
    assert ids(findings) and ids(findings) < ids(everything)
    text = await complaint(client, "search_candidates", mentions=["x"], ontologies=["MADD"])
    assert "did you mean MADE" in text
    text = await complaint(client, "search_candidates", mentions=["x"], types=["DISO", "Sgin"])
    assert "Sgin" in text
