"""Each backend against a server that answers as its kind does when all is well, and when it is not."""

import asyncio
import math
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from model_server import (
    ABSENT,
    ModelServer,
    Reply,
    Request,
    Script,
    chat_server,
    models,
    rerank_server,
    scores,
    vllm_reranker,
    vllm_writer,
)

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import BACKENDS, ProbingBackend
from bioelx_mcp.errors import RankerBackendError

Start = Callable[[Script], ModelServer]
ALL = tuple(BACKENDS)
PROMPTS = Prompts("sys", "<p>sys ", "q\n", ("a", "b", "ü"), "<s>", ("yes", "no"), "judge!", "[[q]]")


def error(status: int, message: str, kind: str = "") -> Reply:
    return Reply({"error": {"message": message, "type": kind, "code": status}}, status)


def ask(
    server: ModelServer, *prompts: Prompts, among: Sequence[str] = ALL, **options: Any
) -> tuple[Model, list[list[list[float]]]]:
    """The model of a server, and what it says to each of the prompts."""

    async def work() -> tuple[Model, list[list[list[float]]]]:
        backend = ProbingBackend(HttpServer(server.url, **options), among)
        try:
            answers = [await backend.score_labels(one) for one in prompts]
            return await backend.connect(), answers
        finally:
            await backend.close()

    return asyncio.run(work())


def paths(server: ModelServer) -> list[str]:
    return [request.path for request in server.requests]


def by_length(query: str, document: str) -> float:
    return {"a": -2.5, "b": 1.75}.get(document[:1], 0.25)


def in_turn(*replies: Reply) -> Script:
    """A reranker that passes the trial, then gives these replies in turn, the last one for ever."""
    good, left = vllm_reranker(by_length), list(replies)

    def script(request: Request) -> Reply:
        if request.path != "/score" or request.body["queries"] == "a b":
            return good(request)
        return left.pop(0) if len(left) > 1 else left[0]

    return script


def test_a_reranker_scores_all_documents_in_one_request(model_server: Start) -> None:
    server = model_server(vllm_reranker(by_length))
    model, [answer] = ask(server, PROMPTS, key="made-key")
    assert model == Model("reader", 4096)
    assert answer == [[-2.5, 0.0], [1.75, 0.0], [0.25, 0.0]]
    last = server.requests[-1]
    assert (last.method, last.path) == ("POST", "/score")
    assert last.body == {
        "model": "reader",
        "queries": "<p>sys q\n",
        "documents": ["a<s>", "b<s>", "ü<s>"],
        "use_activation": False,
    }
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer made-key"}


def test_any_causal_model_of_vllm_tells_the_log_probabilities_of_the_labels(
    model_server: Start,
) -> None:
    table = {"a": (-0.5, -3.0), "b": (-9.0, -0.1), "ü": (-1.0, -1.0)}
    server = model_server(vllm_writer(lambda p, labels: table.get(p[-4], (-1, -2))))
    model, [answer] = ask(server, PROMPTS)
    assert model == Model("writer", 4096)
    assert answer == [[-0.5, -3.0], [-9.0, -0.1], [-1.0, -1.0]]
    last = server.requests[-1]
    assert last.path == "/v1/completions"
    assert last.body["prompt"] == ["<p>sys q\na<s>", "<p>sys q\nb<s>", "<p>sys q\nü<s>"]
    assert (last.body["max_tokens"], last.body["temperature"]) == (1, 0)
    assert last.body["return_tokens_as_token_ids"] is True


def test_any_openai_compatible_server_tells_the_likeliest_words(model_server: Start) -> None:
    def words(said: str) -> dict[str, float]:
        if "water" in said:
            return {"Yes": -0.1, "No": -3.0}
        last = said[-1]
        return {
            "a": {"yes": math.log(0.5), " Yes": math.log(0.25), "no": math.log(0.1), "x": -5.0},
            "b": {"maybe": -0.2, "No": -1.0, "well": -7.0},
            "ü": {"yes": -0.01, "<pad>": -40.0, "eh": -90.0},
        }[last]

    server = model_server(chat_server(words))
    model, [[a, b, u]] = ask(server, PROMPTS)
    assert model == Model("chatter", None)
    assert a == pytest.approx([math.log(0.75), math.log(0.1)])
    assert b == pytest.approx([-7.0, -1.0])  # no likelier than the last one told
    assert u == pytest.approx([-0.01, math.log(1e-30)])
    bodies = [request.body for request in server.requests[-3:]]
    assert {body["messages"][1]["content"] for body in bodies} == {"q\na", "q\nb", "q\nü"}
    assert {body["messages"][0]["content"] for body in bodies} == {"sys"}
    assert {body["top_logprobs"] for body in bodies} == {20}


