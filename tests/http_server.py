"""A server over HTTP in a thread of this process, and one that is a process of its own."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from bioelx_mcp.serving.http import http_config
from bioelx_mcp.settings import Settings


@contextmanager
def running(settings: Settings, buffer: int = 0) -> Iterator[str]:
    """The address of a server in a thread, without a path; the system keeps so many bytes that are not read."""
    listening = socket.create_server(("127.0.0.1", 0))
    if buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server = uvicorn.Server(http_config(settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        while not server.started:
            time.sleep(0.01)
        yield base
    finally:
        server.should_exit = True
        thread.join(60)


def wait_ready(base: str, seconds: float = 120.0) -> dict[str, Any]:
    """What /health says once the index is loaded."""
    end = time.monotonic() + seconds
    while (answer := httpx2.get(f"{base}/health")).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.05)
    told: dict[str, Any] = answer.json()
    return told


@contextmanager
def process(*arguments: str, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`bioelx-mcp serve --http ARGUMENTS` and its address; its stderr can be read once it has ended."""
    command = [sys.executable, "-m", "bioelx_mcp", "serve", "--http", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, encoding="utf-8", env={**os.environ, **variables}
    ) as served:
        try:
            assert served.stderr is not None
            match = re.search(r"http://[^\s\"]+", served.stderr.readline())
            assert match is not None
            yield served, match[0].removesuffix("/mcp")
        finally:
            served.kill()
