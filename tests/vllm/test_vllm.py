"""Ranking by a real vLLM: its numbers, order, caching and concurrency, and what a failing server leaves."""

import asyncio
import math
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vllm_server import MAX_TOKENS, MODEL, Server, find_python, serve

from bioelx_mcp.backends import Model, Prompts
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import BACKENDS, ProbingBackend
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.letters import SecondLook
from bioelx_mcp.linker import Linker
from bioelx_mcp.prompt import ListwisePrompt, PointwisePrompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.render import Description, fit_prompts
from bioelx_mcp.schema import Candidate, Mention, Ranking
from bioelx_mcp.settings import load_settings

pytestmark = pytest.mark.vllm

PATIENCE = 120.0  # seconds for one request; others may keep the cores busy
PROMPT = load_prompt("qwen3-reranker", PointwisePrompt)
MENTIONS = (
    Mention("Herzinfarkt", "Der Patient erlitt 2019 einen Herzinfarkt."),
    Mention("diabète", "Un diabète mal équilibré depuis l'enfance."),
    Mention("ไซนัสอักเสบ", "ผู้ป่วยเป็นไซนัสอักเสบเรื้อรัง"),
    Mention("高血圧", "高血圧の治療中。"),
    Mention("грипп", "Тяжёлый грипп, осложнённый пневмонией."),
    Mention("pneumonia", "No sign of pneumonia on the chest film."),
    Mention("cefalea", "Cefalea intensa desde ayer."),
    Mention("Schlaganfall"),
    Mention("asthma", "Mild asthma; uses an inhaler."),
    Mention("aspirin", "100 mg aspirin daily"),
)


@pytest.fixture(scope="session", autouse=True)  # first of all: no index is made for skipped tests
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A reranker."""
    with serve(find_python(), tmp_path_factory.mktemp("vllm"), "tiny-qwen3-reranker") as running:
        yield running


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same weights as a model that writes."""
    with serve(find_python(), tmp_path_factory.mktemp("writer"), "tiny-model") as running:
        yield running


def ask(
    server: Server, prompts: Sequence[Prompts], among: Sequence[str] = tuple(BACKENDS)
) -> tuple[Model, list[list[float]]]:
    """The model of a server, and what it says to all documents of the prompts."""

    async def work() -> tuple[Model, list[list[float]]]:
        backend = ProbingBackend(HttpServer(server.url, timeout=PATIENCE), among)
        try:
            answers = [await backend.score_labels(one) for one in prompts]
            return await backend.connect(), [row for rows in answers for row in rows]
        finally:
            await backend.close()

    return asyncio.run(work())


def rendered(linker: Linker) -> tuple[list[Prompts], list[str]]:
    """Prompts for three mentions with six candidates each, and their whole texts."""

    async def count(texts: Sequence[str]) -> list[int]:
        return [0] * len(texts)

    prompts = []
    for mention, found in zip(MENTIONS[:3], linker.search(MENTIONS[:3], 6), strict=True):
        told = linker._describe(found)
        prompts.append(asyncio.run(fit_prompts(PROMPT, mention, told, MAX_TOKENS, count)))
    return prompts, [one.head + tail for one in prompts for tail in one.tails]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def open_linker(
    index: Path, server: Server, model: str | None = None, timeout: float = PATIENCE
) -> Linker:
    return Linker.open(index, ranker_url=server.url, ranker_model=model, ranker_timeout=timeout)


def open_linker_like(linker: Linker, server: Server) -> Linker:
    """The same index, and a ranker that remembers nothing yet."""
    return Linker(linker._index, load_settings(ranker_url=server.url, ranker_timeout=PATIENCE))


@pytest.fixture
def ranking_linker(starter_index: Path, server: Server) -> Linker:
    return open_linker(starter_index, server)


def ids(ranking: Ranking) -> list[str]:
    return [ranked.candidate.concept_id for ranked in ranking.candidates]


def probabilities(ranking: Ranking) -> dict[str, float]:
    assert not ranking.degraded
    return {r.candidate.concept_id: r.rank_score or 0.0 for r in ranking.candidates}


def check_degraded(
    rankings: Sequence[Ranking], found: Sequence[Sequence[Candidate]], reason: str
) -> None:
    """Every ranking is the retrieval order and tells the reason."""
    assert len(rankings) == len(found)
    for ranking, candidates in zip(rankings, found, strict=True):
        assert [ranked.candidate for ranked in ranking.candidates] == list(candidates)
        assert all(ranked.rank_score is None for ranked in ranking.candidates)
        assert ranking.best == ranking.candidates[0]
        assert ranking.ranker == "retrieval"
        assert reason in ranking.degraded


