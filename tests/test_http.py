"""The server over HTTP, as clients, balancers and Prometheus meet it; `test_http_security.py` is what enemies meet."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from callers import Cli, ask, complaint, fails
from http_server import process, running, wait_ready
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from uvicorn.supervisors import Multiprocess

from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Candidate, Mention
from bioelx_mcp.serving import metrics
from bioelx_mcp.serving.http import security, serve_http
from bioelx_mcp.settings import load_settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def base(served: Path) -> Iterator[str]:
    """The address of a server over the small index."""
    with running(load_settings(index=served)) as base:
        wait_ready(base)
        yield base


async def test_both_eras_get_the_same_answers_and_progress(base: str, mode: Any) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with Client(f"{base}/mcp", mode=mode) as client:
        assert len((await client.list_tools()).tools) == 3
        _, found = await ask(client, "search_candidates", mentions=["緑の発疹"], limit=1)
        arguments = {"mentions": ["red fever"] * 70, "limit": 1}
        await client.call_tool("search_candidates", arguments, progress_callback=note)
    assert found["results"][0]["candidates"][0]["id"] == "MADE:3"
    assert seen == sorted(seen) and seen[-1] == 70


async def test_health_names_the_index_that_is_served(base: str, served: Path) -> None:
    told = wait_ready(base)
    assert told == {
        "status": "ready",
        "index": json.loads((served / "manifest.json").read_text())["index_id"],
    }


async def test_health_tells_why_nothing_is_served(tmp_path: Path) -> None:
    with running(load_settings(index=tmp_path / "none")) as base:
        async with Client(f"{base}/mcp") as client:
            text = await complaint(client, "get_concepts", ids=["a"])
        answer = httpx2.get(f"{base}/health")
    assert "bioelx-mcp build-index --out" in text
    assert (answer.status_code, answer.json()) == (503, {"status": "failed", "error": text})


async def test_health_says_loading_until_the_index_is_there(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    load = Linker.from_settings.__func__  # type: ignore[attr-defined]

    def wait(cls: type[Linker], settings: Any) -> Linker:
        go.wait(30)
        linker: Linker = load(cls, settings)
        return linker

    monkeypatch.setattr(Linker, "from_settings", classmethod(wait))
    with running(load_settings(index=served)) as base:
        answer = httpx2.get(f"{base}/health")
        assert (answer.status_code, answer.json()) == (503, {"status": "loading"})
        go.set()
        wait_ready(base)


async def test_metrics_count_requests_things_and_refusals(base: str) -> None:
    def value(name: str) -> float:
        lines = httpx2.get(f"{base}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    good = 'bioelx_requests_total{method="tools/call",outcome="ok",tool="search_candidates"}'
    bad = 'bioelx_requests_total{method="tools/call",outcome="error",tool="search_candidates"}'
    mentions = 'bioelx_things_total{kind="mentions",tool="search_candidates"}'
    unknown = 'bioelx_requests_total{method="tools/call",outcome="refused",tool=""}'
    names = (good, bad, mentions, unknown, 'bioelx_http_refused_total{status="405"}')
    before = [value(name) for name in names]
    async with Client(f"{base}/mcp") as client:
        await ask(client, "search_candidates", mentions=["red fever", "blue cough"])
        await complaint(client, "search_candidates", mentions=[])
        with pytest.raises(Exception, match="Unknown tool"):
            await client.call_tool("nosuch", {})
    httpx2.get(f"{base}/mcp")
    after = [value(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2, 1, 1]
    assert "nosuch" not in httpx2.get(f"{base}/metrics").text


async def test_a_call_stops_when_its_client_hangs_up(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = 0
    search = Linker.search

    def counted(
        self: Linker, mentions: Sequence[Mention | str], *rest: Any
    ) -> list[list[Candidate]]:
        nonlocal chunks
        chunks += 1
        threading.Event().wait(0.2)
        return search(self, mentions, *rest)

    monkeypatch.setattr(Linker, "search", counted)
    async with Client(f"{base}/mcp") as client:
        with anyio.move_on_after(0.3):
            await client.call_tool(
                "search_candidates", {"mentions": ["red fever"] * 256, "limit": 1}
            )
    await anyio.sleep(1)
    assert 1 <= chunks <= 4  # of 8


async def test_a_call_that_takes_too_long_is_stopped_with_advice(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()
    search = Linker.search

    def slowly(
        self: Linker, mentions: Sequence[Mention | str], *rest: Any
    ) -> list[list[Candidate]]:
        slow.wait(0.1)
        return search(self, mentions, *rest)

    monkeypatch.setattr(Linker, "search", slowly)
    with running(load_settings(index=served, time_limit=0.25)) as base:
        wait_ready(base)
        async with Client(f"{base}/mcp") as client:
            text = await complaint(client, "search_candidates", mentions=["red fever"] * 200)
            assert text.startswith("search_candidates took longer than 0.25 s and was stopped")
            assert await ask(client, "search_candidates", mentions=["red fever"])
        assert 'outcome="timeout"' in httpx2.get(f"{base}/metrics").text


async def test_several_workers_answer_for_all_and_finish_what_they_began(served: Path) -> None:
    """SIGTERM comes while a call is under way; no line of the log quotes a mention."""
    arguments = ("--index", str(served), "--workers", "2")
    with process(*arguments, BIOELX_TOKEN="made-token", BIOELX_LOG_FORMAT="json") as (server, base):
        wait_ready(base)
        headers = {"Authorization": "Bearer made-token"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http_client:
            for _ in range(4):
                transport = streamable_http_client(f"{base}/mcp", http_client=http_client)
                async with Client(transport) as client:
                    await ask(client, "search_candidates", mentions=["secret red fever"])
            told = (await http_client.get(f"{base}/metrics")).text
            stopped = anyio.Event()

            async def stop(progress: float, total: float | None, message: str | None) -> None:
                if not stopped.is_set():
                    server.send_signal(signal.SIGTERM)
                    stopped.set()

            transport = streamable_http_client(f"{base}/mcp", http_client=http_client)
            async with Client(transport) as client:
                await client.list_tools()  # the client wants the schema of what it will get
                batch = {"mentions": ["secret blue cough"] * 256}
                answered = await client.call_tool(
                    "search_candidates", batch, progress_callback=stop
                )
        assert server.wait(60) == 0
        assert server.stderr is not None
        lines = [json.loads(line) for line in server.stderr.read().splitlines()]
    assert 'tool="search_candidates"} 4.0' in told
    assert stopped.is_set() and answered.structured_content is not None
    assert len(answered.structured_content["results"]) == 256
    calls = [line for line in lines if line.get("tool") == "search_candidates"]
    assert [call["mentions"] for call in calls] == [1, 1, 1, 1, 256]
    assert all(call["outcome"] == "ok" and call["ms"] > 0 and call["request"] for call in calls)
    assert not any(word in json.dumps(lines) for word in ("secret", "made-token"))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_what_they_count_through_a_directory(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    seen: list[tuple[str, bool]] = []
    monkeypatch.setenv(metrics.SHARED, "")
    monkeypatch.delenv(metrics.SHARED)

    def run(self: Any, sockets: Any = None) -> None:
        seen.append((type(self).__name__, metrics.SHARED in os.environ))

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr(Multiprocess, "run", run)
    monkeypatch.setattr(Multiprocess, "__init__", lambda self, config, sockets: None)
    serve_http(load_settings(port=0, workers=workers))
    assert seen == [("Server", False) if workers == 1 else ("Multiprocess", True)]


def test_another_host_than_loopback_needs_to_be_named(cli: Cli) -> None:
    fails(cli("serve", "--http", "--host", "0.0.0.0"), 2, "--host 0.0.0.0", "--allowed-host")
    fails(cli("serve", "--http", "--host", "example.org"), 2, "--allowed-host")


def test_an_address_in_use_is_told_in_one_line(cli: Cli, base: str) -> None:
    port = base.rpartition(":")[2]
    fails(cli("serve", "--http", "--port", port), 2, f"--port {port}: cannot listen")


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ((), []),
        (("kb.example.org",), ["kb.example.org", "kb.example.org:*"]),
        (("kb.example.org:8443",), ["kb.example.org:8443"]),
        (("[fd00::1]",), ["[fd00::1]", "[fd00::1]:*"]),
        (("[fd00::1]:80",), ["[fd00::1]:80"]),
    ],
)
def test_a_host_is_allowed_at_its_port_or_at_any(given: tuple[str, ...], hosts: list[str]) -> None:
    allowed = security(load_settings(host="::1", allowed_hosts=given))
    assert allowed.allowed_hosts[6:] == hosts
    assert (
        allowed.allowed_origins[-len(hosts) :] == [f"https://{host}" for host in hosts] or not hosts
    )
    assert "localhost:*" in allowed.allowed_hosts
