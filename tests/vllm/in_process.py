"""Our backend with vLLM in this process; run by VLLM_PYTHON.

in_process.py MODEL < [prompt, ...] > [[log-probability of yes, of no], ...]
"""

import asyncio
import json
import sys
from typing import Any

from bioelx_mcp.backends import Prompts
from bioelx_mcp.backends.in_process import InProcessBackend

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 64 << 20,
    "block_size": 32,
    "max_num_seqs": 16,
}


async def main(model: str, prompts: list[str]) -> list[list[float]]:
    backend = InProcessBackend(model, max_tokens=4096, **OPTIONS)
    rendered = [Prompts("", "", text[:9], (text[9:],), "", ("yes", "no")) for text in prompts]
    answers = await asyncio.gather(*(backend.score_labels(one) for one in rendered))
    assert (await backend.connect()).max_tokens == 4096
    assert await backend.count_tokens(["yes", "no no"]) == [1, 3]
    await backend.close()
    return [row for rows in answers for row in rows]


if __name__ == "__main__":
    rows = asyncio.run(main(sys.argv[1], json.load(sys.stdin)))
    sys.stdout.write(f"\n{json.dumps(rows)}\n")
