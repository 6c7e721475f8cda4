"""What each request cost: one log line and one call of the meter; the text of a mention only where it is asked for."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from bioelx_mcp.serving.logs import OURS

# Names that may stand in a log line or a metric; what a client made up may not.
METHODS = frozenset(
    "initialize ping server/discover tools/list tools/call resources/list resources/templates/list resources/read "
    "prompts/list prompts/get completion/complete".split()
)
logger = logging.getLogger(OURS)


@dataclass
class Call:
    """One request: `outcome` is ok, error, refused, timeout, crash or cancelled; `counts` are numbers of things."""

    request: str
    method: str
    tool: str = ""
    outcome: str = "ok"
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)


Meter = Callable[[Call], None]
_current: ContextVar[Call | None] = ContextVar("bioelx_mcp_call", default=None)


def note(outcome: str | None = None, **counts: int) -> None:
    """Say of the request that is being served how it ended, and how many things it was about."""
    if (call := _current.get()) is not None:
        call.outcome = outcome or call.outcome
        call.counts.update(counts)


class Observer:
    """Middleware of the server: times each request, then logs it and tells the meter."""

    def __init__(
        self, tools: frozenset[str], *, texts: bool = False, meter: Meter | None = None
    ) -> None:
        self._tools = tools
        self._texts = texts
        self._meter = meter

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if ctx.request_id is None:  # a notification
            return await call_next(ctx)
        call = Call(uuid.uuid4().hex[:12], ctx.method if ctx.method in METHODS else "other")
        name = (ctx.params or {}).get("name") if ctx.method == "tools/call" else None
        call.tool = name if isinstance(name, str) and name in self._tools else ""
        token = _current.set(call)
        began = time.perf_counter()
        try:
            result = await call_next(ctx)
            if call.outcome == "ok" and isinstance(result, dict) and result.get("isError"):
                call.outcome = "error"
            return result
        except asyncio.CancelledError:
            call.outcome = "cancelled"
            raise
        except (MCPError, ValidationError):
            call.outcome = "refused"
            raise
        except Exception:
            call.outcome = "crash"
            raise
        finally:
            call.seconds = time.perf_counter() - began
            _current.reset(token)
            self._tell(call, ctx)

    def _tell(self, call: Call, ctx: ServerRequestContext[Any, Any]) -> None:
        named = {"request": call.request, "method": call.method, "tool": call.tool}
        fields: dict[str, Any] = {key: value for key, value in named.items() if value}
        fields |= {"outcome": call.outcome, "ms": round(call.seconds * 1000, 2), **call.counts}
        if self._texts and ctx.params and "arguments" in ctx.params:
            fields["arguments"] = ctx.params["arguments"]
        logger.info("request", extra={"fields": fields})
        if self._meter is not None:
            self._meter(call)
