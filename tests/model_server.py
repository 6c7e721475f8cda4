"""A local HTTP server that answers as a script says, where a model server would stand."""

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """`body` is sent as it is if text, else as JSON; `status` 0 drops the connection."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


Script = Callable[[Request], Reply]


class ModelServer(ThreadingHTTPServer):
    """Listens on a free port; `requests` holds what was asked."""

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, self.path, dict(self.headers), body)
        self.server.requests.append(request)
        reply = self.server.script(request)
        if self.server.stopped.wait(reply.delay):
            return
        if reply.status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def scores(*values: float) -> Reply:
    """vLLM's answer to `POST /score`."""
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)]
    return Reply({"object": "list", "data": data, "usage": {"prompt_tokens": 7}})
