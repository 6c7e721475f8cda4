"""A local HTTP server that answers as a script says, where a model server would stand."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
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
    """Listens on a free port; `requests` holds what was asked; `left_alone` is set when a client closes the
    connection before it has its answer."""

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stopped = threading.Event()
        self.left_alone = threading.Event()
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
        end = time.monotonic() + reply.delay
        while (left := end - time.monotonic()) > 0:
            if self._left_alone():
                self.server.left_alone.set()
                return
            if self.server.stopped.wait(min(left, 0.02)):
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

    def _left_alone(self) -> bool:
        """Whether the client has closed the connection."""
        try:
            peeked: bytes = self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return not peeked

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def scores(*values: float) -> Reply:
    """vLLM's answer to `POST /score`."""
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)]
    return Reply({"object": "list", "data": data, "usage": {"prompt_tokens": 7}})


def models(*names: str, longest: int | None = 4096) -> Reply:
    """vLLM's answer to `GET /v1/models`; other servers do not tell the longest prompt."""
    told = {} if longest is None else {"max_model_len": longest}
    return Reply(
        {"object": "list", "data": [{"id": name, "object": "model", **told} for name in names]}
    )


ABSENT = Reply({"detail": "Not Found"}, 404)
Judge = Callable[[str, str], float]
"""Log-odds that a document fits a query."""
Writer = Callable[[str, Sequence[str]], Sequence[float]]
"""The log-probability of each label as the next word after a prompt."""


def vllm_reranker(judge: Judge, *, longest: int = 4096) -> Script:
    """A vLLM with `--runner pooling`, four characters a token; a prompt that is too long fails them all."""

    def script(request: Request) -> Reply:
        body = request.body
        match request.path:
            case "/v1/models":
                return models("reader", longest=longest)
            case "/tokenize":
                return Reply(
                    {"count": len(body["prompt"]) // 4, "tokens": [1] * (len(body["prompt"]) // 4)}
                )
            case "/score":
                query, documents = body["queries"], body["documents"]
                if any(len(query + document) // 4 > longest for document in documents):
                    text = f"This model's maximum context length is {longest} tokens. However, ..."
                    return Reply({"error": {"message": text, "type": "BadRequestError"}}, 400)
                values = [judge(query, document) for document in documents]
                if body["use_activation"]:
                    values = [1 / (1 + math.exp(-value)) for value in values]
                return scores(*values)
        return ABSENT

    return script


def vllm_writer(writer: Writer) -> Script:
    """A vLLM with any causal model; every word it is asked about alone is one token."""
    words: list[str] = []

    def tokenize(text: str) -> list[int]:
        if " " in text:
            return [0] * (len(text) // 4)
        if text not in words:
            words.append(text)
        return [words.index(text) + 1000]

    def script(request: Request) -> Reply:
        body = request.body
        match request.path:
            case "/v1/models":
                return models("writer")
            case "/tokenize":
                return Reply({"tokens": tokenize(body["prompt"])})
            case "/v1/completions":
                ids = body["logprob_token_ids"]
                labels = [words[token - 1000] for token in ids]
                choices = [
                    {
                        "index": i,
                        "text": "x",
                        "logprobs": {
                            "top_logprobs": [
                                dict(
                                    zip(
                                        (f"token_id:{id}" for id in ids),
                                        writer(prompt, labels),
                                        strict=True,
                                    )
                                )
                            ]
                        },
                    }
                    for i, prompt in enumerate(body["prompt"])
                ]
                return Reply({"choices": choices[::-1]})
        return ABSENT

    return script


def chat_server(words: Callable[[str], dict[str, float]]) -> Script:
    """llama.cpp, Ollama and the like: for a system and a user message the likeliest first words of the answer."""

    def script(request: Request) -> Reply:
        match request.path:
            case "/v1/models":
                return models("chatter", longest=None)
            case "/v1/chat/completions":
                said = "\n".join(message["content"] for message in request.body["messages"])
                top = [
                    {"token": word, "logprob": value, "bytes": []}
                    for word, value in words(said).items()
                ]
                content = [{**top[0], "top_logprobs": top}] if top else []
                return Reply(
                    {
                        "choices": [
                            {
                                "index": 0,
                                "message": {"content": "x"},
                                "logprobs": {"content": content},
                            }
                        ]
                    }
                )
        return ABSENT

    return script


def rerank_server(judge: Judge, shape: str) -> Script:
    """A rerank endpoint: `jina` (probabilities, best first), `sglang`, `tei` or `raw` (llama.cpp's log-odds)."""

    def script(request: Request) -> Reply:
        body = request.body
        if request.path == ("/info" if shape == "tei" else "/v1/models"):
            return Reply({"model_id": "judge"}) if shape == "tei" else models("judge", longest=None)
        if request.path != ("/rerank" if shape == "tei" else "/v1/rerank"):
            return ABSENT
        if shape == "tei" and "texts" not in body:
            return Reply("missing field `texts`", 422)
        values = [
            judge(body["query"], text) for text in body["texts" if shape == "tei" else "documents"]
        ]
        if shape != "raw":
            values = [1 / (1 + math.exp(-value)) for value in values]
        name = "score" if shape in ("tei", "sglang") else "relevance_score"
        rows = [{"index": i, name: value} for i, value in enumerate(values)]
        rows.sort(key=lambda row: -row[name])
        return Reply(rows if shape in ("tei", "sglang") else {"results": rows})

    return script
