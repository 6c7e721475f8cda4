"""The running server among enemies: other hosts, bad tokens, big, slow and broken requests, odd paths."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from http_server import running, wait_ready

from bioelx_mcp.serving import guard, http
from bioelx_mcp.settings import load_settings

TOKEN = "made-token-of-some-length"
MODERN = "io.modelcontextprotocol/protocolVersion"
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "Authorization": f"Bearer {TOKEN}",
}


@pytest.fixture(scope="module")
def base(served: Path) -> Iterator[str]:
    """A server that wants a token, may be called by one further name and takes 20 kB at once."""
    settings = load_settings(
        index=served, token=TOKEN, allowed_hosts="kb.example.org", max_body=20_000
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "BODY_SECONDS", 0.5)
        patch.setattr(http, "HEAD_SECONDS", 0.5)
        with running(settings) as base:
            wait_ready(base)
            yield base


def call(mentions: Any = ("red fever",)) -> dict[str, Any]:
    arguments = {"mentions": mentions, "limit": 1}
    params = {"name": "search_candidates", "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def post(
    base: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    content = json.dumps(call()).encode() if body is None else body
    return httpx2.post(f"{base}/mcp", content=content, headers={**HEADERS, **(headers or {})})


@pytest.fixture(autouse=True)
def alive(base: str) -> Iterator[None]:
    """Whatever a test did, the server answers afterwards."""
    yield
    assert post(base).status_code == 200


def say(base: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back over a bare connection, until the server closes it."""
    host, port = base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("path", ["/mcp", "/health", "/metrics"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example", "kb.example.org.", ""],
)
def test_a_foreign_name_is_refused_on_every_path(base: str, path: str, host: str) -> None:
    assert httpx2.get(f"{base}{path}", headers={**HEADERS, "Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["kb.example.org", "kb.example.org:8443", "localhost:1", "[::1]:5"]
)
def test_an_allowed_name_is_served(base: str, host: str) -> None:
    assert post(base, headers={"Host": host}).status_code == 200


def test_a_request_without_a_host_is_refused(base: str) -> None:
    assert b" 421 " in say(base, b"GET /metrics HTTP/1.0\r\n\r\n").splitlines()[0]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example"])
def test_a_page_of_another_origin_is_refused(base: str, origin: str) -> None:
    assert post(base, headers={"Origin": origin}).status_code == 403
    assert post(base, headers={"Origin": "http://localhost:3000"}).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
def test_a_wrong_token_opens_nothing_but_health(base: str, given: str) -> None:
    sent = {name.encode(): value.encode() for name, value in HEADERS.items()}
    sent[b"Authorization"] = given.encode()
    for path in ("/mcp", "/metrics", "/nothing", "//metrics", "/health/../metrics", "/health/"):
        raw = httpx2.URL(base).copy_with(raw_path=path.encode())
        answer = httpx2.post(raw, content=b"{}", headers=sent)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    assert httpx2.get(f"{base}/health", headers=sent).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/etc/passwd", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/mcp/../../x", "/mcp%00", "/MCP", "/mcp;x", "/metrics/x", "/docs"],
)  # fmt: skip
def test_there_are_no_other_paths(base: str, path: str) -> None:
    raw = httpx2.URL(base).copy_with(raw_path=path.encode())
    assert httpx2.get(raw, headers=HEADERS).status_code == 404


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD", "TRACE"])
def test_only_posts_reach_the_protocol(base: str, method: str) -> None:
    assert httpx2.request(method, f"{base}/mcp", headers=HEADERS).status_code == 405


def test_a_body_that_is_too_large_is_refused_declared_or_not(base: str) -> None:
    big = json.dumps(call(["x" * 30_000])).encode()
    assert post(base, big).status_code == 413

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(big), 1000):
            yield big[start : start + 1000]

    answer = httpx2.post(f"{base}/mcp", content=pieces(), headers=HEADERS)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 9000, b'{"jsonrpc":"2.0"}', b'{"a":' * 2000,
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b'{"jsonrpc":"2.0","id":1,"method":5}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28", "1999-01-01"])
def test_what_is_no_message_is_a_client_error(base: str, body: bytes, version: str) -> None:
    answer = post(base, body, {"MCP-Protocol-Version": version})
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


def test_another_content_type_is_refused(base: str) -> None:
    assert post(base, headers={"Content-Type": "text/plain"}).status_code in (400, 415)


def test_a_head_that_trickles_is_cut_off(base: str) -> None:
    began = time.monotonic()
    assert say(base, b"POST /mcp HTTP/1.1\r\n", b"Host: localhost\r\n") == b""
    assert say(base) == b""
    assert time.monotonic() - began < 8


def test_a_body_that_trickles_is_cut_off(base: str) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: 1000\r\n\r\n{{"
    answer = say(base, request.encode(), b" ", pause=0.2)
    assert b" 408 " in answer.splitlines()[0] and b"too slowly" in answer


def test_a_head_without_end_and_nonsense_are_refused(base: str) -> None:
    assert b" 400 " in say(base, b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000).splitlines()[0]
    assert b" 400 " in say(base, b"\x16\x03\x01\x02\x00\x01\x00").splitlines()[0]


def test_two_lengths_in_one_request_are_refused(base: str) -> None:
    lengths = b"Content-Length: 4\r\nContent-Length: 40\r\n"
    smuggled = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n{}{}"
    assert b" 400 " in say(base, smuggled).splitlines()[0]


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads /proc")
@pytest.mark.parametrize("progress", [False, True])
def test_who_does_not_take_an_answer_away_is_cut_off(
    served: Path, monkeypatch: pytest.MonkeyPatch, progress: bool
) -> None:
    """An answer, or progress and an answer, larger than what the system keeps, over a connection that never reads."""
    for name in ("HEAD_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(http, name, 0.5)
    monkeypatch.setattr(guard, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 1.0)
    asked = call([f"red fever {number} " + "é" * 480 for number in range(250)])
    if progress:
        asked["params"]["_meta"] = {"progressToken": 1}
    body = json.dumps(asked).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    with running(load_settings(index=served, time_limit=10), buffer=4096) as base:
        wait_ready(base)
        host, port = base.removeprefix("http://").split(":")

        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            ends = f":{int(port):04X}", f":{connection.getsockname()[1]:04X}"

            def held() -> bool:
                """Whether the server's end of this connection is open, and not left to the system to bury."""
                lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
                rows = (line.split()[1:4] for line in lines)
                return (*ends, "01") in (
                    (own[-5:], other[-5:], state) for own, other, state in rows
                )

            connection.sendall(request.encode() + body)
            assert held()
            end = time.monotonic() + 60
            while held():
                assert time.monotonic() < end, "the answer still waits for its reader"
                time.sleep(0.2)