@pytest.mark.parametrize("shape", ["jina", "sglang", "tei", "raw"])
def test_rerank_endpoints_are_understood_in_every_shape(model_server: Start, shape: str) -> None:
    server = model_server(rerank_server(by_length, shape))
    model, [answer] = ask(server, PROMPTS)
    assert model.name == "judge"
    assert [row[1] for row in answer] == [0.0, 0.0, 0.0]
    assert [row[0] for row in answer] == pytest.approx([-2.5, 1.75, 0.25])
    body = server.requests[-1].body
    assert (body["query"], body["instruct"]) == ("[[q]]", "judge!")  # it has its own prompt
    assert body["texts" if shape == "tei" else "documents"] == ["a", "b", "ü"]


def test_once_a_relevance_is_no_probability_none_is_taken_for_one(model_server: Start) -> None:
    table = {"a": 3.0, "b": 0.9}
    server = model_server(rerank_server(lambda q, d: table.get(d, 0.5), "raw"))
    outside, inside = (Prompts("", "", "q", (d, "b"), "", ("yes", "no")) for d in "ab")
    _, (first, second, third) = ask(server, inside, outside, inside)
    assert first[0][0] == pytest.approx(math.log(9))
    assert second == [[3.0, 0.0], [0.9, 0.0]]
    assert third == [[0.9, 0.0], [0.9, 0.0]]


def test_what_a_server_offers_is_tried_once(model_server: Start) -> None:
    server = model_server(chat_server(lambda said: {"yes": -0.1, "no": -3.0}))
    ask(server, PROMPTS, PROMPTS)
    tried = [
        "/v1/models", "/score", "/tokenize", "/v1/rerank", "/rerank", "/rerank",
        "/v1/chat/completions",
    ]  # fmt: skip
    assert paths(server)[: len(tried)] == tried
    assert set(paths(server)[len(tried) :]) == {"/v1/chat/completions"}
    assert len(server.requests) == len(tried) + 6


def test_who_asks_while_the_server_is_tried_gets_the_same_answer(model_server: Start) -> None:
    server = model_server(vllm_reranker(by_length))

    async def work() -> None:
        backend = ProbingBackend(HttpServer(server.url))
        found = await asyncio.gather(*(backend.connect() for _ in range(20)))
        assert set(found) == {Model("reader", 4096)}
        await backend.close()

    asyncio.run(work())
    assert paths(server).count("/v1/models") == 1


def test_a_server_that_offers_nothing_says_what_was_tried(model_server: Start) -> None:
    server = model_server(lambda r: models("none") if r.path == "/v1/models" else ABSENT)
    with pytest.raises(
        RankerBackendError, match=r"no way to rank is offered: .*/score answered 404"
    ):
        ask(server, PROMPTS)
    with pytest.raises(RankerBackendError, match="/v1/chat/completions answered 404") as caught:
        ask(server, PROMPTS, among=["chat"])
    assert "/score" not in str(caught.value)


def test_a_server_that_failed_the_trial_is_tried_anew(model_server: Start) -> None:
    good = vllm_reranker(by_length)
    loading = [Reply({"error": {"message": "Loading model", "code": 503}}, 503)] * 3

    async def work(url: str) -> None:
        backend = ProbingBackend(HttpServer(url))
        with pytest.raises(RankerBackendError, match="503: Loading model") as caught:
            await backend.connect()
        assert caught.value.silent
        assert (await backend.connect()).name == "reader"
        await backend.close()

    server = model_server(lambda request: loading.pop() if loading else good(request))
    asyncio.run(work(server.url))


def test_a_wrong_key_is_told_at_once(model_server: Start) -> None:
    server = model_server(
        lambda r: models("x") if r.path == "/v1/models" else error(401, "Unauthorized")
    )
    with pytest.raises(
        RankerBackendError, match=r"answered 401: Unauthorized .see BIOELX_RANKER_KEY"
    ):
        ask(server, PROMPTS)
    assert paths(server) == ["/v1/models", "/score"]


def test_a_template_of_the_servers_own_is_found_out(model_server: Start) -> None:
    """It would wrap our prompt in a second one, and the scores would mean nothing."""
    good = vllm_reranker(by_length)

    def script(request: Request) -> Reply:
        reply = good(request)
        if request.path == "/score":
            return Reply({**reply.body, "usage": {"prompt_tokens": 200}})
        return reply

    with pytest.raises(
        RankerBackendError, match=r"200 tokens where 2 were sent: .*--chat-template"
    ):
        ask(model_server(script), PROMPTS, among=["score"])


def test_an_older_vllm_that_gives_probabilities_is_understood(model_server: Start) -> None:
    good = vllm_reranker(by_length)

    def script(request: Request) -> Reply:
        if request.path == "/score":
            body = {**request.body, "use_activation": True}
            return good(Request(request.method, request.path, request.headers, body))
        return good(request)

    _, [answer] = ask(model_server(script), PROMPTS)
    assert [row[0] for row in answer] == pytest.approx([-2.5, 1.75, 0.25])


