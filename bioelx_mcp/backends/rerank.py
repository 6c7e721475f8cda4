"""Rerank endpoints, in their three shapes: `results` with `relevance_score` (Jina, Cohere, vLLM, llama.cpp), a bare
list with `score` (SGLang), and the same for `texts` (text-embeddings-inference). Such a server has its own prompt.
"""

from collections.abc import Sequence
from typing import Any

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer, ServerBackend, by_index, log_odds, numbers
from bioelx_mcp.errors import RankerBackendError

_SHAPES = (("/v1/rerank", "documents"), ("/rerank", "documents"), ("/rerank", "texts"))
_SCORES = ("relevance_score", "score")


class RerankBackend(ServerBackend):
    """Log-odds from a reranker's relevance: scores within 0 and 1 are taken for probabilities until one is outside."""

    def __init__(self, server: HttpServer, model: Model) -> None:
        super().__init__(server, model)
        self._path, self._field = _SHAPES[0]
        self._probabilities = True

    async def connect(self) -> Model:
        refusal: RankerBackendError | None = None
        for self._path, self._field in _SHAPES:
            try:
                await self._ask("a", "b", ["c", "d"])
                return self._model
            except RankerBackendError as error:
                if error.silent:
                    raise
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        if len(prompts.labels) != 2:
            raise RankerBackendError(
                f"{self._server.url}{self._path}: a reranker says how well a document fits; choosing from "
                f"{len(prompts.labels)} needs a model that writes"
            )
        scores = await self._ask(prompts.topic, prompts.instruction, prompts.documents)
        self._probabilities &= all(0.0 <= score <= 1.0 for score in scores)
        return [[log_odds(s) if self._probabilities else s, 0.0] for s in scores]

    async def _ask(self, query: str, instruction: str, documents: Sequence[str]) -> list[float]:
        body = {
            "model": self._model.name,
            "query": query,
            self._field: list(documents),
            "instruct": instruction,  # SGLang, for rerankers that take one; the others do not mind
            "truncate": True,  # text-embeddings-inference: shorten a document that is too long
        }
        where = f"{self._server.url}{self._path}"
        answer: Any = await self._server.request("POST", self._path, body)
        if isinstance(answer, dict):
            answer = answer.get("results", answer.get("data"))
        return numbers(where, by_index(where, answer, _SCORES, len(documents)))
