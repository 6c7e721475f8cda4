"""The command line: what each command prints."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from callers import SCRIPT, Cli, fails
from conftest import build_small
from model_server import ModelServer, Script, vllm_reranker

from bioelx_mcp import __version__


def test_without_a_command_the_help_names_them_all(cli: Cli) -> None:
    result = cli()
    assert (result.code, result.err) == (0, "")
    commands = ("demo", "serve", "search", "link", "rank", "build-index", "wikidata-query", "info")
    assert all(f" {command} " in result.out for command in (*commands, "mcp-config"))
    assert cli("--help").out == result.out
    assert cli("--version") == (0, f"{__version__}\n", "")


def test_search_prints_a_row_for_each_candidate(cli: Cli) -> None:
    result = cli("search", "Rotes Fieber", "MADE:3", "--limit", "1")
    assert result.code == 0 and result.err == ""
    assert result.rows == [
        ["mention", "id", "preferred name", "score", "matched alias", "lang", "channel"],
        ["Rotes Fieber", "UMLS:C0000001", "red fever", "1.000", "rotes Fieber", "de", "exact"],
        ["MADE:3", "MADE:3", "green rash", "1.000", "MADE:3", "", "id"],
    ]


def test_search_reads_one_mention_a_line_or_json_lines(cli: Cli) -> None:
    stdin = 'red fever\n\n{"mention": "緑の発疹", "context": "", "start": null}\n  blue cough \n'
    result = cli("search", "--json", "--limit", "1", stdin=stdin)
    assert [(row["mention"], row["candidates"][0]["concept_id"]) for row in result.lines] == [
        ("red fever", "UMLS:C0000001"),
        ("緑の発疹", "MADE:3"),
        ("blue cough", "UMLS:C0000002"),
    ]
    hit = {"alias": "緑の発疹", "language": "ja", "source": "made"}
    assert result.lines[1]["candidates"][0]["hit"] == {
        **hit,
        "channel": "exact",
        "similarity": 1.0,
    }


def test_link_prints_one_answer_a_mention(cli: Cli) -> None:
    result = cli("link", "blauer Husten", "--context", "Er hat blauen Husten.")
    assert result.rows == [
        ["mention", "id", "preferred name", "score", "ranker"],
        ["blauer Husten", "UMLS:C0000002", "blue cough", "1.000", "retrieval"],
    ]
    (ranking,) = cli("link", "blauer Husten", "--json", "--limit", "2").lines
    assert ranking["best"]["candidate"]["concept_id"] == "UMLS:C0000002"
    assert len(ranking["candidates"]) == 2 and ranking["degraded"] == ""


def test_rank_orders_the_given_candidates_once_each(cli: Cli) -> None:
    given = [f"--candidate={id}" for id in ("made_3", "C0000001", "UMLS:C0000001", "MADE:3")]
    assert cli("rank", "fever", *given).rows == [
        ["best", "id", "preferred name", "rank score", "retrieval score"],
        ["*", "MADE:3", "green rash", "", "1.000"],
        ["", "UMLS:C0000001", "red fever", "", "1.000"],
    ]
    (searched,) = cli("rank", "red fever", "--json").lines
    assert searched["candidates"][0]["candidate"]["concept_id"] == "UMLS:C0000001"


def test_a_ranker_decides_and_may_say_nil(
    cli: Cli, model_server: Callable[[Script], ModelServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOELX_RANKER_MODEL", "m")
    given = ("--candidate=MADE:3", "--candidate=C0000001")
    for high, best in ((3.0, "UMLS:C0000001"), (-20.0, "")):
        script = vllm_reranker(lambda _, document, high=high: high if "red" in document else -30.0)  # type: ignore[misc]
        result = cli("rank", "fever", *given, "--ranker-url", model_server(script).url)
        first = result.rows[1]
        assert (result.err, first[0], first[1]) == ("", "*" if best else "", "UMLS:C0000001")
    url = model_server(vllm_reranker(lambda query, document: -20.0)).url
    assert cli("link", "red fever", "--limit=1", "--ranker-url", url).rows[1] == [
        "red fever", "NIL", "", "", "m/qwen3-reranker@2",
    ]  # fmt: skip


def test_a_ranker_that_is_down_is_noted_once_on_stderr(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOELX_RANKER_URL", "http://127.0.0.1:9")
    result = cli("link", "red fever", "blue cough", "--json")
    assert result.code == 0
    assert [line["best"]["candidate"]["concept_id"] for line in result.lines] == [
        "UMLS:C0000001",
        "UMLS:C0000002",
    ]
    assert [line["ranker"] for line in result.lines] == ["retrieval", "retrieval"]
    (note,) = result.err.splitlines()
    assert note.startswith("bioelx-mcp: the ranker did not answer, the retrieval order stands: ")
    assert "http://127.0.0.1:9" in note and note.endswith(result.lines[0]["degraded"])


def test_on_a_terminal_the_rows_stand_in_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = cli("link", "[red] fever", "緑の発疹").out
    assert "\t" not in out and "[red] fever" in out and "MADE:3" in out


def test_info_shows_the_card_of_the_index(cli: Cli, served: Path) -> None:
    card = json.loads(cli("info", "--json").out)
    assert (card["concepts"], card["aliases"], card["dense_index"]) == (3, 8, "exact")
    assert "probes" not in card
    lines = dict(
        line.split(maxsplit=1) for line in cli("info", "--index", str(served)).out.splitlines()
    )
    assert lines["index_id"] == card["index_id"]
    assert lines["languages"] == "de 3, en 3, es 1, ja 1"
    assert lines["sources"] == "made 8 (-)"
    assert lines["encoder"].endswith(card["encoder"]["checksum"][:12])
    assert lines["dense_index"] == "exact"
    assert "files" not in card and set(card["bytes"]) == {"encoder", "lexicon", "rows", "tables"}
    assert lines["size"].startswith(f"{sum(card['bytes'].values()) / 1e6:.1f} MB (encoder ")


def test_info_tells_how_a_large_index_is_searched(
    cli: Cli, tmp_path: Path, names_tsv: Path
) -> None:
    build_small(names_tsv, tmp_path / "index", index={"dense_index": "ivf_rq"})
    shown = cli("info", "--index", str(tmp_path / "index")).out
    assert "dense_index    ivf_rq, 6 bits, 1 of 1 partitions\n" in shown


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--language", "ja"], {"MADE:3"}),
        (["--language", "es", "--language", "ja"], {"UMLS:C0000001", "MADE:3"}),
        (["--prefix", "umls"], {"UMLS:C0000001", "UMLS:C0000002"}),
        (["--prefix", "umls", "--language", "es"], {"UMLS:C0000001"}),
        (["--vocabulary", "made", "--type", "sign"], {"MADE:3"}),
        (["--group", "DISO", "--type", "sign"], {"UMLS:C0000001", "MADE:3"}),
    ],
)
def test_search_and_link_are_confined_by_filters(
    cli: Cli, options: list[str], ids: set[str]
) -> None:
    found = cli("search", "fever", "--limit", "9", *options)
    assert {row[1] for row in found.rows[1:]} == ids
    linked = cli("link", "fever", "--json", *options).lines[0]
    assert {one["candidate"]["concept_id"] for one in linked["candidates"]} == ids


def test_a_filter_that_leaves_nothing_is_a_usage_error(cli: Cli) -> None:
    fails(cli("search", "fever", "--vocabulary", "mad"), 2, "vocabularies", "did you mean made?")


def test_a_table_becomes_an_index_that_answers(cli: Cli, tmp_path: Path, names_tsv: Path) -> None:
    out = tmp_path / "new"
    result = cli(
        *("build-index", "--source", f"table={names_tsv}", "--out", str(out)),
        *("--name", "mine", "--encoder", "starter"),
    )
    assert result.code == 0
    (index_id, concepts, aliases), = result.rows  # fmt: skip
    assert index_id.startswith("mine-") and (concepts, aliases) == ("3 concepts", "8 aliases")
    assert json.loads(cli("info", "--json", "--index", str(out)).out)["index_id"] == index_id
    assert cli("search", "fiebre roja", "--index", str(out)).rows[1][1] == "UMLS:C0000001"


@pytest.mark.parametrize("client", ["claude-desktop", "claude-code", "cursor", "vscode", "codex"])
def test_the_configuration_of_a_client_starts_this_server_with_the_index(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setenv("PATH", str(Path(SCRIPT).parent))
    index = tmp_path / "my 'índex' 🩺"
    result = cli("mcp-config", "--client", client, "--index", str(index))
    assert result.code == 0 and result.err == ""
    arguments = ["serve", "--index", str(index)]
    if client == "claude-code":
        expected = ["claude", "mcp", "add", "bioelx-mcp", "--", SCRIPT, *arguments]
        assert shlex.split(result.out) == expected
    elif client == "codex":
        servers = tomllib.loads(result.out)["mcp_servers"]
        assert servers == {"bioelx-mcp": {"command": SCRIPT, "args": arguments}}
    else:
        entry: dict[str, Any] = {"command": SCRIPT, "args": arguments}
        key = "mcpServers"
        if client == "vscode":
            key, entry = "servers", {"type": "stdio", **entry}
        assert json.loads(result.out) == {key: {"bioelx-mcp": entry}}
    assert "--index" not in cli("mcp-config", "--client", client).out


def test_an_evaluation_is_printed_and_written_as_json(cli: Cli, tmp_path: Path) -> None:
    dataset, out = tmp_path / "de_query.txt", tmp_path / "result.json"
    dataset.write_text(
        "C0000001||rotes Fieber\nC0000002|C7||blauer Husten\nC0000009||nichts\n", "utf-8"
    )
    result = cli("evaluate", "xlbel", str(dataset), "--out", str(out))
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("xlbel, 3 queries, protocol distinct, index small-")
    row = "3 | 2 | 100.0 / 66.7 | 100.0 / 66.7 | 100.0 / 66.7 | 100.0 / 66.7 | 1.000 | 100.0 to 100.0 |"
    assert f"| de | {row}\n| average | {row}\n" in result.out
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["dataset"]["name"] == "xlbel"
    assert written["average"]["covered_recall@1"] == 100.0
    rows = (tmp_path / "result.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["rank"] for row in rows] == [1, 1, None]
    (tmp_path / "file").touch()
    for name, part in (("x", "ends in .json"), ("file/x.json", "cannot be written")):
        fails(cli("evaluate", "xlbel", str(dataset), "--out", str(tmp_path / name)), 2, part)


def test_an_evaluation_that_covers_nothing_writes_no_nan(cli: Cli, tmp_path: Path) -> None:
    dataset, out = tmp_path / "de.txt", tmp_path / "result.json"
    dataset.write_text("C0000009||nichts\n", "utf-8")
    assert cli("evaluate", "xlbel", str(dataset), "--out", str(out)).code == 0

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    average = json.loads(out.read_text(encoding="utf-8"), parse_constant=refuse)["average"]
    assert (average["covered_mrr"], average["all_recall@1"]) == (None, 0.0)


def test_the_installed_command_reads_and_writes_utf8_in_any_locale(served: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "BIOELX_INDEX": str(served)}
    command = [SCRIPT, "search", "--limit", "1"]
    given = "緑の発疹\nrotes Fieber\n".encode()
    done = subprocess.run(command, input=given, capture_output=True, env=environment, check=True)
    assert done.stderr == b""
    assert [line.split("\t")[:2] for line in done.stdout.decode().splitlines()[1:]] == [
        ["緑の発疹", "MADE:3"],
        ["rotes Fieber", "UMLS:C0000001"],
    ]
    bad = subprocess.run(command, input=b"\xff\n", capture_output=True, env=environment)
    assert (bad.returncode, bad.stdout) == (2, b"")
    assert bad.stderr.startswith(b"bioelx-mcp: stdin is not UTF-8: ")


def test_the_wikidata_query_asks_for_names_by_property_and_language(cli: Cli) -> None:
    result = cli("wikidata-query", "--property", "P486", "--language", "th", "--language", "de")
    assert (result.code, result.err) == (0, "")
    assert "wdt:P486" in result.out
    assert all(f'"{language}"' in result.out for language in ("th", "de"))
    assert cli("wikidata-query", "--property", "486").code == 2


def test_a_plan_tells_what_a_preset_fetches_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "open"
    result = cli("build-index", "--preset", "open", "--plan", "--out", str(out))
    assert (result.code, result.err) == (0, "")
    assert "hpo-translations" in result.out and "CC-BY-4.0" in result.out
    assert not out.exists()
    table = cli("build-index", "--source", "table=x.tsv", "--out", str(out), "--plan")
    assert table.out == "nothing is fetched\n"


def test_a_preset_takes_the_path_of_a_source_and_says_what_is_wrong(
    cli: Cli, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "out")]
    unknown = cli("build-index", "--preset", "closed", *out)
    assert (unknown.code, unknown.err) == (
        2,
        "bioelx-mcp: unknown preset 'closed'; there are: open, umls\n",
    )
    both = cli("build-index", "--preset", "open", "--config", "build.toml", *out)
    assert both.code == 2 and "one of them" in both.err
    given = [*out, "--source", f"umls={tmp_path / 'META'}", "--mirror", str(tmp_path)]
    missing = cli("build-index", "--preset", "umls", *given)
    assert missing.code == 2 and f"{tmp_path / 'META'}: no such file" in missing.err
