"""The server over streamable HTTP: /mcp, /health and /metrics, in one process or several over one index.

Both eras of the protocol are served without sessions, so that any worker answers any request.
"""

import asyncio
import ipaddress
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from functools import partial

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from bioelx_mcp.errors import UsageError
from bioelx_mcp.server import build_server
from bioelx_mcp.serving import metrics
from bioelx_mcp.serving.guard import ANSWER_SECONDS, HEALTH_PATH, MCP_PATH, Guard
from bioelx_mcp.serving.logs import OURS, set_up_logging
from bioelx_mcp.serving.state import LinkerState
from bioelx_mcp.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEAD_SECONDS = 10  # for the head of a request to arrive
CONNECTIONS = 512  # at a time; one more is answered with 503
GRACE_SECONDS = 30  # for answers under way when the server is told to stop
logger = logging.getLogger(OURS)


def serve_http(settings: Settings) -> None:
    """Serve until the process is told to stop; answers under way are finished first.

    Raises:
        UsageError: another host than loopback without allowed hosts, or an address that cannot be listened on.
    """
    security(settings)
    listening = _listen(settings)
    config = http_config(settings)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{MCP_PATH}"
    logger.info("serving", extra={"fields": {"url": url, "workers": settings.workers}})
    if not _is_loopback(settings.host) and settings.token is None:
        logger.warning("no token: whoever reaches this address may use it (BIOELX_TOKEN sets one)")
    with listening:
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets=[listening])
            return
        with tempfile.TemporaryDirectory(prefix="bioelx-metrics-") as directory:
            os.environ[metrics.SHARED] = directory  # read by the workers, which are new processes
            Multiprocess(config, sockets=[listening]).run()


def http_config(settings: Settings) -> uvicorn.Config:
    """How uvicorn serves: its limits, no access log, no trust in forwarding headers, no websockets."""
    return uvicorn.Config(
        partial(build_app if settings.workers == 1 else _build_worker, settings),
        factory=True,
        http=HeadInTime,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        workers=settings.workers,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _build_worker(settings: Settings) -> ASGIApp:
    set_up_logging(settings.log_format, texts=settings.log_text)  # a process of its own
    return build_app(settings)


def build_app(settings: Settings) -> ASGIApp:
    """The ASGI application of one process."""
    measured = metrics.Metrics()
    state = LinkerState(settings)
    server = build_server(settings, state=state, meter=measured.observe)

    async def health(_: Request) -> Response:
        if (index_id := state.index_id) is not None:
            return JSONResponse({"status": "ready", "index": index_id})
        problem = state.problem()
        told = {"status": "loading"} if problem is None else {"status": "failed", "error": problem}
        return JSONResponse(told, status_code=503)

    async def show_metrics(_: Request) -> Response:
        return Response(measured.render(), media_type="text/plain; version=0.0.4")

    allowed = security(settings)
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        stateless_http=True,
        max_request_body_size=settings.max_body,
        transport_security=allowed,
    )
    app.router.routes.append(Route(HEALTH_PATH, health, methods=["GET"]))
    app.router.routes.append(Route("/metrics", show_metrics, methods=["GET"]))
    return Guard(
        app,
        allowed,
        token=settings.token,
        time_limit=settings.time_limit,
        refused=measured.refuse,
    )


def security(settings: Settings) -> TransportSecuritySettings:
    """The hosts and origins that may call: loopback ones and those that the settings allow.

    Raises:
        UsageError: the server would listen on another address than loopback, and no host is allowed.
    """
    if not _is_loopback(settings.host) and not settings.allowed_hosts:
        raise UsageError(
            f"--host {settings.host} is no loopback address: say with --allowed-host NAME[:PORT] (BIOELX_ALLOWED_HOSTS) "
            "under which name clients may call, or any web page could (DNS rebinding)"
        )
    names = [*LOOPBACK, *settings.allowed_hosts]
    hosts = [
        each for name in names for each in ([name] if _has_port(name) else [name, f"{name}:*"])
    ]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)


def _has_port(name: str) -> bool:
    return name.rpartition("]")[2].count(":") == 1


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server(
            (settings.host, settings.port), family=family, backlog=2048
        )
    except OSError as error:
        raise UsageError(
            f"--host {settings.host} --port {settings.port}: cannot listen: {error}"
        ) from error
    listening.set_inheritable(True)
    return listening


class HeadInTime(H11Protocol):
    """uvicorn's protocol, which waits for ever for the head of a request and for an answer to be taken away, with
    limits to both."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._later(HEAD_SECONDS, self._check)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._later(HEAD_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, what)

    def _check(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        if self.transport.is_closing():  # once what was written has been read, if it ever is
            self._later(ANSWER_SECONDS, self.transport.abort)
        else:
            self._later(HEAD_SECONDS, self._check)
