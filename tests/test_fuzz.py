"""Whatever a client sends as arguments, it gets a result or a clean error, and the server goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client
from mcp.types import CallToolResult, TextContent

from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=st.characters(categories=("Cc", "Cf", "Co", "Mn", "Zl")), max_size=40),
    st.sampled_from(["", " ", "\0", "\ud800", "x" * 513, "\n" * 100, "C0000001", "umls:", "://", "_20" * 80, "2020_" * 50]),
    st.text(min_size=1, max_size=2).map(lambda text: text * 2000),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=3).map(str)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
ITEMS = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"mention": TEXTS},
        optional={"context": st.one_of(TEXTS, ANYTHING), "candidates": st.lists(TEXTS, max_size=3)},
    ),
)
ARGUMENTS = {
    "search_candidates": {"mentions": st.one_of(st.lists(TEXTS, max_size=4), ANYTHING), "limit": st.one_of(st.integers(-1, 101), ANYTHING), "response_format": st.one_of(st.sampled_from(["concise", "detailed"]), ANYTHING)},
    "rank_candidates": {"items": st.one_of(st.lists(ITEMS, max_size=3), ANYTHING), "limit": st.one_of(st.integers(-1, 101), ANYTHING)},
    "get_concepts": {"ids": st.one_of(st.lists(TEXTS, max_size=4), ANYTHING), "response_format": ANYTHING},
}  # fmt: skip


Call = Callable[[str, dict[str, Any]], CallToolResult]


@pytest.fixture(scope="module")
def call(served: Path, mode: Any) -> Iterator[Call]:
    """Call a tool through a client of one era that stays connected for all examples."""
    with start_blocking_portal() as portal:
        connection = Client(build_server(load_settings(index=served)), mode=mode)
        with portal.wrap_async_context_manager(connection) as client:

            async def within_a_minute(tool: str, arguments: dict[str, Any]) -> CallToolResult:
                with anyio.fail_after(60):
                    return await client.call_tool(tool, arguments)

            yield lambda tool, arguments: portal.call(within_a_minute, tool, arguments)


@pytest.mark.parametrize("tool", list(ARGUMENTS))
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_argument_gets_a_result_or_a_clean_error(
    call: Call, tool: str, data: st.DataObject
) -> None:
    known = ARGUMENTS[tool]
    first = next(iter(known))
    drawn = st.fixed_dictionaries(
        {first: known[first]},
        optional={**{k: v for k, v in known.items() if k != first}, "other": ANYTHING},
    )
    arguments = data.draw(st.one_of(drawn, drawn, st.dictionaries(TEXTS, ANYTHING, max_size=3)))
    result = call(tool, arguments)
    (block,) = result.content
    assert isinstance(block, TextContent)
    block.text.encode()  # no surrogate gets out
    if result.is_error:
        assert block.text.startswith(f"{tool}: invalid arguments\n- ") or " rows; " in block.text
        assert len(block.text) < 5000
    else:
        assert result.structured_content is not None
        assert "index" in result.structured_content
