"""The Python API on the starter index, alone and with a ranker's server behind it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tsv
from model_server import ModelServer, Reply, Request, Script, vllm_reranker, vllm_writer

from bioelx_mcp.errors import MissingArtifactError, UsageError
from bioelx_mcp.linker import Linker
from bioelx_mcp.prompt import SHIPPED
from bioelx_mcp.render import Description
from bioelx_mcp.schema import AliasHit, Candidate, Mention
from bioelx_mcp.settings import load_settings

HOMONYMS = ("AS", "HD", "AD", "PTX")
Ranked = Callable[[Script], tuple[Linker, ModelServer]]


@pytest.fixture
def ranked(linker: Linker, model_server: Callable[[Script], ModelServer]) -> Ranked:
    """The starter index with a ranker that answers by a script."""

    def start(script: Script) -> tuple[Linker, ModelServer]:
        server = model_server(script)
        settings = load_settings(ranker_url=server.url, ranker_model="reader")
        return Linker(linker._index, settings), server

    return start


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def read_context(query: str, document: str) -> float:
    """Log-odds that are high where the context says what the candidate's definition says."""
    context = words(query.rpartition("<Query>: ")[2])
    definition = words(document.rpartition(" | definition: ")[2].partition("<|im_end|>")[0])
    return 10 * len(context & definition) / (len(definition) or 1) - 5


def asked(server: ModelServer) -> list[Request]:
    """The requests for scores, without the trial."""
    scored = [request for request in server.requests if request.path == "/score"]
    return [request for request in scored if request.body["queries"] != "a b"]


