"""While the server runs: progress, cancellation, calls at the same time, an index that is broken."""

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from callers import ask, complaint
from mcp import Client, MCPError

from bioelx_mcp.linker import Linker
from bioelx_mcp.manifest import IndexLayout
from bioelx_mcp.schema import Candidate, Mention
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

pytestmark = pytest.mark.anyio


async def test_progress_rises_to_the_total(client: Client) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    arguments = {"mentions": ["red fever"] * 70, "limit": 1}
    await client.call_tool("search_candidates", arguments, progress_callback=note)
    expected = [(done, 70, f"{done}/70 mentions") for done in (32, 64, 70)]
    with anyio.fail_after(5):
        while len(seen) < 3:  # a notification may arrive behind the answer
            await anyio.sleep(0.01)
    assert seen == expected


async def test_a_cancelled_call_stops_between_chunks_and_the_server_goes_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = 0
    cancelled = threading.Event()
    search = Linker.search

    def counted(self: Linker, mentions: list[Mention | str], *rest: Any) -> list[list[Candidate]]:
        nonlocal chunks
        chunks += len(mentions) == 32
        if chunks > 1 and len(mentions) == 32:
            cancelled.wait(1)  # a chunk that began before the notification came
        return search(self, mentions, *rest)

    monkeypatch.setattr(Linker, "search", counted)
    with anyio.CancelScope() as scope:

        async def stop(progress: float, total: float | None, message: str | None) -> None:
            scope.cancel()

        await client.call_tool(
            "search_candidates", {"mentions": ["red fever"] * 256}, progress_callback=stop
        )
    assert scope.cancelled_caught
    _, structured = await ask(client, "search_candidates", mentions=["blue cough"], limit=1)
    assert structured["results"][0]["candidates"][0]["id"] == "UMLS:C0000002"
    cancelled.set()
    await anyio.sleep(0.2)
    assert chunks in (1, 2)


async def test_calls_at_the_same_time_get_their_own_answers(client: Client) -> None:
    names = {"red fever": "UMLS:C0000001", "blue cough": "UMLS:C0000002", "緑の発疹": "MADE:3"}
    found: dict[str, str] = {}

    async def one(mention: str) -> None:
        _, structured = await ask(client, "search_candidates", mentions=[mention] * 40, limit=2)
        (found[mention],) = {result["candidates"][0]["id"] for result in structured["results"]}

    async with anyio.create_task_group() as tasks:
        for mention in names:
            tasks.start_soon(one, mention)
    assert found == names


def spoil(index: Path, how: str) -> str:
    """Break a copy of an index; what the first call must say."""
    layout = IndexLayout(index)
    if how == "missing":
        shutil.rmtree(index)
        return f"no index in {index} (no manifest.json): build one with `bioelx-mcp build-index"
    if how == "manifest":
        layout.manifest.write_text("{", encoding="utf-8")
        return f"{layout.manifest} cannot be read"
    for table in layout.generations.glob("*/tables/aliases.lance"):
        shutil.rmtree(table)
    return "rebuild it with `bioelx-mcp build-index --out"


@pytest.mark.parametrize("how", ["missing", "manifest", "tables"])
async def test_a_broken_index_is_told_on_the_first_call_with_the_mend(
    served: Path, tmp_path: Path, mode: Any, how: str
) -> None:
    index = Path(shutil.copytree(served, tmp_path / "copy"))
    expected = spoil(index, how)
    async with Client(build_server(load_settings(index=index)), mode=mode) as client:
        assert len((await client.list_tools()).tools) == 3
        arguments: dict[str, Any]
        for tool, arguments in (
            ("search_candidates", {"mentions": ["a"]}),
            ("rank_candidates", {"items": [{"mention": "a"}]}),
            ("get_concepts", {"ids": ["a"]}),
        ):
            text = await complaint(client, tool, **arguments)
            assert expected in text and "bioelx-mcp build-index --out" in text
        for uri in ("bioelx-mcp://index", "bioelx-mcp://concept/UMLS:C0000001"):
            with pytest.raises(MCPError, match="bioelx-mcp build-index --out"):
                await client.read_resource(uri)


async def test_what_a_library_prints_while_serving_goes_to_stderr(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(build_server(load_settings(index=served), stdio=True)):
        sys.stdout.write("from a library\n")
    out, err = capsys.readouterr()
    assert out == ""
    assert "from a library\n" in err
