"""What ranking costs, on a real vLLM with a tiny random model: prompt tokens, passes, mentions a second, our overhead.

    VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/ranker.py --out benchmarks/results/ranker.json

A token here is a byte, and the model is tiny: shares and ratios carry over to real models, seconds do not.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "vllm"))
from vllm_server import MAX_TOKENS, Server, find_python, serve

from bioelx_mcp.backends import Prompts
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import ProbingBackend
from bioelx_mcp.evaluation.run import checkout_commit
from bioelx_mcp.letters import SecondLook, cyclic_orders
from bioelx_mcp.linker import Linker
from bioelx_mcp.prompt import ListwisePrompt, PointwisePrompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.render import fit_prompts
from bioelx_mcp.schema import Mention

CANDIDATES = (10, 16, 32, 64)
SENTENCE = (
    "Seen today for follow-up; she reports {}, worse at night, and asks for something that helps."
)
MENTIONS = (
    "chest pain", "asthma", "headache", "fever", "nausea", "cough", "stroke", "pneumonia", "anemia",
    "sepsis", "gout", "migraine", "epilepsy", "measles", "psoriasis", "malaria",
)  # fmt: skip
ROUNDS = 5
POINTWISE = load_prompt("qwen3-reranker", PointwisePrompt)
LETTERS = load_prompt("letters", ListwisePrompt)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    python = find_python()
    linker = Linker.open()
    with tempfile.TemporaryDirectory() as folder:
        with serve(python, Path(folder), "tiny-qwen3-reranker") as server:
            pointwise = [count(linker, server, number) for number in CANDIDATES]
            speed = measure_speed(linker, server)
        with serve(python, Path(folder), "tiny-model") as server:
            listwise = [count_letters(linker, server, number) for number in (4, 8)]
    result = {
        "pointwise": pointwise,
        "listwise": listwise,
        "speed": speed,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": checkout_commit(),
    }
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(render(result))
    return 0


def mention(number: int) -> Mention:
    name = MENTIONS[number % len(MENTIONS)]
    return Mention(name, f"Visit {number}. {SENTENCE.format(name)}")


def tokens(server: Server) -> tuple[float, float]:
    """Prompt tokens that the server was sent, and those it found in its cache."""
    return (
        server.metric("vllm:prompt_tokens_total"),
        server.metric("vllm:prefix_cache_hits_total"),
    )


def prompts_for(
    linker: Linker, one: Mention, number: int, orders: Sequence[Sequence[int]] = ()
) -> Prompts:
    """The prompts of a mention as the ranker sends them; tokens are bytes."""
    told = linker._describe(linker.search([one], number)[0])

    async def bytes_of(texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) for text in texts]

    prompt = LETTERS if orders else POINTWISE
    return asyncio.run(fit_prompts(prompt, one, told, MAX_TOKENS, bytes_of, orders))


def count(linker: Linker, server: Server, number: int) -> dict[str, Any]:
    """Prompt tokens sent and computed for a mention whose prompts the server has not seen, and has seen."""
    ranker = Ranker(
        linker._describe, POINTWISE, ProbingBackend(HttpServer(server.url, timeout=300))
    )
    ranker.rank_candidates([(mention(900), linker.search(["fever"], 2)[0])])  # the trial is over
    told: dict[str, Any] = {"candidates": number, "passes": number}
    one = mention(1000 + number)
    found = linker.search([one], number)[0]
    for name in ("new", "seen"):
        before = tokens(server)
        again = Ranker(linker._describe, POINTWISE, ranker._backend)
        again._background = ranker._background  # one client, and nothing remembered
        (ranking,) = again.rank_candidates([(one, found)])
        assert not ranking.degraded, ranking.degraded
        sent, hit = (b - a for a, b in zip(before, tokens(server), strict=True))
        told |= {"sent": sent, f"computed, {name}": sent - hit}
    before = tokens(server)
    for _ in range(2):
        again.rank_candidates([(one, found)])
    told["computed, remembered"] = tokens(server)[0] - before[0]
    return told


def count_letters(linker: Linker, server: Server, number: int) -> dict[str, Any]:
    """The same for the second look, in as many orders as its prompt says."""
    one = mention(2000 + number)
    told = linker._describe(linker.search([one], number)[0])
    result: dict[str, Any] = {
        "candidates": number,
        "passes": len(cyclic_orders(number, LETTERS.orders)),
    }

    async def look() -> None:
        backend = ProbingBackend(HttpServer(server.url, timeout=300), ["completions"])
        await backend.connect()
        second = SecondLook(LETTERS, backend)
        for name in ("new", "seen"):
            before = tokens(server)
            await second.choose(one, told)
            sent, hit = (b - a for a, b in zip(before, tokens(server), strict=True))
            result.update({"sent": sent, f"computed, {name}": sent - hit})
        await backend.close()

    asyncio.run(look())
    return result


def measure_speed(linker: Linker, server: Server) -> dict[str, Any]:
    """Mentions a second with ten candidates, by our ranker and by bare requests of the same bodies, in turn."""
    ours: list[float] = []
    bare: list[float] = []
    cpu = [0.0, 0.0]
    backend = ProbingBackend(HttpServer(server.url, timeout=300))
    first = Ranker(linker._describe, POINTWISE, backend)
    for turn in range(ROUNDS + 1):
        items = [(one, linker.search([one], 10)[0]) for one in map(mention, range(32))]
        ranker = Ranker(linker._describe, POINTWISE, backend)
        ranker._background = first._background
        started, busy = time.perf_counter(), time.process_time()
        rankings = ranker.rank_candidates(items)
        seconds = time.perf_counter() - started
        cpu[0] += time.process_time() - busy
        first._background = ranker._background
        assert not any(ranking.degraded for ranking in rankings)
        bodies = [body(prompts_for(linker, one, 10)) for one, _ in items]
        started, busy = time.perf_counter(), time.process_time()
        asyncio.run(post(server.url, bodies))
        cpu[1] += time.process_time() - busy
        if turn:  # the first fills the server's cache
            bare.append(time.perf_counter() - started)
            ours.append(seconds)
    return {
        "mentions": 32,
        "ours, mentions a second": 32 / statistics.median(ours),
        "bare, mentions a second": 32 / statistics.median(bare),
        "overhead": statistics.median(a / b for a, b in zip(ours, bare, strict=True)) - 1,
        "ours, CPU ms a mention": 1000 * cpu[0] / 32 / (ROUNDS + 1),
        "bare, CPU ms a mention": 1000 * cpu[1] / 32 / (ROUNDS + 1),
        "rounds": [list(pair) for pair in zip(ours, bare, strict=True)],
    }


def body(prompts: Prompts) -> dict[str, Any]:
    return {
        "model": "tiny",
        "queries": prompts.head,
        "documents": prompts.tails,
        "use_activation": False,
    }


async def post(url: str, bodies: Sequence[dict[str, Any]]) -> None:
    """Eight at a time, as our ranker does, and nothing but that."""
    slots = asyncio.Semaphore(8)
    async with httpx2.AsyncClient(timeout=300) as client:

        async def one(data: dict[str, Any]) -> None:
            async with slots:
                (await client.post(f"{url}/score", json=data)).raise_for_status().json()

        await asyncio.gather(*map(one, bodies))


def render(result: dict[str, Any]) -> str:
    lines = []
    for kind in ("pointwise", "listwise"):
        header = list(result[kind][0])
        lines += [f"\n{kind}", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        lines += [
            "| " + " | ".join(f"{row[key]:,.0f}" for key in header) + " |" for row in result[kind]
        ]
    speed = result["speed"]
    lines.append(
        f"\nten candidates: {speed['ours, mentions a second']:.1f} mentions a second, bare requests "
        f"{speed['bare, mentions a second']:.1f}; overhead {100 * speed['overhead']:+.1f}% (median of {ROUNDS} rounds in turn); "
        f"CPU of the client {speed['ours, CPU ms a mention']:.1f} ms a mention, bare {speed['bare, CPU ms a mention']:.1f}"
    )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
