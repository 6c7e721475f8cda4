"""`POST /v1/completions` of a vLLM that runs any causal model: the log-probabilities of the labels' tokens.

`logprob_token_ids`, an extension of vLLM, tells them whatever their rank; all documents go in one request.
"""

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer, ServerBackend, by_index, numbers
from bioelx_mcp.errors import RankerBackendError

_PATH = "/v1/completions"
_TRIAL = Prompts("", "", "Is it so? Answer: ", ("",), "", ("yes", "no"))


class CompletionsBackend(ServerBackend):
    """Log-probabilities of any labels that are one token each, over the whole vocabulary."""

    def __init__(self, server: HttpServer, model: Model) -> None:
        super().__init__(server, model)
        self._where = f"{server.url}{_PATH}"
        self._tokens: dict[str, int] = {}

    async def connect(self) -> Model:
        await self.score_labels(_TRIAL)
        return self._model

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        tokens = [await self._token(label) for label in prompts.labels]
        body = {
            "model": self._model.name,
            "prompt": [prompts.head + tail for tail in prompts.tails],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "logprob_token_ids": tokens,
            # Without it they are keyed by their text, and pieces of characters share one.
            "return_tokens_as_token_ids": True,
        }
        answer = await self._server.request("POST", _PATH, body)
        choices = answer.get("choices") if isinstance(answer, dict) else answer
        told = by_index(self._where, choices, ["logprobs"], len(prompts.documents))
        try:
            rows = [
                [row["top_logprobs"][0][f"token_id:{token}"] for token in tokens] for row in told
            ]
        except (KeyError, IndexError, TypeError) as error:
            raise RankerBackendError(
                f"{self._where} does not tell the log-probabilities of given tokens (vLLM does): {told!r:.200}"
            ) from error
        return [numbers(self._where, row) for row in rows]

    async def _token(self, label: str) -> int:
        if label not in self._tokens:
            found = await self._server.tokenize(self._model.name, label)
            if found is None or len(found) != 1:
                raise RankerBackendError(
                    f"{self._server.url}/tokenize: the label {label!r} is no single token of {self._model.name}: {found}"
                )
            self._tokens[label] = found[0]
        return self._tokens[label]
