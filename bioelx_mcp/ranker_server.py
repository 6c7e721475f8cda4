"""The command that starts a vLLM server for ranking, and its start in place of this process."""

import json
import os
import shutil
import sys
from collections.abc import Sequence

from bioelx_mcp.errors import MissingExtraError

# Published by Qwen under Apache-2.0; the larger, the better and the slower.
PRESETS = {size: f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")}
# Published as a causal model; as a reranker vLLM keeps the two rows of its head that say yes and no.
_RERANKER = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}


def vllm_command(model: str, port: int = 8000, max_tokens: int = 8192) -> list[str]:
    """The words of the command: for a Qwen3-Reranker its pooling head, for any other model its own words.

    Args:
        model: a size of Qwen3-Reranker, a name of the Hugging Face hub, or a directory.
        port: on this machine; nobody else can reach it.
        max_tokens: the longest prompt.
    """
    name = PRESETS.get(model.upper(), model)
    command = ["vllm", "serve", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(max_tokens), "--enable-prefix-caching"]
    if "qwen3-reranker" in name.casefold():
        command += ["--runner", "pooling", "--hf-overrides", json.dumps(_RERANKER)]
    return command


def run_server(command: Sequence[str]) -> None:
    """Become that server; does not come back.

    Raises:
        MissingExtraError: there is no vLLM here.
    """
    beside = shutil.which(command[0], path=os.path.dirname(sys.executable))  # noqa: PTH120
    program = beside or shutil.which(command[0])
    if program is None:
        raise MissingExtraError(
            "serve-ranker needs vLLM: pip install 'bioelx-mcp[vllm]', or --print the command for another machine"
        )
    os.execv(program, list(command))  # noqa: S606  our own words, no shell
