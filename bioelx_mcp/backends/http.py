"""A model server over HTTP: JSON in and out, few connections, bounded retries, every wait limited."""

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import httpx2

from bioelx_mcp.backends import Model, count_bytes
from bioelx_mcp.errors import RankerBackendError

T = TypeVar("T")
CONNECTIONS = 16
_ATTEMPTS = 3  # of a request whose connection was dropped, or whose server is busy or still loading
_PAUSE = 0.1  # seconds before the second, twice as long before the third
_BUSY = (429, 502, 503)
_MOST_ANSWER = 64 << 20  # bytes


class HttpServer:
    """One server, spoken to by several backends. The key is sent with every request."""

    def __init__(
        self, url: str, *, model: str | None = None, key: str | None = None, timeout: float = 30.0
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")  # as OpenAI's clients are given it
        self._named = model
        self._timeout = timeout
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._counts = True  # until the server turns out to have no tokenizer for us
        self._client = httpx2.AsyncClient(
            timeout=None,
            limits=httpx2.Limits(max_connections=CONNECTIONS),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def find_model(self) -> Model:
        """The configured model, or the one that the server names first, and the longest prompt it reads.

        Raises:
            RankerBackendError: the server cannot be reached, or names no model where none is configured.
        """
        try:
            listed = await self.request("GET", "/v1/models")
        except RankerBackendError as error:
            if error.status != 404:
                raise
            info = await self.request("GET", "/info")  # text-embeddings-inference
            listed = {"data": [{"id": info["model_id"]}]} if isinstance(info, dict) else info
        try:
            rows = [row for row in listed["data"] if self._named in (None, row["id"])]
            if not rows and self._named:  # llama.cpp answers to any name
                return Model(self._named)
            longest = rows[0].get("max_model_len")
            return Model(str(rows[0]["id"]), longest if isinstance(longest, int) else None)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise RankerBackendError(
                f"{self.url}/v1/models names no model: {listed!r:.200}"
            ) from error

    async def tokenize(self, model: str, text: str) -> list[int] | None:
        """The token ids of a text without special ones; None where the server does not tell."""
        body = {"model": model, "prompt": text, "content": text, "add_special_tokens": False}
        try:
            answer = await self.request("POST", "/tokenize", body)
        except RankerBackendError as error:
            if error.silent:
                raise
            return None
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            return None
        return tokens

    async def count_tokens(self, model: str, texts: Sequence[str]) -> list[int]:
        """The tokens of each text by the server's tokenizer, or their bytes, of which there are no fewer."""
        if self._counts:
            found = await together(self.tokenize(model, text) for text in texts)
            counts = [len(tokens) for tokens in found if tokens is not None]
            if len(counts) == len(texts):
                return counts
            self._counts = False
        return count_bytes(texts)

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers, parsed.

        Raises:
            RankerBackendError: no answer in time, an error status, or no JSON. `status` holds the error status.
        """
        where = f"{self.url}{path}"
        async with self._slots:
            for attempt in range(_ATTEMPTS):
                await asyncio.sleep(_PAUSE * attempt * (attempt + 1) / 2)
                last = attempt + 1 == _ATTEMPTS
                try:
                    async with asyncio.timeout(self._timeout):
                        response = await _whole(self._client, method, where, body)
                except TimeoutError as error:
                    raise RankerBackendError(
                        f"{where} did not answer in time ({self._timeout:g} s)", silent=True
                    ) from error
                except httpx2.TransportError as error:
                    if last:
                        raise RankerBackendError(
                            f"{where} cannot be reached: {error}", silent=True
                        ) from error
                    continue
                except httpx2.RequestError as error:  # a body that its own headers belie
                    raise RankerBackendError(
                        f"{where}: the answer cannot be read: {error}"
                    ) from error
                except httpx2.InvalidURL as error:
                    raise RankerBackendError(f"{where} is no address: {error}") from error
                if last or response.status_code not in _BUSY:
                    break
        if response.status_code != 200:
            raise RankerBackendError(
                f"{where} answered {response.status_code}: {_detail(response)}{_hint(response.status_code)}",
                silent=response.status_code in _BUSY,
                status=response.status_code,
            )
        try:
            return response.json()
        except ValueError as error:
            raise RankerBackendError(
                f"{where} did not answer with JSON: {response.text[:200]!r}"
            ) from error


async def _whole(
    client: httpx2.AsyncClient, method: str, where: str, body: dict[str, Any] | None
) -> httpx2.Response:
    """The answer with its content, which is read no further than any answer may go."""
    async with client.stream(method, where, json=body) as response:
        content = bytearray()
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > _MOST_ANSWER:
                raise RankerBackendError(f"{where}: an answer of over {_MOST_ANSWER >> 20} MiB")
    return httpx2.Response(response.status_code, content=bytes(content), request=response.request)


class ServerBackend:
    """What the backends over HTTP share: a server, its model, and how its texts are counted."""

    def __init__(self, server: HttpServer, model: Model) -> None:
        self._server = server
        self._model = model

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return await self._server.count_tokens(self._model.name, texts)

    async def close(self) -> None:
        await self._server.close()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each comes to, in order; the first that fails cancels the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def by_index(where: str, rows: Any, fields: Sequence[str], count: int) -> list[Any]:
    """What `rows` hold under the first of the fields that they have, in the order of their `index`.

    Raises:
        RankerBackendError: that is not exactly one for each of `count`.
    """
    try:
        found = {
            int(row["index"]): next(row[field] for field in fields if field in row) for row in rows
        }
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise RankerBackendError(f"{where}: not a list of answers: {rows!r:.200}") from error
    if sorted(found) != list(range(count)) or len(rows) != count:
        raise RankerBackendError(f"{where}: {len(found)} usable answers for {count} documents")
    return [found[i] for i in range(count)]


def numbers(where: str, values: Sequence[Any]) -> list[float]:
    """The values, if all are finite numbers.

    Raises:
        RankerBackendError: one is not.
    """
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RankerBackendError(f"{where}: not a list of scores: {values!r:.200}") from error
    if not all(map(math.isfinite, found)):
        raise RankerBackendError(f"{where}: not a list of usable scores: {values!r:.200}")
    return found


def log_odds(probability: float) -> float:
    """Of a probability, those near 0 and 1 held apart from them."""
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))


def _detail(response: httpx2.Response) -> str:
    """What the server says of an error: OpenAI's `error.message`, else its text."""
    try:
        text = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = response.text
    return str(text).strip()[:300]


def _hint(status: int) -> str:
    if status == 404:
        return " (see BIOELX_RANKER_MODEL for the model's name)"
    return " (see BIOELX_RANKER_KEY)" if status in (401, 403) else ""