@pytest.mark.parametrize("kind", ["score", "rerank"])
def test_a_reranker_cannot_choose_among_letters(model_server: Start, kind: str) -> None:
    script = vllm_reranker(by_length) if kind == "score" else rerank_server(by_length, "jina")
    letters = Prompts("", "", "q", ("d",), "", ("A", "B", "C"))
    with pytest.raises(RankerBackendError, match="choosing from 3 needs a model that writes"):
        ask(model_server(script), letters)


def test_letters_are_chosen_by_their_case(model_server: Start) -> None:
    letters = Prompts("", "", "q", ("d",), "", ("A", "B"))
    words = {"yes": -0.1, "no": -3.0, "A": -1.0, "a": -0.5, " B": -2.0}
    _, [[answer]] = ask(model_server(chat_server(lambda said: words)), letters)
    assert answer == pytest.approx([-1.0, -2.0])


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_written_as_for_other_clients(model_server: Start, suffix: str) -> None:
    server = model_server(vllm_reranker(by_length))
    server.url += suffix
    assert ask(server)[0].name == "reader"


def test_a_named_model_is_asked_for(model_server: Start) -> None:
    good = vllm_reranker(by_length)
    server = model_server(
        lambda r: models("one", "made", longest=99) if r.path == "/v1/models" else good(r)
    )
    assert ask(server, PROMPTS, model="made")[0] == Model("made", 99)
    assert ask(server, PROMPTS, model="other")[0] == Model("other", None)
    assert server.requests[-1].body["model"] == "other"


@pytest.mark.parametrize(
    "listed", [Reply({"data": []}), Reply({"object": "list"}), Reply([]), Reply({"data": [{}]})]
)
def test_a_server_that_names_no_model_is_an_error(model_server: Start, listed: Reply) -> None:
    with pytest.raises(RankerBackendError, match="/v1/models names no model"):
        ask(model_server(lambda request: listed))
    with pytest.raises(RankerBackendError, match="/info answered 404"):
        ask(model_server(lambda request: ABSENT))


