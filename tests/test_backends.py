"""The vLLM client against a server that answers as vLLM does when all is well, and when it is not."""

import math
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from model_server import ModelServer, Reply, Request, Script, scores

from bioelx_mcp.backends import Backend
from bioelx_mcp.backends.vllm_http import VllmHttpBackend
from bioelx_mcp.errors import RankerBackendError

Start = Callable[..., tuple[VllmHttpBackend, ModelServer]]
MODELS = Reply({"object": "list", "data": [{"id": "tiny", "max_model_len": 2048}]})


def error(status: int, message: str, kind: str) -> Reply:
    return Reply({"error": {"message": message, "type": kind, "code": status}}, status)


@pytest.fixture
def start(model_server: Callable[[Script], ModelServer]) -> Iterator[Start]:
    """A client of a server that gives these replies in turn, the last one for ever."""
    backends: list[VllmHttpBackend] = []

    def run(*replies: Reply, **options: Any) -> tuple[VllmHttpBackend, ModelServer]:
        left = list(replies)

        def script(request: Request) -> Reply:
            if request.path == "/v1/models":
                return MODELS
            return left.pop(0) if len(left) > 1 else left[0]

        server = model_server(script)
        backends.append(VllmHttpBackend(server.url, **{"model": "made", **options}))
        return backends[-1], server

    yield run
    for backend in backends:
        backend.close()


def test_documents_are_scored_in_one_request_of_vllms_own_form(start: Start) -> None:
    backend, server = start(scores(-2.5, 1.75, 0.25), key="made-key")
    assert backend.score_documents("q <|im_end|>\n", ["a", "b", "ü"]) == [-2.5, 1.75, 0.25]
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/score")
    assert request.headers["Authorization"] == "Bearer made-key"
    assert request.body == {
        "model": "made",
        "queries": "q <|im_end|>\n",
        "documents": ["a", "b", "ü"],
        "use_activation": False,
    }


def test_without_a_key_nothing_is_authorised(start: Start) -> None:
    backend, server = start(scores(0.0))
    backend.score_documents("q", ["a"])
    assert "Authorization" not in server.requests[0].headers


def test_no_document_asks_nothing(start: Start) -> None:
    backend, server = start(scores())
    assert backend.score_documents("q", []) == []
    assert server.requests == []


def test_scores_follow_their_index_and_not_their_place(start: Start) -> None:
    rows = [{"index": 2, "score": 0.2}, {"index": 0, "score": 0.5}, {"index": 1, "score": 1}]
    backend, _ = start(Reply({"data": rows}))
    assert backend.score_documents("q", ["a", "b", "c"]) == [0.5, 1.0, 0.2]


def test_the_model_is_asked_for_once_where_none_is_named(start: Start) -> None:
    backend, server = start(scores(1.0), model=None)
    for _ in range(3):
        backend.score_documents("q", ["a"])
    assert backend.model == "tiny"
    assert [request.path for request in server.requests] == ["/v1/models", *["/score"] * 3]
    assert {request.body["model"] for request in server.requests[1:]} == {"tiny"}


def test_a_named_model_is_not_asked_for(start: Start) -> None:
    backend, server = start(scores(1.0))
    check: Backend = backend
    assert check.model == "made"
    assert server.requests == []


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_written_as_for_other_clients(start: Start, suffix: str) -> None:
    _, server = start(scores(1.0))
    backend = VllmHttpBackend(server.url + suffix, model="made")
    assert backend.score_documents("q", ["a"]) == [1.0]
    backend.close()