def test_opening_nothing_opens_the_starter_index_of_the_cache(
    cache: Path, linker: Linker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    found = Linker.open()
    assert found.manifest == linker.manifest
    assert found.manifest.name == "starter"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"index": "/nowhere/index"}, MissingArtifactError, "no index in /nowhere/index"),
        ({"colour": "red"}, UsageError, "setting colour"),
        ({"threads": -1}, UsageError, "setting threads"),
    ],
)
def test_opening_what_is_not_there_is_an_error(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Linker.open(**arguments)


def test_a_prompt_that_is_not_there_is_an_error(linker: Linker) -> None:
    with pytest.raises(MissingArtifactError, match="no prompt 'nope'"):
        Linker(linker._index, load_settings(prompt="nope"))


def test_mentions_may_be_texts_or_mentions_and_keep_their_order(linker: Linker) -> None:
    given: list[Mention | str] = [
        "aspirin",
        Mention("Herzinfarkt", "nach Herzinfarkt"),
        "ไซนัสอักเสบ",
    ]
    firsts = [candidates[0].preferred_name for candidates in linker.search(iter(given), 2)]
    assert firsts == ["aspirin", "myocardial infarction", "sinusitis"]
    rankings = linker.link(iter(given), 2)
    assert [ranking.mention for ranking in rankings] == [Mention("aspirin"), given[1], Mention("ไซนัสอักเสบ")]  # fmt: skip
    assert [
        ranking.best and ranking.best.candidate.preferred_name for ranking in rankings
    ] == firsts


def test_without_a_ranker_linking_is_searching(linker: Linker) -> None:
    [ranking] = linker.link(["diarhea"], 4)
    assert [each.candidate for each in ranking.candidates] == linker.search(["diarhea"], 4)[0]
    assert ranking.best == ranking.candidates[0]
    assert (ranking.ranker, ranking.degraded) == ("retrieval", "")


@pytest.mark.parametrize("mention", ["", "x" * 513])
def test_a_mention_that_cannot_be_searched_is_a_usage_error(linker: Linker, mention: str) -> None:
    for call in (linker.search, linker.link):
        with pytest.raises(UsageError):
            call(["aspirin", mention])
    with pytest.raises(UsageError):
        linker.candidate(mention, "C0004057")


def test_a_concept_and_its_names_are_found_by_any_spelling_of_its_id(linker: Linker) -> None:
    concept = linker.concept("umls_c0004057")
    assert concept is not None
    assert (concept.concept_id, concept.preferred_name) == ("UMLS:C0004057", "aspirin")
    assert concept.semantic_types and concept.definition
    names = linker.names(" C0004057 ")
    assert ("aspirin", "en") in names and ("アスピリン", "ja") in names
    assert names[0] == ("aspirin", "en")


def test_an_unknown_id_has_no_concept_no_names_and_is_no_candidate(linker: Linker) -> None:
    assert linker.concept("UMLS:C9999999") is None
    assert linker.names("no id") == []
    with pytest.raises(UsageError, match=f"not in index {linker.manifest.index_id}: C9999999"):
        linker.candidate("aspirin", "C9999999")


def test_a_candidate_named_by_its_id_says_so(linker: Linker) -> None:
    candidate = linker.candidate("ASA", "c0004057")
    assert (candidate.concept_id, candidate.preferred_name) == ("UMLS:C0004057", "aspirin")
    assert (candidate.hit.channel, candidate.hit.alias) == ("id", "ASA")


@pytest.mark.parametrize("mention", HOMONYMS)
def test_a_ranker_that_reads_the_context_tells_homonyms_apart(ranked: Ranked, mention: str) -> None:
    linker, _ = ranked(vllm_reranker(read_context))
    found = linker.search([mention])[0]
    meant = [c for c in found if c.hit.channel == "exact"]
    assert len(meant) >= 2
    contexts = []
    for candidate in meant:
        concept = linker.concept(candidate.concept_id)
        assert concept is not None
        contexts.append(Mention(mention, f"Known {mention}. {concept.definition}"))
    rankings = linker.link(contexts)
    best = [ranking.best.candidate.concept_id for ranking in rankings if ranking.best]
    assert best == [candidate.concept_id for candidate in meant]
    assert best[1] != found[0].concept_id  # the order of the search is not the last word
    for ranking in rankings:
        assert {each.candidate for each in ranking.candidates} == set(found)
        assert ranking.ranker == "reader/qwen3-reranker@2"
        assert ranking.candidates[0].rank_score == pytest.approx(0.993, abs=0.01)


def test_a_context_that_fits_no_candidate_is_nil(ranked: Ranked) -> None:
    linker, _ = ranked(vllm_reranker(read_context))
    [ranking] = linker.link([Mention("AS", "AS xyzzy plugh")])
    assert ranking.best is None
    assert len(ranking.candidates) == 10


def test_the_ranker_is_told_what_a_candidate_is_and_how_it_was_found(ranked: Ranked) -> None:
    linker, server = ranked(vllm_reranker(lambda query, document: 0.0))
    linker.link([Mention("Acetylsalicylsäure", "Acetylsalicylsäure 100 mg")], 1)
    [request] = asked(server)
    assert request.body["model"] == "reader"
    assert "<Query>: [[Acetylsalicylsäure]] 100 mg\n" in request.body["queries"]
    [document] = request.body["documents"]
    concept = linker.concept("C0004057")
    assert concept is not None
    assert document.startswith(
        f"<Document>: aspirin | type: {concept.semantic_types[0]} | names: Acetylsalicylsäure; "
    )
    assert "アスピリン" not in document  # neither English nor the language of the match
    assert f" | definition: {concept.definition}<|im_end|>" in document


def test_given_candidates_are_ranked_and_no_others(ranked: Ranked) -> None:
    linker, server = ranked(
        vllm_reranker(lambda query, document: 2.0 * ("aspirin" not in document))
    )
    candidates = [linker.candidate("pain killer", each) for each in ("C0004057", "C0000970")]
    [ranking] = linker.rank([("pain killer", candidates)])
    assert [each.candidate for each in ranking.candidates] == candidates[::-1]
    assert ranking.best == ranking.candidates[0]
    names = asked(server)[0].body["documents"][0]
    assert "pain killer" not in names  # the mention is no name of the concept


def test_a_server_that_is_gone_degrades_to_the_order_of_the_search(ranked: Ranked) -> None:
    linker, server = ranked(lambda request: Reply({"error": {"message": "gone"}}, 503))
    [ranking] = linker.link([Mention("AS", "AS xyzzy")], 3)
    assert [each.candidate for each in ranking.candidates] == linker.search(["AS"], 3)[0]
    assert ranking.best == ranking.candidates[0]
    assert ranking.ranker == "retrieval"
    assert ranking.degraded == f"{server.url}/v1/models answered 503: gone"


def test_a_candidate_is_told_in_the_language_of_the_mention_in_english_and_with_its_parents(
    tmp_path: Path, build: Callable[..., Any]
) -> None:
    header = ("concept_id", "name", "lang", "kind", "definition", "parents", "semantic_types")
    rows = [
        ("MADE:1", "red fever", "en", "preferred", "A red one.", "MADE:2|MADE:404", "Disease"),
        ("MADE:1", "scarlet heat", "en", "synonym", "", "", ""),
        ("MADE:1", "rotes Fieber", "de", "translation", "", "", ""),
        ("MADE:1", "Rotfieber", "de-AT", "translation", "", "", ""),
        ("MADE:1", "fiebre roja", "es", "translation", "", "", ""),
        ("MADE:2", "fever", "en", "preferred", "", "", ""),
        ("MADE:2", "Fieber", "de", "translation", "", "", ""),
    ]
    build(write_tsv(tmp_path / "parents.tsv", [header, *rows]), tmp_path / "parents")
    linker = Linker.open(tmp_path / "parents")
    candidates = linker.search(["rotes Fieber"], 2)[0]
    told = {one.name: one for one in linker._describe(candidates)}
    red = told["red fever"]
    assert red.names[:2] == ("rotes Fieber", "red fever")  # the match, then each language in turn
    assert set(red.names) == {"rotes Fieber", "red fever", "Rotfieber", "scarlet heat"}
    assert red.parents == ("fever",)
    assert (red.types, red.definition) == (("Disease",), "A red one.")
    assert told["fever"].names == ("Fieber", "fever")


def test_of_a_candidate_from_elsewhere_only_what_it_says_itself_is_told(linker: Linker) -> None:
    hit = AliasHit("x-itis", "en", "", "dense", 0.5)
    candidate = Candidate("MADE:9", "inflammation of x", ("Disease",), 0.5, hit)
    assert linker._describe([candidate]) == [
        Description("inflammation of x", ("Disease",), ("x-itis",))
    ]


def test_a_second_look_and_prompts_of_ones_own_come_from_the_settings(
    linker: Linker, model_server: Callable[[Script], ModelServer], tmp_path: Path
) -> None:
    text = (SHIPPED / "qwen3-reranker.toml").read_text(encoding="utf-8")
    mine = text.replace('id = "qwen3-reranker"', 'id = "mine"')
    (tmp_path / "mine.toml").write_text(mine, encoding="utf-8")
    writer = vllm_writer(lambda prompt, labels: [-1.0 - 0.1 * i for i in range(len(labels))])
    server = model_server(writer)
    settings = load_settings(
        ranker_url=server.url, letters_url=server.url, prompts=tmp_path, prompt="mine",
        prompt_language="de",
    )  # fmt: skip
    (ranking,) = Linker(linker._index, settings).link(["AS"], 4)
    assert ranking.ranker == "writer/mine@2/de+writer/letters@1/de"
    assert ranking.degraded == ""
    assert ranking.agreement is not None
