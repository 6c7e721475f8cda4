"""A vLLM server that runs a reranker: `POST /score`, one request a mention, log-odds back.

The server must run the pooling runner without a score template (the prompt is whole as we send it):

    vllm serve Qwen/Qwen3-Reranker-0.6B --runner pooling --hf-overrides '{"architectures":
    ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}'
"""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import httpx2

from bioelx_mcp.errors import RankerBackendError

_ATTEMPTS = 2  # a connection that was dropped is tried once more


class VllmHttpBackend:
    """Scores through one vLLM server. Thread-safe; holds a pool of connections."""

    def __init__(
        self, url: str, *, model: str | None = None, key: str | None = None, timeout: float = 30.0
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")  # as OpenAI's clients are given it
        self._model = model
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        weakref.finalize(self, self._client.close)  # nobody need remember `close`

    @property
    def model(self) -> str:
        """The configured model, else the one that the server names first; asked once, without a lock."""
        if self._model is not None:
            return self._model
        answer = self._request("GET", "/v1/models")
        try:
            self._model = str(answer["data"][0]["id"])
            return self._model
        except (KeyError, IndexError, TypeError) as error:
            raise RankerBackendError(
                f"{self._url}/v1/models names no model: {answer!r:.200}"
            ) from error

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        if not documents:
            return []
        body = {
            "model": self.model,
            "queries": query,
            "documents": list(documents),
            "use_activation": False,
        }
        answer = self._request("POST", "/score", body)
        try:
            scores = {int(row["index"]): float(row["score"]) for row in answer["data"]}
        except (KeyError, TypeError, ValueError) as error:
            raise RankerBackendError(
                f"{self._url}/score: not a list of scores: {answer!r:.200}"
            ) from error
        if sorted(scores) != list(range(len(documents))) or not all(
            map(math.isfinite, scores.values())
        ):
            raise RankerBackendError(
                f"{self._url}/score: {len(scores)} usable scores for {len(documents)} documents"
            )
        return [scores[i] for i in range(len(documents))]

    def close(self) -> None:
        self._client.close()

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        where = f"{self._url}{path}"
        for attempt in range(_ATTEMPTS):
            try:
                response = self._client.request(method, where, json=body)
                break
            except httpx2.TimeoutException as error:
                raise RankerBackendError(
                    f"{where} did not answer in time ({type(error).__name__})", silent=True
                ) from error
            except httpx2.TransportError as error:
                if attempt + 1 == _ATTEMPTS:
                    raise RankerBackendError(
                        f"{where} cannot be reached: {error}", silent=True
                    ) from error
            except httpx2.RequestError as error:  # a body that its own headers belie
                raise RankerBackendError(f"{where}: the answer cannot be read: {error}") from error
            except httpx2.InvalidURL as error:
                raise RankerBackendError(f"{where} is no address: {error}") from error
        if response.status_code != 200:
            raise RankerBackendError(
                f"{where} answered {response.status_code}: {_detail(response)}{_hint(response.status_code)}"
            )
        try:
            return response.json()
        except ValueError as error:
            raise RankerBackendError(
                f"{where} did not answer with JSON: {response.text[:200]!r}"
            ) from error


def _detail(response: httpx2.Response) -> str:
    """What the server says of an error: OpenAI's `error.message`, else its text."""
    try:
        text = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = response.text
    return str(text).strip()[:300]


def _hint(status: int) -> str:
    if status == 404:
        return " (a reranker needs `--runner pooling`; see BIOELX_RANKER_MODEL for its name)"
    return " (see BIOELX_RANKER_KEY)" if status in (401, 403) else ""