def test_probabilities_equal_those_of_transformers_on_the_same_weights(
    server: Server, linker: Linker
) -> None:
    prompts, texts = rendered(linker)
    model, answers = ask(server, prompts)
    assert model == Model(MODEL, MAX_TOKENS)
    assert len(texts) == 18
    expected = [sigmoid(value) for value in server.reference(texts)]
    assert [sigmoid(yes - no) for yes, no in answers] == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1  # a constant would agree as well


def test_the_log_probabilities_of_a_model_that_writes_equal_them_too(
    writer: Server, linker: Linker
) -> None:
    prompts, texts = rendered(linker)
    model, answers = ask(writer, prompts)
    assert model == Model(MODEL, MAX_TOKENS)
    expected = [sigmoid(value) for value in writer.reference(texts)]
    assert [sigmoid(yes - no) for yes, no in answers] == pytest.approx(expected, abs=1e-4)
    assert all(math.exp(yes) + math.exp(no) < 1.0 for yes, no in answers)  # of all words
    rows = writer.in_process(texts[:7])
    assert [sigmoid(yes - no) for yes, no in rows] == pytest.approx(expected[:7], abs=1e-4)


def test_a_model_that_writes_ranks_like_the_reranker_and_looks_again_by_letters(
    writer: Server, server: Server, starter_index: Path
) -> None:
    options = {"ranker_timeout": PATIENCE, "letters_url": writer.url}
    twice = Linker.open(starter_index, ranker_url=writer.url, **options)
    once = open_linker(starter_index, server)
    for one, two in zip(once.link(MENTIONS), twice.link(MENTIONS), strict=True):
        assert not two.degraded
        scores = [ranked.rank_score or 0.0 for ranked in two.candidates]
        assert sorted(ids(one)) == sorted(ids(two))
        assert scores == sorted(scores, reverse=True)
        if two.agreement is None:
            assert probabilities(one) == pytest.approx(probabilities(two), abs=2e-4)
        else:
            assert two.ranker == f"{MODEL}/qwen3-reranker@2+{MODEL}/letters@1"
            assert two.agreement in (0.0, 0.25, 0.5, 0.75, 1.0)
            assert 0 < sum(scores[:8]) < 1.0001


def test_letters_are_read_whatever_their_rank(writer: Server) -> None:
    async def choose() -> tuple[float, float]:
        backend = ProbingBackend(HttpServer(writer.url, timeout=PATIENCE), ["completions"])
        told = [Description("red fever"), Description("blue cough"), Description("green rash")]
        look = SecondLook(load_prompt("letters", ListwisePrompt), backend)
        verdict, _ = await look.choose(MENTIONS[0], told)
        await backend.close()
        return sum(verdict.probabilities) + verdict.nil, verdict.agreement

    total, agreement = asyncio.run(choose())
    assert total == pytest.approx(1.0)
    assert 0 < agreement <= 1


def test_a_model_that_does_not_say_yes_or_no_is_told_apart_by_chat(writer: Server) -> None:
    """The weights are random: its likeliest words are none of ours, and that must not pass for an answer."""
    prompts = [Prompts("s", "", "Is it?", ("so",), "", ("yes", "no"))]
    with pytest.raises(RankerBackendError, match=r"would answer .*, and none of yes, no"):
        ask(writer, prompts, ["chat"])


