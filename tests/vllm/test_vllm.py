"""Ranking by a real vLLM: its numbers, order, caching and concurrency, and what a failing server leaves."""

import math
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bioelx_mcp.backends.vllm_http import VllmHttpBackend
from vllm_server import MODEL, Server, find_python, serve

from bioelx_mcp.linker import Linker
from bioelx_mcp.prompt import load_prompt, render_document, render_query
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.schema import Candidate, Concept, Mention, Ranking

pytestmark = pytest.mark.vllm

PATIENCE = 120.0  # seconds for one request; others may keep the cores busy
PROMPT = load_prompt("qwen3-reranker")
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
    with serve(find_python(), tmp_path_factory.mktemp("vllm")) as running:
        yield running


def open_linker(
    index: Path, server: Server, model: str | None = None, timeout: float = PATIENCE
) -> Linker:
    return Linker.open(index, ranker_url=server.url, ranker_model=model, ranker_timeout=timeout)


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
    backend = VllmHttpBackend(server.url, timeout=PATIENCE)
    prompts: list[str] = []
    answers: list[float] = []
    for mention, candidates in zip(MENTIONS[:3], linker.search(MENTIONS[:3], 6), strict=True):
        query = render_query(PROMPT, mention)
        documents = [
            render_document(PROMPT, concept, [name for name, _ in linker.names(concept.concept_id)])
            for concept in (linker.concept(c.concept_id) for c in candidates)
            if concept is not None
        ]
        prompts += [query + document for document in documents]
        answers += backend.score_documents(query, documents)
    assert backend.model == MODEL
    assert len(prompts) == 18
    expected = [1 / (1 + math.exp(-value)) for value in server.reference(prompts)]
    assert [1 / (1 + math.exp(-value)) for value in answers] == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1  # a constant would agree as well


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
        assert ranking.ranker == f"{MODEL}/qwen3-reranker@1"
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
    query_tokens = len(render_query(PROMPT, mention).encode()) // 2  # fewer than there are
    hits = [server.metric("vllm:prefix_cache_hits_total")]
    for _ in range(2):
        ranking_linker.link([mention])
        hits.append(server.metric("vllm:prefix_cache_hits_total"))
    first, second = hits[1] - hits[0], hits[2] - hits[1]
    assert first > 9 * query_tokens  # one prompt is read, the other nine share its query
    assert second > first


@pytest.mark.parametrize(
    ("filler", "reason"), [("pain ", ""), ("痛", "maximum context length")], ids=["latin", "wide"]
)
def test_an_over_long_prompt_is_cut_or_degrades(
    server: Server, linker: Linker, filler: str, reason: str
) -> None:
    concept = Concept("MADE:1", "long story", definition="a long story " * 1600)
    context = (filler * 4000)[:2000] + "tale" + (filler * 4000)[:2000]
    mention = Mention("tale", context, 2000)
    candidate = linker.search(["asthma"], 1)[0][0]
    ranker = Ranker(lambda _: (concept, ()), PROMPT, VllmHttpBackend(server.url, timeout=PATIENCE))
    (ranking,) = ranker.rank_candidates([(mention, [candidate])])
    assert len(concept.definition) > 20_000
    assert len(context) > 4000
    if reason:
        check_degraded([ranking], [[candidate]], reason)
    else:
        assert 0.0 <= probabilities(ranking)[candidate.concept_id] <= 1.0


def test_a_model_that_the_server_lacks_degrades_with_its_name(
    starter_index: Path, server: Server
) -> None:
    wrong = open_linker(starter_index, server, model="nope")
    rankings = wrong.link(MENTIONS)
    check_degraded(rankings, wrong.search(MENTIONS), "404: The model `nope` does not exist.")
    assert "BIOELX_RANKER_MODEL" in rankings[0].degraded


def test_the_address_may_end_as_openai_clients_want_it(server: Server) -> None:
    assert VllmHttpBackend(f"{server.url}/v1/").model == MODEL


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
    assert not ranking_linker.link(MENTIONS[:1])[0].degraded
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
