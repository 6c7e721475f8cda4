"""vLLM in this process (`pip install 'bioelx-mcp[vllm]'`): any causal model, the log-probabilities of the labels' tokens.

What waits while the model is busy goes to it together. A batch once begun is not broken off.
"""

import asyncio
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.errors import MissingExtraError, RankerBackendError

_Waiting = tuple[str, tuple[int, ...], asyncio.Future[list[float]]]


class InProcessBackend:
    """A model of its own, loaded at the first call."""

    def __init__(
        self, model: str, *, max_tokens: int = 8192, timeout: float = 600.0, **options: Any
    ) -> None:
        """Remember what to load.

        Args:
            model: a name of the Hugging Face hub, or a directory.
            max_tokens: the longest prompt.
            timeout: seconds to load, and seconds for the prompts of a mention.
            options: further arguments of `vllm.LLM`.

        Raises:
            MissingExtraError: vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise MissingExtraError("ranking in process needs vLLM: pip install 'bioelx-mcp[vllm]'")
        self._name = model
        self._timeout = timeout
        self._options = {"max_model_len": max_tokens, "enable_prefix_caching": True, **options}
        self._loading: asyncio.Task[Any] | None = None
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def connect(self) -> Model:
        await self._load()
        return Model(self._name, self._options["max_model_len"])

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer = (await self._load()).get_tokenizer()
        return [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        llm = await self._load()
        tokens = tuple(self._token(llm, label) for label in prompts.labels)
        loop = asyncio.get_running_loop()
        mine: list[_Waiting] = [
            (prompts.head + tail, tokens, loop.create_future()) for tail in prompts.tails
        ]
        self._waiting += mine
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(llm))
        try:
            async with asyncio.timeout(self._timeout):
                return list(await asyncio.gather(*(future for _, _, future in mine)))
        except TimeoutError as error:
            raise RankerBackendError(
                f"{self._name} in process did not answer in time", silent=True
            ) from error

    async def close(self) -> None:
        self._loading = None  # with it goes the model

    async def _load(self) -> Any:
        """The model; who asks while it is loaded gets the same answer, and one that failed is loaded anew."""
        loading = self._loading
        if loading is None or (loading.done() and loading.exception()):
            loading = self._loading = asyncio.create_task(asyncio.to_thread(self._open))
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(loading)
        except Exception as error:  # whatever an engine may raise
            raise RankerBackendError(
                f"{self._name} cannot be loaded in process: {type(error).__name__}: {error}",
                silent=True,
            ) from error

    def _open(self) -> Any:
        return import_module("vllm").LLM(self._name, **self._options)

    async def _work(self, llm: Any) -> None:
        """Score what waits, all at once, until nothing does."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                found = await asyncio.to_thread(self._generate, llm, batch)
            except Exception as error:  # the engine's death is everybody's answer
                told = RankerBackendError(
                    f"{self._name} in process: {type(error).__name__}: {error}"
                )
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(told)
                continue
            for (_, _, future), row in zip(batch, found, strict=True):
                if not future.done():
                    future.set_result(row)

    def _generate(self, llm: Any, batch: Sequence[_Waiting]) -> list[list[float]]:
        sampling = import_module("vllm").SamplingParams
        parameters = [
            sampling(max_tokens=1, temperature=0.0, logprob_token_ids=list(tokens))
            for _, tokens, _ in batch
        ]
        answers = llm.generate([text for text, _, _ in batch], parameters, use_tqdm=False)
        return [
            [float(answer.outputs[0].logprobs[0][token].logprob) for token in tokens]
            for answer, (_, tokens, _) in zip(answers, batch, strict=True)
        ]

    def _token(self, llm: Any, label: str) -> int:
        found = llm.get_tokenizer().encode(label, add_special_tokens=False)
        if len(found) != 1:
            raise RankerBackendError(
                f"the label {label!r} is no single token of {self._name}: {found}"
            )
        return int(found[0])
