"""A run from dataset to scores: gold ids, protocols, ranker, NIL, resuming, and what the result tells."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import build_small, write_tsv
from mcp import Client
from model_server import ModelServer, Reply, Request, Script, scores

from bioelx_mcp import __version__
from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Dataset, Query, read_dataset
from bioelx_mcp.evaluation.gold import GoldMap, read_retired
from bioelx_mcp.evaluation.predictions import read_predictions
from bioelx_mcp.evaluation.run import evaluate_linker, render_table
from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

DATA = Path(__file__).parent / "data" / "evaluation"
ROWS = (
    ("concept_id", "name", "lang", "kind", "source", "alt_ids", "xrefs"),
    (
        "UMLS:C0000001",
        "red fever",
        "en",
        "preferred",
        "MSH",
        "UMLS:C0000011",
        "MESH:D000111|OMIM:7",
    ),
    ("UMLS:C0000001", "rotes Fieber", "de", "translation", "made", "", ""),
    ("UMLS:C0000002", "blue cough", "en", "preferred", "made", "", "MESH:D000222|UMLS:C0000099"),
    ("UMLS:C0000002", "blauer Husten", "de", "translation", "made", "", ""),
    ("UMLS:C0000003", "Blue Cough of Spring", "en", "preferred", "SNOMEDCT_US", "", "MESH:D000222"),
    ("UMLS:C0000003", "blue cough in spring", "en", "synonym", "made", "", ""),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    build_small(write_tsv(root / "rows.tsv", ROWS), root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def small(index: Path) -> Linker:
    return Linker.open(index)


def query(mention: str, language: str, *gold: str) -> Query:
    return Query(Mention(mention), frozenset(gold), language, "here:1")


def dataset(*queries: Query, name: str = "jsonl") -> Dataset:
    return Dataset(name, Path("made.jsonl"), queries)


def prefers(*names: str) -> Script:
    """A ranker that is sure of documents that hold one of the names, and unsure of all others."""

    def script(request: Request) -> Reply:
        if request.path != "/score":
            return Reply({"data": [{"id": "made/ranker", "max_model_len": 4096}]})
        documents: list[str] = request.body["documents"]
        return scores(*(3.0 if any(n in d for n in names) else -3.0 for d in documents))

    return script


@pytest.mark.parametrize(
    ("gold", "basis", "concepts"),
    [
        ("UMLS:C0000001", "id", {"UMLS:C0000001"}),
        ("UMLS:C0000011", "id", {"UMLS:C0000001"}),
        ("UMLS:C0000077", "retired", {"UMLS:C0000002"}),
        ("OMIM:7", "xref", {"UMLS:C0000001"}),
        ("MESH:D000222", "shared xref", {"UMLS:C0000002", "UMLS:C0000003"}),
        ("UMLS:C0000099", "none", set()),
        ("MESH:D000999", "none", set()),
    ],
)
def test_a_gold_id_is_found_by_id_then_retirement_then_cross_reference(
    small: Linker, gold: str, basis: str, concepts: set[str]
) -> None:
    retired = {"UMLS:C0000077": "UMLS:C0000078", "UMLS:C0000078": "UMLS:C0000002"}
    found = GoldMap(small.index, [gold], retired)
    assert found.basis == {gold: basis}
    assert {small.index.concept(row).concept_id for row in found.right([gold])} == concepts
    assert found.right([]) == frozenset()


def test_a_circle_of_retirements_ends(small: Linker) -> None:
    circle = {"UMLS:C0000077": "UMLS:C0000078", "UMLS:C0000078": "UMLS:C0000077"}
    assert GoldMap(small.index, ["UMLS:C0000077"], circle).basis == {"UMLS:C0000077": "none"}


def test_only_synonymous_successors_of_retired_cuis_count(tmp_path: Path) -> None:
    path = tmp_path / "MRCUI.RRF"
    path.write_text(
        "C0000077|2020AA|SY|||C0000002|Y|\nC0000078|2020AA|RB|||C0000002|Y|\nC0000079|2019AB|DEL|||||\n"
    )
    assert read_retired(path) == {"UMLS:C0000077": "UMLS:C0000002"}
    path.write_text("C0000077|2020AA\n")
    with pytest.raises(UsageError, match=r"MRCUI\.RRF:1: not of the form CUI1\|VER"):
        read_retired(path)


def test_a_run_scores_languages_and_tells_what_it_ran(small: Linker) -> None:
    seen: list[tuple[int, int]] = []
    asked = dataset(
        query("rotes Fieber", "de", "UMLS:C0000011"),
        query("blauer Husten", "de", "UMLS:C0000002", "UMLS:C0000009"),
        query("blauer Husten", "de", "UMLS:C0000009"),
        query("red fever", "en", "UMLS:C0000002"),
    )
    result = evaluate_linker(small, asked, progress=lambda *done: seen.append(done))
    german, english = result["languages"]["de"], result["languages"]["en"]
    assert (german["queries"], german["covered"]) == (3, 2)
    assert (german["covered_recall@1"], german["covered_mrr"]) == (100.0, 1.0)
    assert german["all_recall@1"] == pytest.approx(200 / 3)
    assert (english["covered_recall@1"], english["covered_recall@5"]) == (0.0, 100.0)
    assert result["average"]["covered_recall@1"] == 50.0
    assert result["gold"] == {"id": 2, "none": 1}
    assert seen == [(4, 4)]
    manifest = small.manifest
    system = result["system"]
    assert system["index"] == manifest.index_id
    assert system["encoder"].startswith(manifest.encoder.name)
    assert (system["version"], system["ranker"], system["limit"]) == (__version__, "", 64)
    assert result["speed"]["mentions"] == 3, "equal mentions are asked once"
    assert result["speed"]["mentions_per_second"] > 0 and result["speed"]["p50_ms"] > 0
    assert {"processor", "cores", "python"} <= set(result["machine"])
    assert "nil" not in result and "calibration" not in result


def test_groups_and_channels_are_scored_apart(small: Linker) -> None:
    asked = dataset(
        replace(query("red fever", "en", "UMLS:C0000001"), group="DISO"),
        replace(query("red feverr", "en", "UMLS:C0000002"), group="CHEM"),
    )
    result = evaluate_linker(small, asked)
    assert result["groups"]["DISO"]["all_recall@1"] == 100.0
    assert result["groups"]["CHEM"]["all_recall@1"] == 0.0
    assert result["channels"]["exact"]["queries"] == 1
    assert sum(one["queries"] for one in result["channels"].values()) == 2


def test_a_mention_that_cannot_be_searched_counts_as_missed(small: Linker) -> None:
    asked = dataset(
        query("x" * 600, "de", "UMLS:C0000002"), query("blauer Husten", "de", "UMLS:C0000002")
    )
    assert evaluate_linker(small, asked)["languages"]["de"]["covered_recall@1"] == 50.0


def test_a_limit_of_one_loses_what_ranks_second(small: Linker) -> None:
    result = evaluate_linker(small, dataset(query("red fever", "en", "UMLS:C0000002")), limit=1)
    assert result["average"]["covered_recall@64"] == 0.0


def test_names_of_the_starter_index_are_found_first(linker: Linker) -> None:
    golds = {"Herzinfarkt": "UMLS:C0027051", "NIDDM": "UMLS:C0011860", "aspirin": "UMLS:C0004057"}
    asked = dataset(*(query(mention, "xx", gold) for mention, gold in golds.items()))
    assert evaluate_linker(linker, asked)["average"]["all_recall@1"] == 100.0


def test_the_table_has_a_row_a_language_and_the_average_last(small: Linker) -> None:
    asked = dataset(query("rotes Fieber", "", "UMLS:C0000001"), query("red fever", "en", "MADE:9"))
    lines = render_table(evaluate_linker(small, asked)).splitlines()
    assert lines[0] == "|  | queries | covered | R@1 | R@5 | R@10 | R@64 | MRR | R@1, 95% |"
    assert lines[1] == "|" + "---|" * 9
    full, none = " | ".join(["100.0 / 100.0"] * 4), " | ".join(["nan / 0.0"] * 4)
    assert lines[2:4] == [
        f"| und | 1 | 1 | {full} | 1.000 | 100.0 to 100.0 |",
        f"| en | 1 | 0 | {none} | nan | nan to nan |",
    ]
    assert lines[4].startswith("| average | 2 | 1 | ") and len(lines) == 5


def test_a_ranker_orders_the_first_candidates_and_says_nil(
    index: Path, model_server: Callable[[Script], ModelServer]
) -> None:
    linker = Linker.open(index, ranker_url=model_server(prefers("blue cough")).url)
    asked = dataset(
        query("red fever", "en", "UMLS:C0000002"),
        query("red fever", "en"),
        query("blauer Husten", "de", "UMLS:C0000002"),
        query("rotes Fieber", "de"),
    )
    result = evaluate_linker(linker, asked, ranked=2)
    assert result["system"]["ranker"] == "made/ranker"
    assert result["system"]["prompt"].startswith("qwen3-reranker@")
    assert result["nil"]["nil"]["gold"] == 2
    assert result["calibration"]["queries"] == 4
    assert result["languages"]["de"]["covered_accuracy@1"] == 100.0
    nothing = Linker.open(index, ranker_url=model_server(prefers("no such name")).url)
    told = evaluate_linker(nothing, asked, ranked=2)["nil"]["nil"]
    assert (told["right"], told["answered"], told["recall"]) == (2, 4, 100.0)


def test_predictions_hold_evidence_and_are_those_of_the_tools(
    small: Linker, index: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    asked = read_dataset("jsonl", DATA / "made.jsonl")
    evaluate_linker(small, asked, predictions=out)
    rows = read_predictions(out)
    assert [row.mention for row in rows] == [q.mention.text for q in asked.queries]
    (first, *_) = rows
    assert (first.context, first.start, first.document) == ("A red fever.", 2, "d1")
    assert first.right[0].name == "red fever" and first.rank == 1
    hit = small.search([asked.queries[0].mention], 10)[0][0].hit
    told = first.candidates[0]
    assert (told.alias, told.channel, told.source) == (hit.alias, hit.channel, hit.source)


@pytest.mark.anyio
async def test_the_tools_give_the_predictions_of_a_run(
    small: Linker, index: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    asked = read_dataset("jsonl", DATA / "made.jsonl")
    evaluate_linker(small, asked, predictions=out)
    async with Client(build_server(load_settings(index=index))) as client:
        items = [{"mention": q.mention.text, "context": q.mention.context} for q in asked.queries]
        ranked = await client.call_tool("rank_candidates", {"items": items})
    assert ranked.structured_content is not None
    for row, one in zip(read_predictions(out), ranked.structured_content["results"], strict=True):
        assert one["best"] == row.answer
        assert [c["id"] for c in one["ranked"]] == [c.id for c in row.candidates][:10]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_killed_run_goes_on_from_whole_rows_of_the_same_run(
    small: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.jsonl"
    asked = dataset(*(query(f"red fever {n}", "en", "UMLS:C0000001") for n in range(130)))
    whole = evaluate_linker(small, asked, predictions=out)
    assert (whole["resumed"], len(lines(out))) == (0, 130)
    rows = out.read_text(encoding="utf-8").splitlines(keepends=True)
    other = json.dumps({**json.loads(rows[0]), "run": "another", "number": 99}) + "\n"
    out.write_text("".join(rows[:100]) + other + rows[101][:40], encoding="utf-8")
    searched: list[int] = []
    real = Linker.search

    def counted(self: Linker, mentions: Sequence[Any], limit: int = 10) -> Any:
        searched.append(len(list(mentions)))
        return real(self, mentions, limit)

    monkeypatch.setattr(Linker, "search", counted)
    again = evaluate_linker(small, asked, predictions=out)
    assert again["resumed"] == 100 and searched[0] == 30
    assert again["average"] == whole["average"] and again["intervals"] == whole["intervals"]
    assert sorted(row["number"] for row in lines(out)) == list(range(130))
    assert evaluate_linker(small, asked, predictions=out, limit=5)["resumed"] == 0


def test_what_a_silent_ranker_left_is_ranked_when_it_answers(
    index: Path, tmp_path: Path, model_server: Callable[[Script], ModelServer]
) -> None:
    out = tmp_path / "p.jsonl"
    asked = dataset(query("red fever", "en", "UMLS:C0000001"))
    silent = Linker.open(index, ranker_url=model_server(lambda request: Reply(status=500)).url)
    assert evaluate_linker(silent, asked, ranked=2, predictions=out)["degraded"] == 1
    answers = Linker.open(index, ranker_url=model_server(prefers("red fever")).url)
    result = evaluate_linker(answers, asked, ranked=2, predictions=out)
    assert (result["resumed"], result["degraded"]) == (0, 0)


def test_a_run_does_not_go_on_with_another_ranker(
    index: Path, tmp_path: Path, model_server: Callable[[Script], ModelServer]
) -> None:
    out = tmp_path / "p.jsonl"
    one, two = query("red fever", "en", "UMLS:C0000001"), query("cough", "en", "UMLS:C0000002")
    linker = Linker.open(index, ranker_url=model_server(prefers("red")).url)
    evaluate_linker(linker, dataset(one, two), ranked=2, predictions=out)
    kept = out.read_text(encoding="utf-8").splitlines(keepends=True)[0]
    out.write_text(kept.replace("made/ranker", "old/ranker"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"was begun with the ranker 'made/ranker.*now it is 'old"):
        evaluate_linker(linker, dataset(one, two), ranked=2, predictions=out)


def test_predictions_that_cannot_be_read_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with pytest.raises(UsageError, match=r"p\.jsonl cannot be read"):
        read_predictions(path)
    path.write_text('{"run": 1}\n')
    with pytest.raises(UsageError, match=r"p\.jsonl:1: no prediction"):
        read_predictions(path)


def test_the_published_protocol_of_xlbel_counts_names_and_parts(
    small: Linker, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    asked = dataset(
        query("blue cough", "en", "UMLS:C0000003"),
        query("blue cough|red fever", "en", "UMLS:C0000001", "UMLS:C0000002"),
        query("blue cough+red fever", "en", "UMLS:C0000001"),
        name="xlbel",
    )
    result = evaluate_linker(small, asked, protocol="published", predictions=out)
    rows = read_predictions(out)
    names = [one.alias for one in rows[0].candidates]
    assert len(names) == 6 and len({one.id for one in rows[0].candidates}) == 3
    assert rows[0].rank in (2, 3) and {one.channel for one in rows[0].candidates} == {"dense"}
    assert rows[1].rank == 1, "each part is right"
    assert rows[2].rank is not None and rows[2].rank > 1, "as late as its latest part"
    assert result["protocol"] == "published"


def test_the_published_protocol_of_mantra_searches_english_names_of_three_vocabularies(
    small: Linker, tmp_path: Path
) -> None:
    out = tmp_path / "p.jsonl"
    both = query("rotes Fieber", "de", "UMLS:C0000001", "UMLS:C0000002")
    evaluate_linker(small, dataset(both, name="mantra"), protocol="published", predictions=out)
    rows = read_predictions(out)
    assert [row.gold for row in rows] == [("UMLS:C0000001",), ("UMLS:C0000002",)]
    assert {c.alias for row in rows for c in row.candidates} == {
        *("red fever", "Blue Cough of Spring")
    }


def test_a_protocol_that_is_not_known_is_an_error(small: Linker, linker: Linker) -> None:
    asked = dataset(query("red fever", "en", "UMLS:C0000001"))
    for protocol, part in (
        ("best", "known: distinct, published"),
        ("published", "of xlbel, mantra"),
    ):
        with pytest.raises(UsageError, match=part):
            evaluate_linker(small, asked, protocol=protocol)
    with pytest.raises(UsageError, match="has no English name of mdr, meddra, mesh"):
        evaluate_linker(linker, replace(asked, name="mantra"), protocol="published")


def test_contexts_are_cut_around_the_mention(small: Linker, tmp_path: Path) -> None:
    before = "word " * 100
    context = f"{before}red fever{' word' * 100}"
    long = replace(
        query("red fever", "en", "UMLS:C0000001"),
        mention=Mention("red fever", context, len(before)),
        spans=((len(before), len(before) + 9),),
    )
    evaluate_linker(small, dataset(long), predictions=tmp_path / "p.jsonl")
    (row,) = read_predictions(tmp_path / "p.jsonl")
    assert row.start is not None and len(row.context) < 350
    assert row.context[row.start : row.start + 9] == "red fever"
    assert asdict(long)["mention"]["context"] == context
