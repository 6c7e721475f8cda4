"""The MCP server under load, and what its own layer costs.

    python benchmarks/server.py --index build/open-kb [--seconds 60] [--clients 16] [--workers 1] [--out FILE]

Load: concurrent HTTP clients of the current revision, each sending calls of five names of the starter knowledge
base (fifteen languages) one after the other; throughput, latency, errors, and the memory of the server by second.
Layer: CPU of the server process for one call over stdio, with a Linker that answers at once, beside a tool of the
plain SDK that does nothing.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

ROOT = Path(__file__).parents[1]
REVISION = "2026-07-28"
MENTIONS = 5
LIMIT = 5
META = "io.modelcontextprotocol"
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": REVISION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "search_candidates",
}
NO_OP = """
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent
server = MCPServer("no-op", log_level="WARNING")
@server.tool()
async def search_candidates(mentions: list[str], limit: int = 5) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text="done")])
server.run()
"""
OURS = """
from types import SimpleNamespace
from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import AliasHit, Candidate
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings
hit = AliasHit("some alias", "de", "made", "dense", 0.7)
class Stub:
    manifest = SimpleNamespace(index_id="stub")
    def search(self, mentions, limit, filters=None):
        return [[Candidate(f"UMLS:C000000{i}", "a label", (), 0.7, hit) for i in range(limit)] for _ in mentions]
Linker.from_settings = lambda settings: Stub()
build_server(load_settings(), stdio=True).run()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--calls", type=int, default=500, help="for the layer's own cost")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} before",
        "layer": layer(given.calls),
        "load": load(given.index, given.seconds, given.clients, given.workers),
    }
    told = json.dumps(result, indent=1)
    sys.stdout.write(told + "\n")
    if given.out:
        given.out.write_text(told + "\n", encoding="utf-8")


def names() -> list[str]:
    """Names of the starter knowledge base, in an order that is random and always the same."""
    found: list[str] = []
    for path in sorted((ROOT / "index_builder" / "starter" / "concepts").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found += [name for some in json.loads(line)["names"].values() for name in some]
    random.Random(7).shuffle(found)
    return found


def load(index: Path, seconds: float, clients: int, workers: int) -> dict[str, Any]:
    with serving(index, workers) as (pid, base):
        return asyncio.run(_load(base, pid, seconds, clients, workers))


async def _load(base: str, pid: int, seconds: float, clients: int, workers: int) -> dict[str, Any]:
    waits: list[float] = []
    errors: list[str] = []
    memory: list[int] = []
    some = names()
    async with httpx2.AsyncClient(
        timeout=120, limits=httpx2.Limits(max_connections=clients)
    ) as http:
        while (await http.get(f"{base}/health")).status_code != 200:
            await asyncio.sleep(0.2)
        for i in range(2 * workers):  # the first calls of a process are slow
            await call(http, base, some[i : i + MENTIONS])
        end = time.perf_counter() + seconds

        async def client(number: int) -> None:
            place = number * 997
            while time.perf_counter() < end:
                place = (place + MENTIONS) % (len(some) - MENTIONS)
                began = time.perf_counter()
                problem = await call(http, base, some[place : place + MENTIONS])
                waits.append(time.perf_counter() - began)
                errors.extend([problem] if problem else [])

        async def watch() -> None:
            while time.perf_counter() < end:
                memory.append(resident(pid))
                await asyncio.sleep(1)

        cpu = cpu_seconds(pid)
        await asyncio.gather(watch(), *(client(number) for number in range(clients)))
        cpu = cpu_seconds(pid) - cpu
    p50, p95, p99 = (
        float(round(x, 1)) for x in np.percentile(np.array(waits) * 1000, [50, 95, 99])
    )
    quarter = len(memory) // 4
    return {
        "clients": clients, "workers": workers, "seconds": seconds, "mentions_a_call": MENTIONS,
        "calls": len(waits), "calls_a_second": round(len(waits) / seconds, 1),
        "mentions_a_second": round(MENTIONS * len(waits) / seconds),
        "server_cpu_ms_a_call": round(1000 * cpu / len(waits), 2),
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": len(errors), "first_errors": errors[:3],
        "memory_mb": {"after_a_quarter": memory[quarter], "at_the_end": memory[-1], "most": max(memory)},
    }  # fmt: skip


async def call(http: httpx2.AsyncClient, base: str, mentions: list[str]) -> str | None:
    """What went wrong with one call, or None."""
    meta = {
        f"{META}/protocolVersion": REVISION,
        f"{META}/clientInfo": {"name": "benchmark", "version": "0"},
        f"{META}/clientCapabilities": {},
    }
    arguments = {"mentions": mentions, "limit": LIMIT}
    params = {"name": "search_candidates", "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    try:
        answer = await http.post(f"{base}/mcp", json=body, headers=HEADERS)
        results = answer.json()["result"]["structuredContent"]["results"]
        fine = len(results) == len(mentions) and all(result["candidates"] for result in results)
        return None if fine else f"incomplete: {answer.text[:200]}"
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


@contextmanager
def serving(index: Path, workers: int) -> Iterator[tuple[int, str]]:
    command = [
        *(sys.executable, "-m", "bioelx_mcp", "serve", "--http", "--port", "0"),
        *("--index", str(index), "--workers", str(workers)),
    ]
    log = ROOT / "build" / "bench-server.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w+") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            while (match := re.search(r"url=(http://\S+)/mcp", log.read_text())) is None:
                time.sleep(0.1)
            yield process.pid, match[1]
        finally:
            process.terminate()
            process.wait(60)


def family(pid: int) -> list[int]:
    """The process and those it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def resident(pid: int) -> int:
    """MB."""
    texts = [Path(f"/proc/{member}/status").read_text() for member in family(pid)]
    return sum(int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) for text in texts) // 1024


def cpu_seconds(pid: int) -> float:
    ticks = 0
    for member in family(pid):
        numbers = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(numbers[11]) + int(numbers[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def layer(calls: int) -> dict[str, float]:
    """CPU milliseconds of the server process a call: the least of three runs, in turns."""
    costs: dict[str, list[float]] = {"no_op": [], "one_mention": [], "five_mentions": []}
    for _ in range(3):
        costs["no_op"].append(cost(NO_OP, calls, 1))
        costs["one_mention"].append(cost(OURS, calls, 1))
        costs["five_mentions"].append(cost(OURS, calls, MENTIONS))
    least = {name: round(min(some), 3) for name, some in costs.items()}
    return {**least, "layer": round(least["one_mention"] - least["no_op"], 3)}


def cost(code: str, calls: int, mentions: int) -> float:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(id: int, method: str, params: Any) -> Any:
            assert process.stdin is not None and process.stdout is not None
            message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert "result" in answer and not answer["result"].get("isError"), answer
            return answer

        info = {"name": "benchmark", "version": "0"}
        ask(
            0,
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info},
        )
        process.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        arguments = {"mentions": ["a mention"] * mentions, "limit": LIMIT}
        params = {"name": "search_candidates", "arguments": arguments}
        for id in range(1, 51):
            ask(id, "tools/call", params)
        before = cpu_seconds(process.pid)
        for id in range(51, 51 + calls):
            ask(id, "tools/call", params)
        spent = cpu_seconds(process.pid) - before
        process.stdin.close()
        return 1000 * spent / calls


if __name__ == "__main__":
    main()
