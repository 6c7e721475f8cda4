"""`POST /score` of a vLLM that runs a reranker (`--runner pooling`): all documents of a mention in one request.

The server must have no score template, since the prompt is whole as we send it; `connect` makes sure.
"""

from typing import Any

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer, ServerBackend, by_index, log_odds, numbers
from bioelx_mcp.errors import RankerBackendError

_PATH = "/score"


class ScoreBackend(ServerBackend):
    """Log-odds of the first of two labels, as the reranker's own head gives them."""

    def __init__(self, server: HttpServer, model: Model) -> None:
        super().__init__(server, model)
        self._where = f"{server.url}{_PATH}"
        self._probabilities = False

    async def connect(self) -> Model:
        """See `Backend`; also finds out whether the server adds text, and whether it gives log-odds as asked."""
        raw, tokens = await self._ask("a b", ["c d", "e"], activate=False)
        activated, _ = await self._ask("a b", ["c d", "e"], activate=True)
        # Equal answers: an older server, that knows no `use_activation`.
        self._probabilities = raw == activated and all(0.0 <= value <= 1.0 for value in raw)
        counted = await self._server.count_tokens(self._model.name, ["a bc d", "a be"])
        if tokens is not None and tokens > sum(counted) + 8 * len(counted):
            raise RankerBackendError(
                f"{self._where} reads {tokens} tokens where {sum(counted)} were sent: start the server without --chat-template"
            )
        return self._model

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        if len(prompts.labels) != 2:
            raise RankerBackendError(
                f"{self._where}: a reranker says yes or no; choosing from {len(prompts.labels)} needs a model that writes"
            )
        scores, _ = await self._ask(prompts.head, prompts.tails, activate=False)
        if self._probabilities:
            scores = [log_odds(score) for score in scores]
        return [[score, 0.0] for score in scores]

    async def _ask(
        self, query: str, documents: list[str], activate: bool
    ) -> tuple[list[float], int | None]:
        """The score of each document, and how many tokens the server says it read."""
        body = {
            "model": self._model.name,
            "queries": query,
            "documents": documents,
            "use_activation": activate,
        }
        answer: Any = await self._server.request("POST", _PATH, body)
        rows = answer.get("data") if isinstance(answer, dict) else answer
        scores = numbers(self._where, by_index(self._where, rows, ["score"], len(documents)))
        usage = answer.get("usage") if isinstance(answer, dict) else None
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return scores, tokens if isinstance(tokens, int) else None