LONG = "This model's maximum context length is 2048 tokens. However, your prompt contains 3000."


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (scores(1.0, 2.0), "2 usable answers for 3 documents"),
        (scores(1.0, 2.0, 3.0, 4.0), "4 usable answers for 3 documents"),
        (scores(1.0, 2.0, math.nan), "usable scores"),
        (scores(1.0, 2.0, -math.inf), "usable scores"),
        (Reply({"data": [{"index": 0, "score": 1}] * 3}), "1 usable answers for 3 documents"),
        (Reply({"data": [{"index": i, "score": 1} for i in (1, 2, 3)]}), "3 usable answers"),
        (Reply({"data": [{"index": 0, "score": 1}, {"index": 1}]}), "not a list of answers"),
        (Reply({"data": [{"index": i, "score": None} for i in range(3)]}), "not a list of scores"),
        (Reply({"data": {"scores": [1, 2]}}), "not a list of answers"),
        (Reply({"results": []}), "not a list of answers"),
        (Reply(None), "not a list of answers"),
        (Reply(""), "did not answer with JSON: ''"),
        (Reply("<html>proxy</html>"), "did not answer with JSON: '<html>proxy</html>'"),
        (Reply('{"data": [{"ind'), "did not answer with JSON"),
        (Reply("no gzip", headers={"Content-Encoding": "gzip"}), "the answer cannot be read"),
        (error(400, LONG), f"answered 400: {LONG}"),
        (error(404, "The model `made` does not exist."), "answered 404: .* BIOELX_RANKER_MODEL"),
        (Reply({"error": "Unauthorized"}, 401), "answered 401: .*Unauthorized.*BIOELX_RANKER_KEY"),
        (error(500, "EngineCore encountered an issue."), "answered 500: EngineCore"),
        (Reply("", 307, {"Location": "http://127.0.0.1:9/"}), "answered 307"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_that_says_why(
    model_server: Start, reply: Reply, message: str
) -> None:
    server = model_server(in_turn(reply))
    with pytest.raises(RankerBackendError, match=f"{server.url}/score.*{message}") as caught:
        ask(server, PROMPTS)
    assert paths(server).count("/score") == 3  # two trials; an answer is not asked for twice
    assert not caught.value.silent
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("path", "reply", "message"),
    [
        ("/v1/completions", Reply({"choices": []}), "0 usable answers for 1 documents"),
        ("/v1/completions", Reply({"choices": [{"index": 0, "logprobs": None}]}), "does not tell the log-prob"),
        ("/v1/completions", Reply({"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"token_id:1": 0}]}}]}), "does not tell"),
        ("/tokenize", Reply({"tokens": [1, 2]}), "the label 'yes' is no single token of writer: .1, 2."),
        ("/tokenize", Reply({"ids": [1]}), "the label 'yes' is no single token of writer: None"),
        ("/tokenize", ABSENT, "the label 'yes' is no single token of writer: None"),
    ],
)  # fmt: skip
def test_a_vllm_without_the_extension_is_not_used_for_completions(
    model_server: Start, path: str, reply: Reply, message: str
) -> None:
    good = vllm_writer(lambda prompt, labels: [-1.0] * len(labels))
    server = model_server(lambda r: reply if r.path == path else good(r))
    with pytest.raises(RankerBackendError, match=message):
        ask(server, PROMPTS, among=["completions"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"<think>": -0.1, "Well": -4.0}, "chatter would answer '<think>', and none of yes, no"),
        ({}, "tells no log-probabilities"),
        ({"yes": math.nan}, "not a list of usable scores"),
    ],
)
def test_a_model_that_does_not_answer_with_the_labels_is_not_used(
    model_server: Start, words: dict[str, float], message: str
) -> None:
    server = model_server(chat_server(lambda said: words))
    with pytest.raises(RankerBackendError, match=message):
        ask(server, PROMPTS, among=["chat"])


def test_a_server_that_is_too_slow_is_given_up(model_server: Start) -> None:
    server = model_server(in_turn(Reply(delay=60)))
    with pytest.raises(RankerBackendError, match=r"did not answer in time \(0.5 s\)") as caught:
        ask(server, PROMPTS, timeout=0.5)
    assert caught.value.silent
    assert paths(server).count("/score") == 3


@pytest.mark.parametrize("failure", [Reply(status=0), Reply("", 503), Reply("", 429)])
def test_a_dropped_connection_or_a_busy_server_is_tried_three_times_in_all(
    model_server: Start, failure: Reply
) -> None:
    server = model_server(in_turn(failure, failure, scores(0.5, 1.0, 2.0)))
    assert ask(server, PROMPTS)[1] == [[[0.5, 0.0], [1.0, 0.0], [2.0, 0.0]]]
    server = model_server(in_turn(failure))
    with pytest.raises(RankerBackendError, match=r"/score (cannot be reached|answered)") as caught:
        ask(server, PROMPTS)
    assert caught.value.silent
    assert paths(server).count("/score") == 2 + 3


@pytest.mark.parametrize("kind", ["rerank", "completions", "chat"])
def test_a_server_that_falls_silent_while_it_is_tried_ends_the_trial(
    model_server: Start, kind: str
) -> None:
    server = model_server(lambda r: models("x") if r.path == "/v1/models" else Reply(status=0))
    with pytest.raises(RankerBackendError, match="cannot be reached") as caught:
        ask(server, PROMPTS, among=[kind, "chat"])
    assert caught.value.silent
    assert len(server.requests) == 1 + 3


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    with socket.socket() as taken:  # bound, and not listening: refuses
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            RankerBackendError, match=f"{url}/v1/models cannot be reached"
        ) as caught:
            asyncio.run(ProbingBackend(HttpServer(url)).connect())
    assert caught.value.silent


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://ü..x", "http://x/\0"])
def test_an_address_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(RankerBackendError, match=r"cannot be reached|is no address"):
        asyncio.run(ProbingBackend(HttpServer(url)).connect())


def test_tokens_are_counted_by_the_server_or_else_bounded_by_bytes(model_server: Start) -> None:
    async def count(url: str) -> list[list[int]]:
        backend = ProbingBackend(HttpServer(url))
        counts = [await backend.count_tokens(["x" * 40, "ü"]) for _ in range(2)]
        await backend.close()
        return counts

    judge, words = by_length, {"yes": -0.1, "no": -3.0}
    assert asyncio.run(count(model_server(vllm_reranker(judge)).url)) == [[10, 0]] * 2
    server = model_server(chat_server(lambda said: words))
    assert asyncio.run(count(server.url)) == [[40, 2]] * 2
    assert paths(server).count("/tokenize") == 3  # one for the trial of completions, one count


def test_no_more_connections_are_open_than_allowed(model_server: Start) -> None:
    busy, most = threading.Semaphore(16), []

    def words(said: str) -> dict[str, float]:
        assert busy.acquire(blocking=False), "more than sixteen requests at a time"
        threading.Event().wait(0.01)
        busy.release()
        most.append(1)
        return {"yes": -0.1, "no": -3.0}

    server = model_server(chat_server(words))
    many = Prompts("s", "", "q", tuple(map(str, range(60))), "", ("yes", "no"))
    assert len(ask(server, many, among=["chat"])[1][0]) == 60
    assert len(most) == 61