def test_a_ranking_is_a_permutation_that_names_model_and_prompt(
    ranking_linker: Linker, linker: Linker
) -> None:
    found = linker.search(MENTIONS)
    rankings = ranking_linker.link(MENTIONS)
    for ranking, candidates in zip(rankings, found, strict=True):
        scores = list(probabilities(ranking).values())
        assert sorted(ids(ranking)) == sorted(c.concept_id for c in candidates)
        assert scores == sorted(scores, reverse=True)
        assert ranking.best == (ranking.candidates[0] if scores[0] >= 0.5 else None)
        assert ranking.ranker == f"{MODEL}/qwen3-reranker@2"
    assert any(
        ids(ranking) != [c.concept_id for c in candidates]
        for ranking, candidates in zip(rankings, found, strict=True)
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_candidates_given_does_not_matter(
    ranking_linker: Linker, seed: int
) -> None:
    candidates = ranking_linker.search(MENTIONS[:1])[0]
    shuffled = random.Random(seed).sample(candidates, len(candidates))
    straight, mixed = ranking_linker.rank([(MENTIONS[0], candidates), (MENTIONS[0], shuffled)])
    assert shuffled != candidates
    expected, scores = probabilities(straight), probabilities(mixed)
    assert len(set(expected.values())) > 5
    assert scores == pytest.approx(expected, abs=1e-4)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    # Where two scores are apart, their order is the same; where they are not, the order given decides.
    for place, one in enumerate(ids(straight)):
        later = [
            other for other in ids(straight)[place + 1 :] if expected[one] - expected[other] > 2e-4
        ]
        assert all(ids(mixed).index(one) < ids(mixed).index(other) for other in later)


def test_mentions_sent_together_are_ranked_as_one_by_one(ranking_linker: Linker) -> None:
    together = ranking_linker.link(MENTIONS)
    alone = [ranking_linker.link([mention])[0] for mention in MENTIONS]
    assert [ranking.mention for ranking in together] == list(MENTIONS)
    for one, other in zip(together, alone, strict=True):
        assert probabilities(one) == pytest.approx(probabilities(other), abs=1e-4)
        assert one.best == other.best


def test_the_server_reuses_what_the_prompts_of_a_mention_share(
    ranking_linker: Linker, server: Server
) -> None:
    mention = Mention("Fieber", "Seit gestern hohes Fieber, sonst ohne Beschwerden.")
    query_tokens = (
        len(f"{PROMPT.system}{PROMPT.instruction}{mention.context}") // 2
    )  # fewer than there are
    hits = [server.metric("vllm:prefix_cache_hits_total")]
    found = ranking_linker.search([mention])[0]
    for _ in range(2):
        fresh = open_linker_like(ranking_linker, server)  # ours remembers what was scored
        assert not fresh.rank([(mention, found)])[0].degraded
        hits.append(server.metric("vllm:prefix_cache_hits_total"))
    first, second = hits[1] - hits[0], hits[2] - hits[1]
    assert first > 9 * query_tokens  # one prompt is read, the other nine share its query
    assert second > first


def test_what_was_scored_is_not_asked_again(ranking_linker: Linker, server: Server) -> None:
    asked = []
    for _ in range(3):
        ranking_linker.link(MENTIONS[:2])
        asked.append(server.metric("vllm:prompt_tokens_total"))
    assert asked[0] == asked[1] == asked[2] > 0


@pytest.mark.parametrize("filler", ["pain ", "痛"], ids=["latin", "wide"])
def test_what_is_too_long_is_told_shorter_and_the_others_are_ranked_as_ever(
    server: Server, linker: Linker, filler: str
) -> None:
    """To the tiny model every byte is a token: the contexts alone are longer than it reads."""
    long = Description("long story " * 90, definition=f"{filler}long story " * 1600)
    fever = Description("red fever", ("Finding",), definition="A fever that is red.")
    mention = Mention("tale", f"{(filler * 4000)[:2000]}tale{(filler * 4000)[:2000]}", 2000)
    given = linker.search(["asthma"], 3)[0]

    def rank(*told: Description) -> Ranking:
        backend = ProbingBackend(HttpServer(server.url, timeout=PATIENCE))
        prompt = PROMPT.model_copy(update={"max_definition": 100_000, "max_tokens": 100_000})
        (ranking,) = Ranker(lambda _: list(told), prompt, backend).rank_candidates(
            [(mention, given)]
        )
        return ranking

    scores, plain = probabilities(rank(fever, long, fever)), probabilities(rank(*[fever] * 3))
    first, middle, last = (candidate.concept_id for candidate in given)
    assert scores[first] == pytest.approx(plain[first], abs=1e-4)
    assert scores[last] == pytest.approx(plain[last], abs=1e-4)
    assert 0.0 <= scores[middle] <= 1.0


def test_a_model_that_the_server_lacks_degrades_with_its_name(
    starter_index: Path, server: Server
) -> None:
    wrong = open_linker(starter_index, server, model="nope")
    rankings = wrong.link(MENTIONS)
    check_degraded(rankings, wrong.search(MENTIONS), "The model `nope` does not exist.")
    assert "BIOELX_RANKER_MODEL" in rankings[0].degraded


def test_a_server_that_hangs_degrades_in_time_and_may_come_back(
    starter_index: Path, server: Server
) -> None:
    impatient = open_linker(starter_index, server, timeout=1.0)
    found = impatient.search(MENTIONS) * 20
    server.signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        rankings = impatient.rank(zip(MENTIONS * 20, found, strict=True))
        seconds = time.monotonic() - start
    finally:
        server.signal(signal.SIGCONT)
    check_degraded(rankings, found, "did not answer in time")
    assert seconds < 15.0  # 200 mentions do not wait a second each, nor eight at a time
    patient = open_linker(starter_index, server)
    assert not any(ranking.degraded for ranking in patient.link(MENTIONS))


def test_a_server_killed_while_it_serves_leaves_the_retrieval_order(
    ranking_linker: Linker, server: Server
) -> None:
    """The last one: nothing serves after it."""
    assert not ranking_linker.link(["Husten"])[0].degraded
    found = ranking_linker.search(MENTIONS)
    items = list(zip(MENTIONS, found, strict=True))
    server.signal(signal.SIGSTOP)  # requests stay in flight until it is killed
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ranking_linker.rank, items)
        time.sleep(2.0)
        assert not future.done()
        server.signal(signal.SIGKILL)
        check_degraded(future.result(timeout=20.0), found, "cannot be reached")
    start = time.monotonic()
    check_degraded(ranking_linker.rank(items), found, "cannot be reached")
    assert time.monotonic() - start < 20.0
