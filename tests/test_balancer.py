"""Two servers over one index behind nginx, as `examples/nginx.conf` says: any of them answers any call."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from callers import ask
from conftest import NAMES, build_small, write_tsv
from http_server import wait_ready
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from model_server import ModelServer, Reply, Request, vllm_reranker

from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="no nginx (apt-get install nginx-light)"),
]
CONFIG = Path(__file__).parents[1] / "examples" / "nginx.conf"
AROUND = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path none; uwsgi_temp_path none; scgi_temp_path none;
{served}
}}
"""
NOBODY = 65534
TOKEN = "made-token-of-some-length"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Host": "kb.example.org"}
MENTIONS = (
    "red fever",
    "blauer Husten",
    "grun ausschlg",
    "緑の発疹",
    "fiebre",
    "version 1",
    "none",
)


NUMBER = itertools.count()


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Server:
    """`bioelx-mcp serve --http` at a port; its log is a file."""

    def __init__(self, index: Path, port: int, log: Path, ranker: str) -> None:
        self.base, self._log = f"http://127.0.0.1:{port}", log
        self._command = [sys.executable, "-m", "bioelx_mcp", "serve", "--http", "--index", str(index), "--port", str(port)]  # fmt: skip
        self._command += ["--allowed-host", "kb.example.org", "--ranker-url", ranker]
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "BIOELX_TOKEN": TOKEN, "BIOELX_LOG_FORMAT": "json"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, env=environment)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                wait_ready(self.base)
                return
            except httpx2.ConnectError:
                time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def stop(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(60)

    def calls(self) -> list[dict[str, Any]]:
        """What it logged of tool calls, since it was made."""
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if "tool" in line]


@contextmanager
def balancer(directory: Path, port: int, servers: tuple[int, ...]) -> Iterator[None]:
    """nginx with the shipped configuration but for the ports, without any right."""
    text = CONFIG.read_text().replace("8080", str(port))
    for stated, real in zip(("8765", "8766"), servers, strict=True):
        assert f"127.0.0.1:{stated} " in text
        text = text.replace(stated, str(real))
    (directory / "nginx.conf").write_text(AROUND.format(served=text))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    assert NGINX is not None
    command = [NGINX, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **user) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


class Model(ModelServer):
    def handle_error(self, *_: Any) -> None:
        """Who was killed hears no answer."""


