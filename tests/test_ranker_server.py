"""`serve-ranker`: the command for vLLM, printed, or run in place of ours."""

import json
import os
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from callers import Cli

from bioelx_mcp.prompt import PointwisePrompt, load_prompt
from bioelx_mcp.ranker_server import PRESETS, vllm_command


@pytest.mark.parametrize("size", ["0.6B", "4b", "8B"])
def test_a_size_is_a_qwen3_reranker_with_its_pooling_head(cli: Cli, size: str) -> None:
    result = cli("serve-ranker", size, "--port", "8001", "--print")
    words = shlex.split(result.out)
    assert words[:3] == ["vllm", "serve", f"Qwen/Qwen3-Reranker-{size.upper()}"]
    options = dict(pairwise(words))
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "8001")
    assert options["--runner"] == "pooling"
    assert json.loads(options["--hf-overrides"])["classifier_from_token"] == ["no", "yes"]
    assert "--chat-template" not in words  # the prompt is whole as we send it


def test_any_other_model_is_served_as_it_is() -> None:
    words = vllm_command("/models/mine")
    assert words[2] == "/models/mine"
    assert "--runner" not in words
    assert "--enable-prefix-caching" in words


def test_the_prompt_that_ships_is_made_for_the_models_that_have_a_short_name() -> None:
    assert set(PRESETS) == {"0.6B", "4B", "8B"}
    assert load_prompt("qwen3-reranker", PointwisePrompt).labels == ("yes", "no")


def test_the_server_takes_the_place_of_the_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: ran.append((path, words)))
    assert cli("serve-ranker", "0.6B").code == 0
    [(path, words)] = ran
    assert path == str(program)
    assert words == vllm_command("0.6B")


def test_without_vllm_the_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = cli("serve-ranker", "0.6B")
    assert result.code == 3
    assert "bioelx-mcp[vllm]" in result.err
