"""A server of which only the address is known: what it offers is tried once, best first, and then used."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from bioelx_mcp.backends import Backend, Model, Prompts
from bioelx_mcp.backends.chat import ChatBackend
from bioelx_mcp.backends.completions import CompletionsBackend
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.rerank import RerankBackend
from bioelx_mcp.backends.score import ScoreBackend
from bioelx_mcp.errors import RankerBackendError

# A trained reranker before any model, exact numbers before the twenty likeliest.
BACKENDS: Mapping[str, Callable[[HttpServer, Model], Backend]] = {
    "score": ScoreBackend,
    "completions": CompletionsBackend,
    "rerank": RerankBackend,
    "chat": ChatBackend,
}


class ProbingBackend:
    """The first of the backends that the server answers to."""

    def __init__(self, server: HttpServer, among: Sequence[str] = tuple(BACKENDS)) -> None:
        self._server = server
        self._among = among
        self._probe: asyncio.Task[tuple[Backend, Model]] | None = None

    async def connect(self) -> Model:
        return (await self._found())[1]

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return await (await self._found())[0].count_tokens(texts)

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        return await (await self._found())[0].score_labels(prompts)

    async def close(self) -> None:
        await self._server.close()

    async def _found(self) -> tuple[Backend, Model]:
        """Who asks while it is tried gets the same answer; one that failed is tried anew by the next."""
        probe = self._probe
        if probe is None or (probe.done() and (probe.cancelled() or probe.exception())):
            probe = self._probe = asyncio.create_task(self._try())
        return await asyncio.shield(probe)

    async def _try(self) -> tuple[Backend, Model]:
        model = await self._server.find_model()
        refusals = []
        for name in self._among:
            backend = BACKENDS[name](self._server, model)
            try:
                return backend, await backend.connect()
            except RankerBackendError as error:
                if error.silent or error.status in (401, 403):
                    raise
                refusals.append(str(error))
        raise RankerBackendError(f"no way to rank is offered: {'; '.join(refusals)}")
