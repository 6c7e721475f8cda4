"""vLLM in process, with a stand-in for the engine; the real one is asked in tests/vllm."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.in_process import InProcessBackend
from bioelx_mcp.errors import MissingExtraError, RankerBackendError, UsageError
from bioelx_mcp.linker import Linker
from bioelx_mcp.settings import load_settings

YES_NO = ("yes", "no")


class Tokenizer:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return {"yes": [7], "no": [8]}.get(text, [0] * len(text))


class Engine:
    """As much of `vllm.LLM` as we use; `batches` holds how many prompts came together."""

    def __init__(self, model: str, **options: Any) -> None:
        if model == "broken":
            raise OSError("no such model")
        self.options = options
        self.batches: list[int] = []
        self.first, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        engines.append(self)

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def generate(
        self, prompts: Sequence[str], parameters: Sequence[Any], use_tqdm: bool
    ) -> list[Any]:
        self.batches.append(len(prompts))
        self.first.set()
        self.go_on.wait(10)
        if any("die" in prompt for prompt in prompts):
            raise RuntimeError("engine is dead")
        told = [
            {7: SimpleNamespace(logprob=-1.0 * len(p)), 8: SimpleNamespace(logprob=-2.0)}
            for p in prompts
        ]
        return [SimpleNamespace(outputs=[SimpleNamespace(logprobs=[one])]) for one in told]


engines: list[Engine] = []


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm")
    module.LLM = Engine
    module.SamplingParams = lambda **options: SimpleNamespace(**options)
    module.__spec__ = SimpleNamespace(name="vllm")
    monkeypatch.setitem(sys.modules, "vllm", module)
    engines.clear()


def prompts(*documents: str, labels: tuple[str, ...] = YES_NO) -> Prompts:
    return Prompts("", "p", "q", documents, "s", labels)


def test_the_model_is_loaded_once_and_what_waits_goes_to_it_together() -> None:
    async def work() -> None:
        backend = InProcessBackend("made", max_tokens=99)
        assert await backend.connect() == Model("made", 99)
        engines[0].go_on.clear()
        tasks = [asyncio.create_task(backend.score_labels(prompts("a", "bb"))) for _ in range(5)]
        await asyncio.to_thread(engines[0].first.wait, 10)
        await asyncio.sleep(0.05)
        engines[0].go_on.set()
        assert [await task for task in tasks] == [[[-4.0, -2.0], [-5.0, -2.0]]] * 5
        assert sum(engines[0].batches) == 10 and len(engines[0].batches) <= 2
        assert await backend.count_tokens(["yes", "abc"]) == [1, 3]
        await backend.close()

    asyncio.run(work())
    assert len(engines) == 1
    assert engines[0].options == {"max_model_len": 99, "enable_prefix_caching": True}


def test_a_model_that_cannot_be_loaded_or_dies_is_an_error_that_says_why() -> None:
    async def work() -> None:
        with pytest.raises(
            RankerBackendError, match="cannot be loaded in process: OSError"
        ) as caught:
            await InProcessBackend("broken").connect()
        assert caught.value.silent
        backend = InProcessBackend("made")
        with pytest.raises(RankerBackendError, match="RuntimeError: engine is dead"):
            await backend.score_labels(prompts("a", "die"))
        assert await backend.score_labels(prompts("a")) == [[-4.0, -2.0]]
        with pytest.raises(RankerBackendError, match="the label 'maybe' is no single token"):
            await backend.score_labels(prompts("a", labels=("maybe", "no")))

    asyncio.run(work())


def test_a_model_that_takes_too_long_is_given_up() -> None:
    async def work() -> None:
        backend = InProcessBackend("made", timeout=0.2)
        await backend.connect()
        engines[0].go_on.clear()
        with pytest.raises(RankerBackendError, match="did not answer in time") as caught:
            await backend.score_labels(prompts("a"))
        assert caught.value.silent
        engines[0].go_on.set()
        await asyncio.sleep(0.05)
        assert await backend.score_labels(prompts("b")) == [[-4.0, -2.0]]

    asyncio.run(work())


def test_the_settings_choose_it_and_need_a_model(linker: Linker) -> None:
    index = linker._index
    with pytest.raises(UsageError, match="needs a ranker_model, and no ranker_url"):
        Linker(index, load_settings(ranker_backend="in-process"))
    ranking_linker = Linker(index, load_settings(ranker_backend="in-process", ranker_model="made"))
    (ranking,) = ranking_linker.link(["asthma"], 3)
    assert ranking.ranker == "made/qwen3-reranker@2"


def test_without_vllm_the_extra_is_named(linker: Linker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioelx_mcp.backends.in_process.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"bioelx-mcp\[vllm\]"):
        Linker(linker._index, load_settings(ranker_backend="in-process", ranker_model="made"))
