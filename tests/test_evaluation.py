"""Evaluation: reading benchmarks, scoring ranks, and one run from file to table."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import build_small, write_tsv
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp import __version__
from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.evaluation.metrics import RECALL_AT, Outcome, average, first_right, summarize
from bioelx_mcp.evaluation.run import evaluate_retrieval, render_table
from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention

ROWS = (
    ("concept_id", "name", "lang", "kind", "alt_ids"),
    ("MADE:1", "red fever", "en", "preferred", "UMLS:C0000001|UMLS:C0000011"),
    ("MADE:1", "rotes Fieber", "de", "translation", ""),
    ("UMLS:C0000002", "blue cough", "en", "preferred", ""),
    ("UMLS:C0000002", "blauer Husten", "de", "translation", ""),
)


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
        "covered_mrr": pytest.approx((1 + 1 / 4 + 1 / 20) / 4),
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
        ),
        Query(Mention("Husten", "ohne Marke"), frozenset({"UMLS:C0000003"}), "de", f"{path}:4"),
        Query(Mention("緑", "緑", 0), frozenset({"UMLS:CL000123"}), "de", f"{path}:5"),
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


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"C0000001||a\nC0000001|b\n", ":2"),
        (b"\n\nno id||a\n", ":3"),
        (b"C0000001| ||a\n", ":1"),
        (b"||a\n", ":1"),
        (b"C0000001|| \n", ":1"),
        (b"C0000001||a||\xe9\n", ":1"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(
    tmp_path: Path, text: bytes, where: str
) -> None:
    path = tmp_path / "de.txt"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        read_xlbel(path)
    assert str(caught.value).startswith(f"{path}{where}: not of the form CUI[|CUI]||mention")


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match=r"empty\.txt holds no query"):
        read_xlbel(tmp_path / "empty.txt")
    for path in (tmp_path / "none.txt", tmp_path / "none"):
        with pytest.raises(UsageError, match=r"is no \.txt file, nor a folder of them"):
            read_xlbel(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    root = tmp_path_factory.mktemp("evaluation")
    build_small(write_tsv(root / "rows.tsv", ROWS), root / "index")
    return Linker.open(root / "index")


def query(mention: str, language: str, *gold: str) -> Query:
    return Query(Mention(mention), frozenset(gold), language, "here:1")


def test_a_mention_that_cannot_be_searched_counts_as_missed(small: Linker) -> None:
    result = evaluate_retrieval(
        small,
        [query("x" * 600, "de", "UMLS:C0000002"), query("blauer Husten", "de", "UMLS:C0000002")],
    )
    assert result["languages"]["de"]["covered_recall@1"] == 50.0


def test_a_run_counts_alternative_ids_and_tells_what_it_ran(small: Linker) -> None:
    queries = [
        query("rotes Fieber", "de", "UMLS:C0000011"),
        query("blauer Husten", "de", "UMLS:C0000002", "UMLS:C0000009"),
        query("blauer Husten", "de", "UMLS:C0000009"),
        query("red fever", "en", "UMLS:C0000002"),
    ]
    seen: list[tuple[int, int]] = []
    result = evaluate_retrieval(small, queries, progress=lambda *done: seen.append(done))
    german, english = result["languages"]["de"], result["languages"]["en"]
    assert (german["queries"], german["covered"]) == (3, 2)
    assert (german["covered_recall@1"], german["covered_mrr"]) == (100.0, 1.0)
    assert german["all_recall@1"] == pytest.approx(200 / 3)
    assert (english["covered_recall@1"], english["covered_recall@5"]) == (0.0, 100.0)
    assert english["covered_mrr"] == 0.5
    assert result["average"]["covered_recall@1"] == 50.0
    assert seen == [(4, 4)] and result["mentions_per_second"] > 0
    manifest = small.manifest
    assert (result["index"], result["encoder"]) == (manifest.index_id, manifest.encoder.name)
    assert (result["limit"], result["version"]) == (64, __version__)
    assert {"commit", "hardware"} <= set(result)


def test_a_limit_of_one_loses_what_ranks_second(small: Linker) -> None:
    result = evaluate_retrieval(small, [query("red fever", "en", "UMLS:C0000002")], limit=1)
    assert result["average"]["covered_recall@64"] == 0.0


def test_progress_is_told_by_chunks(small: Linker) -> None:
    seen: list[tuple[int, int]] = []
    queries = [query("red fever", "en", "MADE:1")] * 300
    result = evaluate_retrieval(small, queries, limit=1, progress=lambda *done: seen.append(done))
    assert result["average"]["all_recall@1"] == 100.0
    assert seen == [(256, 300), (300, 300)]


def test_names_of_the_starter_index_are_found_first(linker: Linker) -> None:
    golds = {"Herzinfarkt": "UMLS:C0027051", "NIDDM": "UMLS:C0011860", "aspirin": "UMLS:C0004057"}
    queries = [query(mention, "xx", gold) for mention, gold in golds.items()]
    assert evaluate_retrieval(linker, queries)["average"]["all_recall@1"] == 100.0


def test_the_table_has_a_row_a_language_and_the_average_last(small: Linker) -> None:
    queries = [query("rotes Fieber", "de", "MADE:1"), query("red fever", "en", "MADE:9")]
    lines = render_table(evaluate_retrieval(small, queries)).splitlines()
    assert lines[0] == "|  | queries | covered | R@1 | R@5 | R@10 | R@64 | MRR |"
    assert lines[1] == "|" + "---|" * 8
    full, none = " | ".join(["100.0 / 100.0"] * 4), " | ".join(["nan / 0.0"] * 4)
    assert lines[2:4] == [f"| de | 1 | 1 | {full} | 1.000 |", f"| en | 1 | 0 | {none} | nan |"]
    assert lines[4].startswith("| average | 2 | 1 | ") and len(lines) == 5
