"""XL-BEL's files, and scores of ranks by hand-made cases."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.evaluation.metrics import (
    RECALL_AT,
    Outcome,
    average,
    calibration,
    first_right,
    nil_scores,
    recall_curve,
    summarize,
)
from bioelx_mcp.schema import Mention


def ids(*predicted: str) -> list[frozenset[str]]:
    """Predictions from best to worst; the ids of one are joined by `|`."""
    return [frozenset(one.split("|")) for one in predicted]


@pytest.mark.parametrize(
    ("predicted", "gold", "rank"),
    [
        (ids("A", "B", "C"), {"A"}, 1),
        (ids("A", "B", "C"), {"C"}, 3),
        (ids("A", "B", "C"), {"C", "B"}, 2),
        (ids("A", "B|OLD", "C"), {"OLD"}, 2),
        (ids("A", "B", "B"), {"B"}, 2),
        (ids("A", "B"), {"D"}, None),
        ([], {"A"}, None),
    ],
)
def test_the_first_prediction_with_a_gold_id_counts(
    predicted: Sequence[frozenset[str]], gold: set[str], rank: int | None
) -> None:
    assert first_right(predicted, frozenset(gold)) == rank


@pytest.mark.parametrize("k", RECALL_AT)
def test_a_rank_of_exactly_k_is_within_k(k: int) -> None:
    at, behind = (summarize([Outcome("de", rank, True)]) for rank in (k, k + 1))
    assert (at[f"covered_recall@{k}"], behind[f"covered_recall@{k}"]) == (100.0, 0.0)
    assert at["covered_mrr"] == 1 / k


def test_uncovered_queries_are_misses_of_all_and_left_out_of_covered() -> None:
    outcomes = [Outcome("de", rank, True) for rank in (1, 4, 20, None)]
    assert summarize([*outcomes, Outcome("de", None, False)]) == {
        "queries": 5,
        "covered": 4,
        "covered_recall@1": 25.0,
        "covered_recall@5": 50.0,
        "covered_recall@10": 50.0,
        "covered_recall@64": 75.0,
        "all_recall@1": 20.0,
        "all_recall@5": 40.0,
        "all_recall@10": 40.0,
        "all_recall@64": 60.0,
        "covered_accuracy@1": 25.0,
        "all_accuracy@1": 20.0,
        "covered_mrr": pytest.approx((1 + 1 / 4 + 1 / 20) / 4),
        "all_mrr": pytest.approx((1 + 1 / 4 + 1 / 20) / 5),
    }


def test_of_no_covered_query_nothing_is_claimed() -> None:
    summary = summarize([Outcome("de", None, False)])
    assert (summary["covered"], summary["all_recall@1"]) == (0, 0.0)
    assert math.isnan(summary["covered_recall@1"]) and math.isnan(summary["covered_mrr"])


def test_the_average_is_of_languages_not_of_queries() -> None:
    one = summarize([Outcome("de", 1, True)] * 3)
    other = summarize([Outcome("th", None, True)])
    both = average([one, other])
    assert (both["queries"], both["covered"]) == (4, 4)
    assert (both["covered_recall@1"], both["covered_mrr"]) == (50.0, 0.5)
    assert average([one]) == one and average([]) == {}


OUTCOMES = st.builds(
    Outcome, st.just("de"), st.one_of(st.none(), st.integers(1, 100)), st.just(True)
)


@given(st.lists(OUTCOMES, min_size=1))
def test_recall_rises_with_k_and_bounds_the_mrr(outcomes: list[Outcome]) -> None:
    summary = summarize(outcomes)
    recalls = [summary[f"covered_recall@{k}"] for k in RECALL_AT]
    assert recalls == sorted(recalls) and 0 <= recalls[0] and recalls[-1] <= 100
    assert recalls[0] / 100 <= summary["covered_mrr"] + 1e-9 and summary["covered_mrr"] <= 1
    assert all(summary[f"all_recall@{k}"] == summary[f"covered_recall@{k}"] for k in RECALL_AT)


def test_lines_of_both_versions_are_read_with_offset_language_and_place(tmp_path: Path) -> None:
    path = tmp_path / "DE_1k_query.txt"
    path.write_bytes(
        "C0000001|c0000002||rotes Fieber\r\n"
        "\n"
        "C0000003||Husten||Er hat <tgt>Husten</tgt>, kein || Husten.\n"
        "C0000003||Husten||ohne Marke\n"
        "CL000123||緑||<tgt>緑</tgt>".encode()
    )
    assert read_xlbel(path) == [
        Query(
            Mention("rotes Fieber"),
            frozenset({"UMLS:C0000001", "UMLS:C0000002"}),
            "de",
            f"{path}:1",
        ),
        Query(
            Mention("Husten", "Er hat Husten, kein || Husten.", 7),
            frozenset({"UMLS:C0000003"}),
            "de",
            f"{path}:3",
            spans=((7, 13),),
        ),
        Query(Mention("Husten", "ohne Marke"), frozenset({"UMLS:C0000003"}), "de", f"{path}:4"),
        Query(
            Mention("緑", "緑", 0),
            frozenset({"UMLS:CL000123"}),
            "de",
            f"{path}:5",
            spans=((0, 1),),
        ),
    ]


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="|<>"))


@given(TEXT, TEXT.filter(str.strip), TEXT)
def test_the_mention_stands_at_its_offset(before: str, mention: str, after: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "en.txt"
        line = f"C0000001||{mention}||{before}<tgt>{mention}</tgt>{after}\n"
        path.write_text(line, encoding="utf-8")
        (query,) = read_xlbel(path)
    read = query.mention
    assert (read.text, read.context) == (mention, before + mention + after)
    assert read.start == len(before)


def test_a_folder_gives_its_files_by_language(tmp_path: Path) -> None:
    for name, mention in (("zh_query.txt", "红热"), ("en-1k.txt", "red fever"), ("note.md", "x")):
        (tmp_path / name).write_text(f"C0000001||{mention}\n", encoding="utf-8")
    queries = read_xlbel(tmp_path)
    assert [(query.language, query.mention.text) for query in queries] == [
        ("en", "red fever"),
        ("zh", "红热"),
    ]


FORM = "not of the form CUI[|CUI]||mention"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (b"C0000001||a\nC0000001|b\n", ":2", FORM),
        (b"\n\nno id||a\n", ":3", FORM),
        (b"C0000001| ||a\n", ":1", FORM),
        (b"||a\n", ":1", FORM),
        (b"C0000001|| \n", ":1", FORM),
        (b"C0000001||a||\xe9\n", ":1", "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(
    tmp_path: Path, text: bytes, where: str, what: str
) -> None:
    path = tmp_path / "de.txt"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        read_xlbel(path)
    assert str(caught.value).startswith(f"{path}{where}: {what}")


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match=r"empty\.txt holds no query"):
        read_xlbel(tmp_path / "empty.txt")
    for path in (tmp_path / "none.txt", tmp_path / "none"):
        with pytest.raises(UsageError, match=r"is no \.txt file, nor a folder of them"):
            read_xlbel(path)


def test_an_answer_that_is_no_candidate_in_front_counts_for_accuracy_alone() -> None:
    summary = summarize([Outcome("de", 1, True, False), Outcome("de", 2, True, True)])
    assert (summary["all_recall@1"], summary["all_accuracy@1"]) == (50.0, 50.0)
    nil = summarize([Outcome("de", 1, True, False)])
    assert (nil["covered_recall@1"], nil["covered_accuracy@1"]) == (100.0, 0.0)


def test_the_curve_is_the_recall_at_every_k_averaged_over_languages() -> None:
    outcomes = [
        Outcome("de", 1, True),
        Outcome("de", 3, True),
        Outcome("th", None, True),
        Outcome("th", None, False),
        Outcome("ko", None, False),
    ]
    curve = {k: (covered, of_all) for k, covered, of_all in recall_curve(outcomes)}
    assert list(curve[1]) == pytest.approx([25.0, 50 / 3])
    assert curve[2] == curve[1] and list(curve[3]) == pytest.approx([50.0, 100 / 3])
    assert recall_curve([])[0][0] == 1 and math.isnan(recall_curve([])[0][1])


def test_nil_has_a_precision_a_recall_and_an_f1_of_its_own() -> None:
    told = nil_scores(
        [
            (False, False, True),  # linked rightly
            (False, False, False),  # linked wrongly
            (False, True, False),  # a concept was there, NIL was said
            (True, True, False),  # NIL, and said so
            (True, False, False),  # NIL, and linked
        ]
    )
    assert told["linking"] == {
        **{"right": 1, "answered": 3, "gold": 3},
        **{"precision": pytest.approx(100 / 3), "recall": pytest.approx(100 / 3)},
        "f1": pytest.approx(100 / 3),
    }
    assert told["nil"] == {
        **{"right": 1, "answered": 2, "gold": 2, "precision": 50.0, "recall": 50.0, "f1": 50.0}
    }
    assert math.isnan(nil_scores([(True, False, False)])["nil"]["precision"])


def test_calibration_weighs_the_gap_of_each_bin_by_its_size() -> None:
    told = calibration([(0.95, True), (0.95, False), (0.15, False), (1.0, True)])
    assert told["queries"] == 4
    low, high = told["bins"]
    assert (low["from"], low["queries"], low["confidence"], low["accuracy"]) == (0.1, 1, 0.15, 0.0)
    assert (high["queries"], high["accuracy"]) == (3, pytest.approx(2 / 3))
    gap = abs((0.95 + 0.95 + 1.0) / 3 - 2 / 3)
    assert told["ece"] == pytest.approx((0.15 + 3 * gap) / 4)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_scores_that_are_true_frequencies_are_calibrated(parts: list[int]) -> None:
    scores = [(part / 10, number < part) for part in parts for number in range(10)]
    assert calibration(scores)["ece"] == pytest.approx(0.0, abs=1e-9)


RANKED = st.lists(st.integers(0, 30), unique=True, max_size=20)


@given(st.lists(st.tuples(RANKED, st.sets(st.integers(0, 30), min_size=1)), min_size=1))
def test_recall_and_mrr_are_those_of_trec_eval_to_the_last_digit(
    cases: list[tuple[list[int], set[int]]],
) -> None:
    import pytrec_eval

    outcomes = []
    for predicted, gold in cases:
        given = [frozenset({f"C{one}"}) for one in predicted]
        rank = first_right(given, frozenset(f"C{one}" for one in gold))
        outcomes.append(Outcome("de", rank, True))
    relevant = {f"q{n}": {f"C{one}": 1 for one in gold} for n, (_, gold) in enumerate(cases)}
    run = {
        f"q{n}": {f"C{one}": 100.0 - place for place, one in enumerate(predicted)}
        for n, (predicted, _) in enumerate(cases)
    }
    wanted = {"success_1,5,10", "recip_rank"}
    told = pytrec_eval.RelevanceEvaluator(relevant, wanted).evaluate(run)
    summary = summarize(outcomes)
    for k in (1, 5, 10):
        theirs = sum(100.0 * told.get(q, {}).get(f"success_{k}", 0.0) for q in relevant)
        assert summary[f"all_recall@{k}"] == theirs / len(cases)
    theirs = sum(told.get(q, {}).get("recip_rank", 0.0) for q in relevant)
    assert summary["all_mrr"] == theirs / len(cases)
