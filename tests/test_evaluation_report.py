"""Results that were written: read back, compared, set beside published numbers, and shown as one page."""

import base64
import copy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from callers import Cli, fails
from conftest import build_small, write_tsv
from model_server import ModelServer, Reply, Request, Script, scores

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import read_dataset
from bioelx_mcp.evaluation.report import errors_of, render_report
from bioelx_mcp.evaluation.report.plots import Bar, Point, bar_chart, line_chart
from bioelx_mcp.evaluation.results import (
    Run,
    compare_runs,
    predictions_path,
    published_beside,
    published_numbers,
    read_runs,
    render_comparison,
    write_result,
)
from bioelx_mcp.evaluation.run import evaluate_linker
from bioelx_mcp.linker import Linker

HOSTILE = "<script>alert(1)</script>"
ROWS = (
    ("concept_id", "name", "lang", "kind", "source"),
    ("UMLS:C0000001", "red fever", "en", "preferred", "made"),
    ("UMLS:C0000001", "rotes Fieber", "de", "translation", '"><img src=x onerror=alert(1)>'),
    ("UMLS:C0000002", f"blue cough {HOSTILE}", "en", "preferred", "made"),
    ("UMLS:C0000002", "blauer Husten", "de", "translation", "made"),
    *((f"MADE:{n}", f"grey pain {n}", "en", "preferred", "made") for n in range(12)),
)
LINES = (
    {"mention": "rotes Fieber", "gold": "UMLS:C0000001", "language": "de", "group": "DISO"},
    {"mention": "blauer Husten", "gold": "UMLS:C0000001", "language": "de", "group": "SIGN"},
    {"mention": "red fever", "gold": "UMLS:C0000002", "language": "en", "document": "d1"},
    {
        "mention": HOSTILE,
        "context": f"A {HOSTILE} \u202e here",
        "gold": "MADE:99",
        "language": "en",
    },
    {"mention": "red", "context": "A red one.", "gold": None, "language": "en"},
    {"mention": "grey pain 1", "context": "Grey.", "gold": "UMLS:C0000001", "language": "en"},
    {"mention": "x" * 600, "gold": "UMLS:C0000001", "language": "en"},
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    build_small(write_tsv(root / "rows.tsv", ROWS), root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "made.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    return path


Evaluated = Callable[..., Path]


@pytest.fixture
def evaluated(index: Path, corpus: Path, tmp_path: Path) -> Evaluated:
    """A result and its predictions, in files: `evaluated("name", ranker_url=...)`."""

    def run(name: str, limit: int = 64, **settings: Any) -> Path:
        out = tmp_path / f"{name}.json"
        result = evaluate_linker(
            Linker.open(index, **settings),
            read_dataset("jsonl", corpus),
            ranked=5 if settings else 0,
            limit=limit,
            predictions=predictions_path(out),
        )
        write_result(out, result)
        return out

    return run


def hates_red(request: Request) -> Reply:
    if request.path != "/score":
        return Reply({"data": [{"id": "made/<b>ranker</b>", "max_model_len": 4096}]})
    return scores(
        *(-3.0 if "red" in d else 0.5 * i for i, d in enumerate(request.body["documents"]))
    )


class Page(HTMLParser):
    """The elements of a page, its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_runs_plots_comparison_and_errors(
    evaluated: Evaluated, model_server: Callable[[Script], ModelServer]
) -> None:
    paths = [evaluated("plain"), evaluated("ranked", ranker_url=model_server(hates_red).url)]
    page = Page(render_report(read_runs(paths)))
    assert page.elements["svg"] == 4, "latency, recall by language, recall@k, reliability"
    assert page.elements["mark"] == page.elements["details"] > 6
    for part in ("ranked against plain", "Expected calibration error", "NIL", "By semantic group"):
        assert part in page.text
    for part in ("SIGN", "exact", "made/<b>ranker</b>", "None that we know is of this protocol"):
        assert part in page.text


def test_text_from_corpora_and_indexes_stays_text(evaluated: Evaluated) -> None:
    html = render_report(read_runs([evaluated("<img src=x>")]))
    page = Page(html)
    assert page.elements["script"] == 1 and page.elements["img"] == page.elements["b"] == 0
    names = {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name in names) and not names & {"src", "href"}
    assert HOSTILE in page.text and "onerror=alert(1)" in page.text


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(evaluated: Evaluated) -> None:
    html = render_report(read_runs([evaluated("plain")]))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)


def test_an_error_says_its_kind_and_why(
    evaluated: Evaluated, model_server: Callable[[Script], ModelServer]
) -> None:
    (plain,) = read_runs([evaluated("plain")])
    errors, count = errors_of(plain)
    told = {error.row.mention[:13]: (error.kind, error.why) for error in errors}
    assert count == len(errors) == 6 and "rotes Fieber" not in told
    assert told["blauer Husten"][0] == "ranked lower"
    assert "by the exact match of “blauer Husten” (1.000 against" in told["blauer Husten"][1]
    assert told[HOSTILE[:13]][0] == "not in the index"
    assert told["red"][0] == "NIL missed"
    assert told["xxxxxxxxxxxxx"][0] == "not searched"
    grey = next(error for error in errors if error.row.mention == "grey pain 1")
    assert (grey.before, grey.mention, grey.after) == ("", "grey pain 1", " Grey.")
    (short,) = read_runs([evaluated("short", limit=1)])
    assert Counter(error.kind for error in errors_of(short)[0])["not found"] == 3
    never = evaluated("nil", ranker_url=model_server(_nothing_fits).url)
    (nil,) = read_runs([never])
    assert {"NIL answered"} <= {error.kind for error in errors_of(nil)[0]}
    (ranked,) = read_runs([evaluated("ranked", ranker_url=model_server(hates_red).url)])
    whys = [error.why for error in errors_of(ranked)[0] if error.kind == "ranked lower"]
    assert any(re.search(r"\(0\.\d+ against 0\.\d+\)", why) for why in whys)


def _nothing_fits(request: Request) -> Reply:
    if request.path != "/score":
        return Reply({"data": [{"id": "made/ranker", "max_model_len": 4096}]})
    return scores(*(-5.0 - i for i, _ in enumerate(request.body["documents"])))


def test_a_right_concept_below_the_shown_ones_is_shown_at_its_rank(evaluated: Evaluated) -> None:
    (run,) = read_runs([evaluated("plain")])
    row = next(row for row in run.rows if row.mention == "grey pain 1")
    assert row.rank is not None and row.rank > 10
    assert len(row.candidates) == 11 and row.candidates[-1].id == "UMLS:C0000001"
    assert f'<td class="n">{row.rank}</td>' in render_report([run])


def test_runs_over_the_same_queries_are_compared_and_others_are_not(evaluated: Evaluated) -> None:
    runs = read_runs([evaluated("plain"), evaluated("short", limit=1)])
    ((earlier, later, tested),) = compare_runs(runs)
    assert (earlier.name, later.name) == ("plain", "short")
    assert tested["recall@1"] == {"difference": 0.0, "p": 1.0}
    assert tested["recall@64"]["difference"] < 0
    table = render_comparison(runs).splitlines()
    assert table[2].startswith("| short against plain | +0.00 (p 1.0000) | -")
    other = copy.deepcopy(runs[1])
    other.result["protocol"] = "published"
    assert render_comparison([runs[0], other]) == ""


def published(run: Run, name: str, queries: int, *languages: str) -> Run:
    """The run as if it were one of the published protocol, with so many queries a language."""
    result = copy.deepcopy(run.result)
    result["dataset"]["name"], result["protocol"] = name, "published"
    row = {**result["average"], "queries": queries}
    result["languages"] = dict.fromkeys(languages, row)
    result["intervals"] = dict.fromkeys((*languages, "average"), result["intervals"]["average"])
    return Run(run.name, result, run.rows)


def test_published_numbers_stand_only_beside_their_protocol_and_queries(
    evaluated: Evaluated,
) -> None:
    (run,) = read_runs([evaluated("plain")])
    assert published_beside(run) == []
    assert published_beside(published(run, "xlbel", 400, "en", "de")) == []
    systems = {one.system for one in published_beside(published(run, "xlbel", 1000, "en", "de"))}
    assert "GAT-BERGAMOT" in systems and "BioELX, retriever and ranker" in systems
    assert "BioELX, retriever and ranker" not in {
        one.system for one in published_beside(published(run, "xlbel", 1000, "de"))
    }
    assert published_beside(published(run, "mantra", 9, "es")) == [], "it is not known to be EMEA"
    page = Page(render_report([published(run, "xlbel", 1000, "en", "de")]))
    assert "official list of 399,931 UMLS names" in page.text
    assert ("class", "published") in page.attributes


def test_every_published_number_has_source_and_protocol() -> None:
    numbers = published_numbers()
    assert len(numbers) >= 10
    for number in numbers:
        assert number.source and number.protocol and number.searched
        for values in number.values.values():
            assert all(re.fullmatch(r"recall@\d+", metric) for metric in values)
            assert all(1 < value < 100 for value in values.values())


def test_what_is_no_result_is_named(evaluated: Evaluated, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text, part in (
        ("nothing", "cannot be read"),
        ("[]", "is no result"),
        ("{}", "format None"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=part):
            read_runs([path])
    result = evaluated("plain")
    moved = json.loads(result.read_text()) | {"run": "another"}
    result.write_text(json.dumps(moved))
    with pytest.raises(UsageError, match="is of another run"):
        read_runs([result])


def test_a_plot_of_nothing_is_a_plot() -> None:
    empty = bar_chart("none", [("de", [Bar(None, None, None, "")])])
    assert "<rect" not in empty and empty.startswith("<svg")
    line = line_chart('a "label"', [("s0", [Point(1, 50, "here")])], (1, 2))
    assert 'aria-label="a &#34;label&#34;"' in line and "<title>here</title>" in line


def test_the_command_writes_the_page_and_prints_the_comparison(
    cli: Cli, evaluated: Evaluated, tmp_path: Path
) -> None:
    paths = [str(evaluated("plain")), str(evaluated("short", limit=1))]
    page = tmp_path / "page.html"
    result = cli("report", *paths, "--out", str(page))
    assert result.code == 0 and result.out.startswith("| all queries | recall@1 |")
    assert result.out.endswith(f"{page}\n") and page.read_text().startswith("<!doctype html>")
    assert cli("report", paths[0], "--out", str(page)).out == f"{page}\n"
    fails(cli("report", paths[0], "--out", str(tmp_path)), 2, "--out")


def test_the_command_evaluates_any_format_and_says_what_was_left_out(
    cli: Cli, tmp_path: Path, model_server: Callable[[Script], ModelServer]
) -> None:
    data = Path(__file__).parent / "data" / "evaluation"
    retired = tmp_path / "MRCUI.RRF"
    retired.write_text("C0000003|2020AA|SY|||C0000002|Y|\n")
    result = cli(
        *("evaluate", "mantra", str(data / "mantra"), "--retired", str(retired)),
        *("--ranker-url", model_server(hates_red).url, "--out", str(tmp_path / "r.json")),
    )
    assert result.code == 0 and "ranker made/<b>ranker</b>" in result.out
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert told["gold"] == {"id": 2, "retired": 1, "none": 1}
    listed = cli(
        "evaluate", "pubtator", str(data / "made.pubtator.txt"), "--ids", str(data / "ids.txt")
    )
    assert "4 left out: its document is not listed (first: " in listed.err
    assert "NIL" not in listed.out and listed.code == 0
