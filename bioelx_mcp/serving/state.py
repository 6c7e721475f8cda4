"""The Linker behind a server: loaded in the background, while the handshake is answered; or why there is none."""

import asyncio
import os
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from mcp.server.mcpserver.exceptions import ToolError

from bioelx_mcp.errors import BioelxError
from bioelx_mcp.settings import Settings

if TYPE_CHECKING:
    from bioelx_mcp.linker import Linker


class LinkerState:
    """The Linker while it loads, when it is there, or why it is not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading: asyncio.Task[Linker] | None = None
        self.cores = anyio.CapacityLimiter(os.cpu_count() or 1)  # searching more at once only waits

    def warm(self) -> "asyncio.Task[Linker]":
        """The load under way or done. One that failed is tried anew: the user may have mended it meanwhile."""
        if self._loading is None or (self._loading.done() and self.problem() is not None):
            self._loading = asyncio.create_task(anyio.to_thread.run_sync(self._open))
            self._loading.add_done_callback(
                lambda _: self.problem()
            )  # what it raised is told on a call
        return self._loading

    def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()

    def _open(self) -> "Linker":
        from bioelx_mcp.linker import Linker  # the heavy imports belong here, behind the handshake

        return Linker.from_settings(self._settings)

    def problem(self) -> str | None:
        """Why the last load failed, with the mend; None if it did not."""
        if self._loading is None or not self._loading.done() or self._loading.cancelled():
            return None
        error = self._loading.exception()
        return None if error is None else _told(error)

    @property
    def index_id(self) -> str | None:
        """The index that is loaded; None while or where there is none."""
        if self._loading is None or not self._loading.done() or self._loading.cancelled():
            return None
        return None if self._loading.exception() else self._loading.result().manifest.index_id

    async def linker(self, error: type[Exception] = ToolError) -> "Linker":
        """The Linker, or why there is none, raised as an `error` (whose text the SDK shows the client)."""
        try:
            return await asyncio.shield(
                self.warm()
            )  # a call that is cancelled leaves the load alone
        except Exception as problem:
            raise error(_told(problem)) from problem


def _told(error: BaseException) -> str:
    if isinstance(error, BioelxError):
        return str(error)
    told = f"the index cannot be loaded: {type(error).__name__}: {error}"
    return f"{told}; `bioelx-mcp doctor` says more"
