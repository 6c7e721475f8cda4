"""Hostile documents and knowledge bases, through build, search, ranking and output: they change an order at most."""

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from callers import Cli, fails
from conftest import build_small
from hostile import TEXTS
from model_server import ModelServer, Reply, Script, vllm_reranker

from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention, Ranking
from bioelx_mcp.settings import load_settings
from bioelx_mcp.text import visible

NAMES = [f"{text} fever {number}" for number, text in enumerate(TEXTS)]
NEUTRAL = "The child had plain fever for a week."


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of whose concepts all but one have hostile names, definitions, types and references."""
    root = tmp_path_factory.mktemp("hostile")
    rows: list[dict[str, object]] = [{"concept_id": "MADE:plain", "name": "plain fever"}]
    for number, (text, name) in enumerate(zip(TEXTS, NAMES, strict=True)):
        described = {"definition": text, "semantic_types": [text[:50]], "xrefs": [text[:50]]}
        rows.append({"concept_id": f"MADE:{number}", "name": name, **described})
    path = root / "names.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_small(path, root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def linker(hostile: Path) -> Linker:
    return Linker.from_settings(load_settings(index=hostile))


def ids(ranking: Ranking) -> list[str]:
    return [ranked.candidate.concept_id for ranked in ranking.candidates]


def seen(text: str) -> str:
    """What of a text a terminal would obey, or not show."""
    unseen = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c for c in text if unicodedata.category(c) in unseen and c not in "\u200c\u200d")


def test_every_hostile_name_is_kept_as_it_is_and_found_by_itself(linker: Linker) -> None:
    found = linker.search(NAMES, 1)
    for number, candidates in enumerate(found):
        assert candidates[0].concept_id == f"MADE:{number}"
        assert candidates[0].hit.channel == "exact"
        assert candidates[0].preferred_name == " ".join(NAMES[number].split())


def test_a_hostile_context_changes_no_candidate(linker: Linker) -> None:
    plain, *others = linker.link(
        [Mention("plain fever", context) for context in (NEUTRAL, *(f"plain fever {text}" for text in TEXTS), *TEXTS)],
        8,
    )  # fmt: skip
    assert plain.best is not None and plain.best.candidate.concept_id == "MADE:plain"
    for ranking in others:
        assert ids(ranking) == ids(plain) and ranking.best == plain.best


def gullible(query: str, document: str) -> float:
    """A model that believes what it is told to believe."""
    return 9.0 if "yes" in document else -9.0


def test_a_gullible_model_changes_the_order_and_nothing_else(
    linker: Linker, model_server: Callable[[Script], ModelServer]
) -> None:
    settings = load_settings(ranker_url=model_server(vllm_reranker(gullible)).url)
    ranked = Linker(linker._index, settings)
    mentions = [Mention("plain fever", f"plain fever {text}") for text in TEXTS]
    found = {candidate.concept_id for candidate in linker.search(["plain fever"], 30)[0]}
    for ranking in ranked.link(mentions, 30):
        assert ranking.degraded == ""
        assert len(ids(ranking)) == 30 and set(ids(ranking)) == found
        assert ranking.best is None or ranking.best.candidate.concept_id in found
        for one in ranking.candidates:
            assert one.candidate.preferred_name in (
                " ".join(n.split()) for n in (*NAMES, "plain fever")
            )


def test_no_prompt_holds_a_line_or_a_token_of_control_that_is_not_the_prompts_own(
    linker: Linker, model_server: Callable[[Script], ModelServer]
) -> None:
    server = model_server(vllm_reranker(lambda query, document: 0.0))
    ranked = Linker(linker._index, load_settings(ranker_url=server.url))
    candidates = linker.candidates("fever", [f"MADE:{n}" for n in range(len(TEXTS))])
    plain = linker.candidates("plain fever", ["MADE:plain"])

    def scored() -> list[dict[str, Any]]:
        return [
            r.body for r in server.requests if r.path == "/score" and "fever" in r.body["queries"]
        ]

    ranked.rank([(Mention("fever", "fever"), plain)])
    (own,) = scored()
    ranked.rank([(Mention("fever", text), candidates) for text in TEXTS])
    _, *others = scored()
    control = re.compile(r"\n|<\|[^<>|]*\|>|</?think>|</?tool_call>|</?s>|\[\[|\]\]")
    assert len(others) >= len(TEXTS) - 3  # what is equal once neutralised is asked for once
    for body in (own, *others):
        # the query holds one pair of marks in the instruction, one around the mention if it is there
        assert control.findall(body["queries"]) == control.findall(own["queries"])
        for text in body["documents"]:
            assert control.findall(text) == control.findall(own["documents"][0])
            assert seen(text.replace("\n", "")) == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_is_shown_what_names_and_mentions_hold_and_obeys_nothing(
    cli: Cli, hostile: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "dumb")  # no colours of our own
    index = ("--index", str(hostile))
    lines = "".join(json.dumps({"mention": name, "context": name}) + "\n" for name in NAMES)
    for command in ("search", "link"):
        result = cli(command, *index, "--limit", "2", stdin=lines)
        assert (result.code, result.err) == (0, "")
        assert seen(result.out.replace("\n", "").replace("\t", "")) == ""
        shown = [line for line in result.out.splitlines() if "MADE:" in line]
        assert len(shown) >= len(NAMES)
        if not terminal:  # there the columns are narrow
            assert "\\x1b[2J\\x1b[31mred" in result.out and "\\u202eevil\\u202c" in result.out
    result = cli("rank", "fever", *(f"--candidate=MADE:{n}" for n in range(len(TEXTS))), *index)
    assert seen(result.out.replace("\n", "").replace("\t", "")) == "" and result.code == 0
    assert len(result.out.splitlines()) >= len(TEXTS) + 1


def test_json_is_exact_and_holds_nothing_that_a_terminal_obeys(cli: Cli, hostile: Path) -> None:
    lines = "".join(json.dumps({"mention": name}) + "\n" for name in NAMES)
    result = cli("search", "--json", "--limit", "1", "--index", str(hostile), stdin=lines)
    assert seen(result.out.replace("\n", "")) == ""
    assert [line["mention"] for line in map(json.loads, result.out.split("\n")[:-1])] == NAMES


def test_an_error_and_a_note_are_one_line_that_a_terminal_does_not_obey(
    cli: Cli,
    tmp_path: Path,
    model_server: Callable[[Script], ModelServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"concept_id": "\x1b[31mno id\u202e", "name": "x"}) + "\n")
    command = ("build-index", "--source", f"table={bad}", "--out", str(tmp_path / "out"))
    result = cli(*command, "--encoder", "starter")
    fails(result, 2, "\\u001b[31mno id\\u202e")
    assert seen(result.err.replace("\n", "")) == ""
    result = cli("rank", "fever", "--candidate", "\x1b]0;x\x07\u202e")
    fails(result, 2, "\\x1b]0;x\\x07\\u202e")
    server = model_server(lambda _: Reply("\x1b[2J\u202e out of order\nnext", status=500))
    monkeypatch.setenv("BIOELX_RANKER_MODEL", "m")
    result = cli("link", "red fever", "--ranker-url", server.url)
    assert "\\x1b[2J\\u202e out of order next" in result.err and result.code == 0
    assert seen(result.err.replace("\n", "")) == ""


def test_a_build_of_hostile_sources_shows_and_leaves_nothing_that_a_terminal_obeys(
    tmp_path: Path,
) -> None:
    """Good rows, rows that are set aside, and a file name of that kind: stdout, stderr and every text that is left."""
    path = tmp_path / "names\x1b[2J\x9b31m\u202e[bold].jsonl"
    rows: list[dict[str, object]] = [
        {"concept_id": f"MADE:{number}", "name": name, "source": text[:40], "license": text[:40]}
        for number, (text, name) in enumerate(zip(TEXTS, NAMES, strict=True))
    ]
    rows += [{"concept_id": f"{text} no id", "name": text} for text in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "bioelx_mcp", "build-index", "--encoder", "starter"]
    command += ["--source", f"table={path}", "--out", str(tmp_path / "index")]
    done = subprocess.run([*command, "--max-rejected", "1"], capture_output=True, check=True)
    for told in (done.stdout, done.stderr):
        assert seen(told.decode().replace("\n", "").replace("\t", "")) == ""
    assert b"names\\x1b[2J\\x9b31m\\u202e[bold]" in done.stderr
    tables = tmp_path / "index" / "build" / "tables"
    aside = (tables / "rejected.jsonl").read_text().split("\n")[:-1]
    assert len(aside) >= len(TEXTS) and all(json.loads(line)["row"] for line in aside)
    texts = [
        left
        for left in (tmp_path / "index").rglob("*")
        if left.suffix in (".json", ".jsonl", ".md", ".txt")
        and left.name != "tokenizer.json"  # holds every character, and is ours
    ]
    assert len(texts) > 5 and tables / "report.json" in texts
    for left in texts:
        assert seen(left.read_text().replace("\n", "").replace("\t", "")) == "", left
    shutil.rmtree(tmp_path / "index")
    stopped = subprocess.run(command, capture_output=True)  # too many rows are set aside
    assert stopped.returncode == 2 and b"\\u202e" in stopped.stderr
    assert seen(stopped.stderr.decode().replace("\n", "")) == ""


def test_what_is_seen_stays_as_it_is() -> None:
    for text in (
        "",
        "fever",
        "grüner Ausschlag",
        "緑の発疹",
        "क्\u200dष نمی\u200cخواهم",
        "ไซนัสอักเสบ",
        "β-\u3000x",
    ):
        assert visible(text) == text
