"""Fit a prompt's temperature and NIL threshold for the model that a server runs; print what to write into the prompt file.

    bioelx-mcp serve-ranker 0.6B &
    python benchmarks/calibrate.py --index build/open-kb --shared ../shared/data --ranker-url http://127.0.0.1:8000

On the mentions of XL-BEL's development half that have a context; those whose gold is no candidate are the NILs.
Half of the mentions of each language fit both numbers, the other half says how many mentions they decide rightly.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bioelx_mcp.backends import Model
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import ProbingBackend
from bioelx_mcp.evaluation.calibration import Judged, decided_rightly, fit_calibration
from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.linker import Linker
from bioelx_mcp.prompt import PointwisePrompt, load_prompt
from bioelx_mcp.render import fit_prompts

IN_FLIGHT = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--ranker-url", required=True)
    parser.add_argument("--ranker-model")
    parser.add_argument("--prompt", default="qwen3-reranker")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--queries", type=int, help="of each language, at most")
    args = parser.parse_args()
    prompt = load_prompt(args.prompt, PointwisePrompt)
    seen: Counter[str] = Counter()
    queries = []
    for query in read_xlbel(args.shared / "eval" / "xlbel"):
        if query.mention.context and seen[query.language] < (args.queries or sys.maxsize):
            seen[query.language] += 1
            queries.append(query)
    linker = Linker.open(args.index)
    backend = ProbingBackend(HttpServer(args.ranker_url, model=args.ranker_model, timeout=120))
    model, judged = asyncio.run(judge(linker, prompt, backend, queries, args.candidates))
    fitted = fit_calibration(judged[::2])
    held = judged[1::2]
    sys.stdout.write(
        f'[calibration."{model.name}"]  # XL-BEL, {len(judged[::2])} mentions, index {linker.manifest.index_id}\n'
        f"temperature = {fitted.temperature}\nnil_threshold = {fitted.nil_threshold}\n"
        f"# decided rightly of {len(held)} others: {decided_rightly(held, fitted):.3f}, "
        f"before {decided_rightly(held, prompt.calibrated(model.name)):.3f}\n"
    )
    return 0


async def judge(
    linker: Linker,
    prompt: PointwisePrompt,
    backend: ProbingBackend,
    queries: Sequence[Query],
    candidates: int,
) -> tuple[Model, list[Judged]]:
    """The model, and for each query the log-odds of its candidates and which of them are right."""
    model = await backend.connect()
    slots = asyncio.Semaphore(IN_FLIGHT)
    found = linker.search([query.mention for query in queries], candidates)

    async def one(number: int) -> Judged:
        query, given = queries[number], found[number]
        gold = {c.concept_id for g in query.gold if (c := linker.concept(g))}
        async with slots:
            told = linker._describe(given)
            limit = model.max_tokens or prompt.max_tokens
            prompts = await fit_prompts(prompt, query.mention, told, limit, backend.count_tokens)
            weights = await backend.score_labels(prompts)
        return [yes - no for yes, no in weights], [c.concept_id in gold for c in given]

    try:
        return model, list(await asyncio.gather(*map(one, range(len(queries)))))
    finally:
        await backend.close()


if __name__ == "__main__":
    raise SystemExit(main())