class Behind:
    """All that stands: the address of the balancer, its two servers, the index, and the model, which waits if told."""

    def __init__(self, url: str, pair: tuple[Server, Server], index: Path) -> None:
        self.url, self.pair, self.index = url, pair, index
        self.versions: list[str] = []
        self.go, self.waiting = threading.Event(), threading.Semaphore(0)

    def judge(self, request: Request) -> Reply:
        if request.path == "/score" and "patience" in json.dumps(request.body):
            self.waiting.release()
            self.go.wait(30)
        return vllm_reranker(lambda query, document: float(len(document)))(request)

    def update(self, number: int) -> None:
        """Swap in a version of the index."""
        names = self.index.with_name("names.tsv")
        row = ("UMLS:C0000001", f"version {number}", "en", "synonym", "made")
        write_tsv(names, [*NAMES, row])
        os.utime(names, (number, number))
        self.versions.append(build_small(names, self.index).index_id)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Until its end the model lets a context wait that asks for patience."""
        self.go.clear()
        self.waiting = threading.Semaphore(0)
        try:
            yield
        finally:
            self.go.set()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    root = tmp_path_factory.mktemp("behind")
    front, *ports = free_ports(3)
    made = Behind(f"http://127.0.0.1:{front}/mcp", (None, None), root / "index")  # type: ignore[arg-type]
    made.update(0)
    model = Model(made.judge)
    one, other = (Server(made.index, port, root / f"{port}.log", model.url) for port in ports)
    made.pair = (one, other)
    with tempfile.TemporaryDirectory() as directory:  # nobody may not go below pytest's own
        try:
            with balancer(Path(directory), front, tuple(ports)):
                yield made
        finally:
            made.go.set()
            for server in made.pair:
                server.stop(signal.SIGKILL)
            model.stop()


@asynccontextmanager
async def client_of(behind: Behind, mode: Any = "auto") -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as http_client:
        transport = streamable_http_client(behind.url, http_client=http_client)
        async with Client(transport, mode=mode) as client:
            yield client


def items(count: int) -> dict[str, Any]:
    """So many to rank, never seen before (what was scored is remembered); the last one waits for the model."""
    contexts = [f"red fever {next(NUMBER)}" for _ in range(count)]
    contexts[-1] += " needs patience"
    return {"items": [{"mention": "red fever", "context": context} for context in contexts]}


async def test_both_servers_answer_every_call_as_one_process_does(
    behind: Behind, mode: Any
) -> None:
    before = [Counter(call["tool"] for call in server.calls()) for server in behind.pair]
    alone = build_server(load_settings(index=behind.index))
    calls: list[tuple[str, dict[str, Any]]] = [
        ("search_candidates", {"mentions": [mention], "limit": 3, "response_format": "detailed"})
        for mention in MENTIONS
    ] * 4
    calls += [("get_concepts", {"ids": ["C0000001", "MADE:3", "NO:1"]})] * 4
    async with Client(alone, mode=mode) as single, client_of(behind, mode) as client:
        assert await client.list_tools() == await single.list_tools()
        for tool, arguments in calls:
            assert await ask(client, tool, **arguments) == await ask(single, tool, **arguments)
    for server, had in zip(behind.pair, before, strict=True):
        answered = Counter(call["tool"] for call in server.calls()) - had
        assert answered["search_candidates"] > 8 and answered["get_concepts"] > 0


async def test_progress_comes_while_the_work_goes_on(behind: Behind, mode: Any) -> None:
    """The first eight are ranked and told of; the next waits for a model that has not answered."""
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)
        behind.go.set()

    with behind.patience(), anyio.fail_after(20):
        async with client_of(behind, mode) as client:
            result = await client.call_tool("rank_candidates", items(9), progress_callback=note)
    assert not result.is_error and seen == [8, 9]


def ended(behind: Behind) -> Counter[str]:
    """How the calls on both servers ended."""
    return Counter(call["outcome"] for server in behind.pair for call in server.calls())


async def test_a_call_stops_when_its_client_leaves(behind: Behind, mode: Any) -> None:
    before = ended(behind)["cancelled"]
    with behind.patience(), anyio.fail_after(20):
        async with anyio.create_task_group() as group:

            async def leave_early() -> None:
                async with client_of(behind, mode) as client:
                    await client.call_tool("rank_candidates", items(1))

            group.start_soon(leave_early)
            await anyio.to_thread.run_sync(behind.waiting.acquire)
            group.cancel_scope.cancel()
        while ended(behind)["cancelled"] == before:
            await anyio.sleep(0.05)


async def test_a_call_that_is_cancelled_by_a_client_that_stays_stops_in_the_new_era_only(
    behind: Behind, mode: Any
) -> None:
    """2025-11-25 cancels by a message of its own, which without sessions finds no call; that one goes to its end."""
    before = ended(behind)
    with anyio.fail_after(20):
        async with client_of(behind, mode) as client:
            await client.list_tools()
            with behind.patience():
                with anyio.move_on_after(1) as scope:
                    await client.call_tool("rank_candidates", items(1))
                assert scope.cancelled_caught
                assert (await ask(client, "get_concepts", ids=["MADE:3"]))[1]["concepts"]
                await anyio.sleep(1)
                meanwhile = ended(behind) - before
            while (ended(behind) - before).total() < 2:
                await anyio.sleep(0.05)
    assert meanwhile == ({"ok": 1, "cancelled": 1} if mode == "auto" else {"ok": 1})
    assert ended(behind) - before == ({"ok": 1, "cancelled": 1} if mode == "auto" else {"ok": 2})


async def test_who_is_refused_by_a_server_is_refused_behind_the_balancer(behind: Behind) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    root = behind.url.removesuffix("/mcp")

    def status(path: str = "/mcp", body: bytes | None = None, **changes: str) -> int:
        headers = {**HEADERS, "Accept": "application/json, text/event-stream", **changes}
        content = json.dumps(ping).encode() if body is None else body
        headers = {name: value for name, value in headers.items() if value}
        headers["Content-Type"] = "application/json"
        return httpx2.post(f"{root}{path}", content=content, headers=headers).status_code

    assert status() == 200
    assert status(Host="evil.example") == 421
    assert status(Origin="http://evil.example") == 403
    assert status(Origin="https://kb.example.org") == 200
    assert status(Authorization="") == status(Authorization="Bearer x") == 401
    assert status(body=b" " * 5_000_000) == 413
    assert status("/metrics") == status("/mcp/x") == 404
    assert httpx2.get(f"{root}/health", headers=HEADERS).json()["status"] == "ready"


async def load(behind: Behind, over: anyio.Event, answered: list[str]) -> None:
    """Call on and on; every answer is right for the version of the index that it names."""
    async with client_of(behind) as client:
        while not over.is_set():
            mentions = ["red fever", "blauer Husten", "version 1"]
            _, found = await ask(client, "search_candidates", mentions=mentions, limit=1)
            first = [one["candidates"][0] for one in found["results"]]
            assert [one["id"] for one in first[:2]] == ["UMLS:C0000001", "UMLS:C0000002"]
            assert (first[2]["score"] == 1) == (found["index"] in behind.versions[1:]), found
            answered.append(found["index"])


async def test_a_killed_server_costs_only_an_answer_that_had_begun(behind: Behind) -> None:
    """Two calls wait for the model on each of the servers; one of these two has begun to tell its progress."""
    answered: list[str] = []
    cut: list[int] = []

    async def load_on(number: int) -> None:
        while not over.is_set():
            try:
                await load(behind, over, answered)
            except* httpx2.RemoteProtocolError:  # the head of its answer had gone out
                cut.append(number)

    over, told, outcomes = anyio.Event(), anyio.Semaphore(0), list[str]()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.release()

    async def rank(count: int, callback: Any = None) -> None:
        async with client_of(behind) as client:
            await client.list_tools()
            try:
                result = await client.call_tool(
                    "rank_candidates", items(count), progress_callback=callback
                )
                outcomes.append("answered" if not result.is_error else "error")
            except MCPError:
                outcomes.append("lost")

    with behind.patience():
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(rank, *((9, note) if number < 2 else (1,)))
                if number < 2:
                    await told.acquire()
                await anyio.to_thread.run_sync(behind.waiting.acquire)
            for number in range(4):
                group.start_soon(load_on, number)
            while len(answered) < 20:
                await anyio.sleep(0.01)
            before = len(answered)
            behind.pair[0].stop(signal.SIGKILL)
            while len(answered) < before + 40:
                await anyio.sleep(0.01)
            behind.go.set()
            while len(outcomes) < 4:
                await anyio.sleep(0.01)
            over.set()
    assert sorted(outcomes) == ["answered"] * 3 + ["lost"]
    assert len(cut) == len(set(cut))  # of each at most the one call that was under way
    behind.pair[0].start()


async def test_a_server_serves_what_it_opened_until_it_is_started_anew_and_no_call_is_lost(
    behind: Behind,
) -> None:
    answered: list[str] = []
    over = anyio.Event()
    old = behind.versions[0]

    async def next_answers() -> set[str]:
        before = len(answered)
        with anyio.fail_after(60):
            while len(answered) < before + 40:
                await anyio.sleep(0.01)
        return set(answered[before + 10 :])

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(load, behind, over, answered)
        assert await next_answers() == {old}
        await anyio.to_thread.run_sync(behind.update, 1)
        new = behind.versions[1]
        assert await next_answers() == {old}
        for number, server in enumerate(behind.pair):
            await anyio.to_thread.run_sync(server.stop, signal.SIGTERM)
            await anyio.to_thread.run_sync(server.start)
            with anyio.fail_after(30):  # nginx asks it again after fail_timeout
                while await next_answers() != ({new} if number else {old, new}):
                    pass
        over.set()
