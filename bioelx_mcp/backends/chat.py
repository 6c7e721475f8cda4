"""`POST /v1/chat/completions` of any OpenAI-compatible server (llama.cpp, Ollama, SGLang, vLLM): `top_logprobs`.

One request a document. A label that is not among the twenty likeliest words counts as likely as the last of them.
"""

import math
from collections.abc import Sequence
from typing import Any

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer, ServerBackend, numbers, together
from bioelx_mcp.errors import RankerBackendError

_PATH = "/v1/chat/completions"
_TOP = 20  # what OpenAI and the others allow
_TRIAL = Prompts("Answer with yes or no.", "", "Is water wet?", ("",), "", ("yes", "no"))


class ChatBackend(ServerBackend):
    """Log-probabilities of labels among the likeliest first words of the answer."""

    def __init__(self, server: HttpServer, model: Model) -> None:
        super().__init__(server, model)
        self._where = f"{server.url}{_PATH}"

    async def connect(self) -> Model:
        await self.score_labels(_TRIAL)
        return self._model

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        return await together(self._ask(prompts, one) for one in prompts.documents)

    async def _ask(self, prompts: Prompts, document: str) -> list[float]:
        body = {
            "model": self._model.name,
            "messages": [
                {"role": "system", "content": prompts.system},
                {"role": "user", "content": prompts.query + document},
            ],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": _TOP,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        answer = await self._server.request("POST", _PATH, body)
        try:
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            words = [(str(one["token"]), one["logprob"]) for one in top]
        except (KeyError, IndexError, TypeError) as error:
            raise RankerBackendError(
                f"{self._where} tells no log-probabilities: {answer!r:.200}"
            ) from error
        return self._read(words, prompts.labels)

    def _read(self, words: Sequence[tuple[str, Any]], labels: Sequence[str]) -> list[float]:
        """The log-probability of each label, spelt in whatever way."""
        values = numbers(self._where, [value for _, value in words])
        found: dict[str, float] = {}
        for (word, _), value in zip(words, values, strict=True):
            key = _key(word)
            found[key] = found.get(key, 0.0) + math.exp(value)
        told = [found.get(_key(label), 0.0) for label in labels]
        if not any(told):
            likeliest = max(zip(values, words, strict=True), default=(0.0, ("nothing", 0)))[1][0]
            raise RankerBackendError(
                f"{self._where}: {self._model.name} would answer {likeliest!r}, and none of {', '.join(labels)}"
            )
        floor = math.exp(min(values))
        return [math.log(max(value or floor, 1e-30)) for value in told]


def _key(word: str) -> str:
    """`Yes`, ` yes` and `yes` are one label; of single letters only the blanks do not matter."""
    word = word.strip()
    return word if len(word) == 1 else word.casefold()