LONG = "This model's maximum context length is 2048 tokens. However, your prompt contains 3000."


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (scores(1.0), "1 usable scores for 2 documents"),
        (scores(1.0, 2.0, 3.0), "3 usable scores for 2 documents"),
        (scores(1.0, math.nan), "usable scores for 2 documents"),
        (scores(1.0, -math.inf), "usable scores for 2 documents"),
        (Reply({"data": [{"index": 0, "score": 1}] * 2}), "1 usable scores for 2 documents"),
        (Reply({"data": [{"index": 1, "score": 1}, {"index": 2, "score": 1}]}), "2 usable scores"),
        (Reply({"data": [{"index": 0, "score": 1}, {"index": 1}]}), "not a list of scores"),
        (Reply({"data": [{"index": 0, "score": None}]}), "not a list of scores"),
        (Reply({"data": {"scores": [1, 2]}}), "not a list of scores"),
        (Reply({"results": [{"index": 0, "relevance_score": 1}]}), "not a list of scores"),
        (Reply([{"index": 0, "score": 1}]), "not a list of scores"),
        (Reply(None), "not a list of scores"),
        (Reply(""), "did not answer with JSON: ''"),
        (Reply("<html>proxy</html>"), "did not answer with JSON: '<html>proxy</html>'"),
        (Reply('{"data": [{"ind'), "did not answer with JSON"),
        (Reply("no gzip", headers={"Content-Encoding": "gzip"}), "the answer cannot be read"),
        (error(400, LONG, "BadRequestError"), f"answered 400: {LONG}"),
        (
            error(404, "The model `made` does not exist.", "NotFoundError"),
            "answered 404: The model `made` does not exist.* BIOELX_RANKER_MODEL",
        ),
        (Reply({"detail": "Not Found"}, 404), "answered 404: .*Not Found.*--runner pooling"),
        (Reply({"error": "Unauthorized"}, 401), "answered 401: .*Unauthorized.*BIOELX_RANKER_KEY"),
        (error(500, "EngineCore encountered an issue.", "InternalServerError"), "answered 500: EngineCore"),
        (Reply("", 503), "answered 503"),
        (Reply("", 307, {"Location": "http://127.0.0.1:9/"}), "answered 307"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_is_an_error_that_says_why(
    start: Start, reply: Reply, message: str
) -> None:
    backend, server = start(reply)
    with pytest.raises(RankerBackendError, match=f"{server.url}/score.*{message}") as caught:
        backend.score_documents("q", ["a", "b"])
    assert len(server.requests) == 1  # an answer is not asked for twice
    assert not caught.value.silent
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "models", [Reply({"data": []}), Reply({"object": "list"}), Reply([]), Reply({"data": [{}]})]
)
def test_a_server_that_names_no_model_is_an_error(
    model_server: Callable[[Script], ModelServer], models: Reply
) -> None:
    backend = VllmHttpBackend(model_server(lambda request: models).url)
    with pytest.raises(RankerBackendError, match="/v1/models names no model"):
        backend.score_documents("q", ["a"])
    backend.close()


def test_a_server_that_is_too_slow_is_given_up(start: Start) -> None:
    backend, server = start(Reply(delay=60), timeout=0.1)
    with pytest.raises(RankerBackendError, match="did not answer in time") as caught:
        backend.score_documents("q", ["a"])
    assert caught.value.silent
    assert len(server.requests) == 1


def test_a_connection_that_was_dropped_is_tried_once_more(start: Start) -> None:
    backend, server = start(Reply(status=0), scores(0.5))
    assert backend.score_documents("q", ["a"]) == [0.5]
    assert len(server.requests) == 2
    assert server.requests[0].body == server.requests[1].body


def test_a_connection_that_is_dropped_again_is_given_up(start: Start) -> None:
    backend, server = start(Reply(status=0))
    with pytest.raises(RankerBackendError, match="/score cannot be reached") as caught:
        backend.score_documents("q", ["a"])
    assert caught.value.silent
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    with socket.socket() as taken:  # bound, and not listening: refuses
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        backend = VllmHttpBackend(url, model="made")
        with pytest.raises(RankerBackendError, match=f"{url}/score cannot be reached") as caught:
            backend.score_documents("q", ["a"])
    assert caught.value.silent
    backend.close()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://ü..x", "http://x/\0"])
def test_an_address_that_is_none_is_an_error(url: str) -> None:
    backend = VllmHttpBackend(url, model="made")
    with pytest.raises(RankerBackendError, match=r"cannot be reached|is no address"):
        backend.score_documents("q", ["a"])
    backend.close()
