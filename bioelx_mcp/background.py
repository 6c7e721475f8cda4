"""An event loop in a thread of its own: for callers that have none, or one that must not wait."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
_GLANCE = 0.05  # seconds between looks at `stop`


class Background:
    """Runs coroutines for any thread; ends with the last reference to it, and closes what it was given."""

    def __init__(self, *closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        threading.Thread(
            target=lambda: asyncio.run(_live(ready, closing)), name="bioelx-ranker", daemon=True
        ).start()
        self._loop, ended = ready.result()
        self._end = weakref.finalize(self, self._loop.call_soon_threadsafe, ended.set)

    def run(self, work: Coroutine[Any, Any, T], stop: threading.Event | None = None) -> T:
        """What the coroutine comes to. It is cancelled when `stop` is set, or this thread is interrupted.

        Raises:
            CancelledError: `stop` was set.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while stop is not None and not future.done():
                if stop.is_set():
                    raise CancelledError("stopped")
                try:
                    return future.result(_GLANCE)
                except TimeoutError:
                    pass  # also where the work itself raised one: then it is done, and raised below
            return future.result()
        except BaseException:
            future.cancel()
            raise


async def _live(
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
    closing: Sequence[Callable[[], Coroutine[Any, Any, None]]],
) -> None:
    ended = asyncio.Event()
    ready.set_result((asyncio.get_running_loop(), ended))
    await ended.wait()
    for close in closing:
        await close()
