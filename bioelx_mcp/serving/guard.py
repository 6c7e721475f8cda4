"""What stands between HTTP and the protocol: foreign hosts, bad tokens and slow requests are refused here.

An ASGI middleware for the whole application, /health and /metrics included.
"""

import hmac
import logging
from collections.abc import Callable

import anyio
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bioelx_mcp.serving.logs import OURS

MCP_PATH = "/mcp"
HEALTH_PATH = "/health"
BODY_SECONDS = 30.0  # for a request to arrive
ANSWER_SECONDS = 60.0  # for an answer to be taken away, beyond the time limit of the work itself
logger = logging.getLogger(OURS)


class Guard:
    """Passes on what may be answered. `refused` is told the status of what may not."""

    def __init__(
        self,
        app: ASGIApp,
        security: TransportSecuritySettings,
        *,
        token: str | None,
        time_limit: float,
        refused: Callable[[int], None],
    ) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security)
        self._token = token
        self._deadline = BODY_SECONDS + time_limit + ANSWER_SECONDS
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(Request(scope))
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        began = late = False

        async def sent(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        def give_up() -> None:
            nonlocal late
            late = True
            limit.cancel()  # an exception would be answered with 500 on its way here

        with anyio.move_on_after(self._deadline) as limit:
            await self._app(scope, _in_time(receive, give_up), sent)
        if late and not began:
            slow = _problem(408, "the request came too slowly", {"Connection": "close"})
            await self._refuse(slow, scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        foreign = await self._security.validate_request(request)
        if foreign is not None:
            return foreign
        path = request.scope["path"]
        if self._token is not None and path != HEALTH_PATH and not self._knows(request):
            headers = {"WWW-Authenticate": "Bearer"}
            return _problem(401, "a bearer token is needed (BIOELX_TOKEN of the server)", headers)
        if path == MCP_PATH and request.method != "POST":  # nothing is pushed, no session is kept
            return _problem(405, "POST only", {"Allow": "POST"})
        return None

    def _knows(self, request: Request) -> bool:
        assert self._token is not None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._token.encode())
        return scheme.lower() == "bearer" and same

    async def _refuse(self, refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
        client = (scope.get("client") or ("",))[0]
        fields = {"status": refusal.status_code, "client": client}
        logger.warning("refused", extra={"fields": fields})
        self._refused(refusal.status_code)
        await refusal(scope, receive, send)


def _problem(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _in_time(receive: Receive, give_up: Callable[[], None]) -> Receive:
    """`receive` that gives a body BODY_SECONDS to arrive; later messages (a client that leaves) may take long."""
    deadline = anyio.current_time() + BODY_SECONDS
    whole = False

    async def receive_in_time() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        with anyio.move_on_after(deadline - anyio.current_time()):
            message = await receive()
            whole = not message.get("more_body", False)
            return message
        give_up()
        await anyio.sleep_forever()  # until that takes effect
        raise AssertionError

    return receive_in_time
