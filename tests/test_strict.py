"""Arguments and errors as a model meets them: strict, with a way out; through a real client."""

from typing import Any

import pytest
from callers import ask, complaint
from mcp import Client, MCPError

from bioelx_mcp.linker import Linker

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        (
            "search_candidates",
            {"mentions": ["a"] * 256, "limit": 8},
            "256 mentions x limit 8 = 2048 rows; one call returns at most 2000. "
            "Use limit <= 7, or send the mentions in several calls.",
        ),
        (
            "search_candidates",
            {"mentions": ["a"], "limt": 3},
            "unknown argument 'limt' (did you mean 'limit'?); valid: mentions, limit, ontologies, types, response_format",
        ),
        ("search_candidates", {"mentions": ["a"], "zzz": 3}, "unknown argument 'zzz'; valid: "),
        ("search_candidates", {"mentions": ["a"], "query": "b"}, "unknown argument 'query'"),
        ("search_candidates", {}, "missing argument 'mentions'"),
        ("search_candidates", {"mentions": []}, "mentions: list should have at least 1 item"),
        ("search_candidates", {"mentions": ["a"] * 257}, "mentions: list should have at most 256"),
        ("search_candidates", {"mentions": ["a", 1]}, "mentions.1: input should be a valid string"),
        ("search_candidates", {"mentions": ["a"], "limit": 0}, "greater than or equal to 1 (got 0)"),
        ("search_candidates", {"mentions": ["a"], "limit": 101}, "less than or equal to 100"),
        (
            "search_candidates",
            {"mentions": ["a"], "response_format": "long"},
            "response_format: input should be 'concise' or 'detailed' (got 'long')",
        ),
        ("rank_candidates", {"items": [{"mention": "a"}], "limit": 0}, "limit: input should be"),
        ("rank_candidates", {"items": [{"mention": "a"}] * 65}, "items: list should have at most 64"),
        (
            "rank_candidates",
            {"items": [{"mentio": "a"}]},
            "missing argument 'items.0.mention'\n- unknown argument 'items.0.mentio' "
            "(did you mean 'mention'?); valid: mention, context, candidates",
        ),
        ("get_concepts", {"ids": ["UMLS:C0000001"] * 101}, "ids: list should have at most 100"),
    ],
)  # fmt: skip
async def test_a_bad_argument_is_told_with_its_mend(
    client: Client, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    text = await complaint(client, tool, **arguments)
    assert expected in text
    assert "pydantic" not in text and "Error executing" not in text
    assert await ask(client, "get_concepts", ids=["UMLS:C0000001"])


@pytest.mark.parametrize(
    ("tool", "arguments", "canonical"),
    [
        ("search_candidates", {"query": "rotes Fieber", "top_k": 1}, {"mentions": ["rotes Fieber"], "limit": 1}),
        ("search_candidates", {"terms": ["a", "b"], "k": 2}, {"mentions": ["a", "b"], "limit": 2}),
        ("search_candidates", {"mentions": "red fever"}, {"mentions": ["red fever"]}),
        ("search_candidates", {"mentions": '["a", "b"]'}, {"mentions": ["a", "b"]}),
        ("rank_candidates", {"items": [{"mention": "a"}], "n": 1}, {"items": [{"mention": "a"}], "limit": 1}),
        ("get_concepts", {"curie": "c0000001"}, {"ids": ["c0000001"]}),
    ],
)  # fmt: skip
async def test_a_synonym_of_an_argument_is_understood(
    client: Client, tool: str, arguments: dict[str, Any], canonical: dict[str, Any]
) -> None:
    assert await ask(client, tool, **arguments) == await ask(client, tool, **canonical)


async def test_an_unknown_tool_is_a_protocol_error(client: Client) -> None:
    with pytest.raises(MCPError) as caught:
        await client.call_tool("find_candidates", {"mentions": ["a"]})
    assert (caught.value.error.code, caught.value.error.message) == (
        -32602,
        "Unknown tool: 'find_candidates'; there are: search_candidates, rank_candidates, get_concepts",
    )


async def test_a_crash_tells_the_tool_only_and_the_server_goes_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(Linker, "search", crash)
        text = await complaint(client, "search_candidates", mentions=["a"])
        assert text == "Error executing tool search_candidates"
    assert await ask(client, "search_candidates", mentions=["a"])
