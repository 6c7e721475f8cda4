"""How each error of the command line ends: one line, the documented exit status, nothing spoilt."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from callers import SCRIPT, Cli, fails

from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.linker import Linker
from bioelx_mcp.manifest import IndexLayout

LONG = "x" * 10_000


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "parts"),
    [
        (["nosuch"], "", 2, ["nosuch", "bioelx-mcp --help"]),
        (["search", "a", "--limit", "x"], "", 2, ["--limit"]),
        (["search", "a", "--limit", "0"], "", 2, ["limit is 0; it must lie within 1 and 1000"]),
        (["search", "a", "--limit", "1001"], "", 2, ["limit is 1001"]),
        (["search", ""], "", 2, ["the mention is empty"]),
        (["link", " "], "", 2, ["the mention is empty"]),
        (["rank", ""], "", 2, ["the mention is empty"]),
        (["rank", "", "--candidate", "MADE:3"], "", 2, ["the mention is empty"]),
        (["search", LONG], "", 2, ["has 10000 characters, at most 512"]),
        (["rank", LONG, "--candidate", "MADE:3"], "", 2, ["has 10000 characters, at most 512"]),
        (["search", "\udcff"], "", 2, ["no Unicode character"]),
        (["search"], "", 2, ["no mention on stdin"]),
        (["search"], "\n \n", 2, ["no mention on stdin"]),
        (["link"], 'a\n{"mention": 1}\n', 2, ["stdin:2: not of the form", '{"mention": 1}']),
        (["link"], "{]\n", 2, ["stdin:1: not of the form"]),
        (["link"], '{"context": "a"}\n', 2, ["stdin:1: not of the form"]),
        (["link"], '{"mention": "a", "contxt": "b"}\n', 2, ["stdin:1: not of the form"]),
        (["rank", "a", "--candidate", "NO:1"], "", 2, ["not in index small-", "NO:1"]),
        (["search", "a", "--index", "/no/index"], "", 4, ["/no/index", "bioelx-mcp build-index --out"]),
        (["info", "--index", "/no/index"], "", 4, ["no index in /no/index"]),
        (["evaluate", "nosuch", "x.txt"], "", 2, ["unknown dataset 'nosuch'; known: xlbel"]),
        (["evaluate", "xlbel", "/no/file"], "", 2, ["/no/file is no .txt file"]),
        (["mcp-config", "--client", "emacs"], "", 2, ["emacs"]),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_the_documented_exit_status(
    cli: Cli, arguments: list[str], stdin: str, code: int, parts: list[str]
) -> None:
    fails(cli(*arguments, stdin=stdin), code, *parts)


def test_a_terminal_that_gives_no_mention_is_asked_for_one(cli: Cli) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    fails(cli("search", stdin=Terminal()), 2, "no mention given: name some, or pipe them in")


@pytest.mark.parametrize(
    ("variable", "value", "code", "part"),
    [
        ("BIOELX_THREADS", "many", 2, "setting threads (BIOELX_THREADS)"),
        ("BIOELX_PROMPT", "nosuch", 4, "no prompt 'nosuch'; there are letters, qwen3-reranker"),
        ("BIOELX_INDEX", "/no/index", 4, "no index in /no/index"),
    ],
)
def test_a_wrong_setting_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int, part: str
) -> None:
    monkeypatch.setenv(variable, value)
    fails(cli("search", "a"), code, part)
    if code == 2:
        fails(cli("serve"), code, part)


def test_a_broken_manifest_is_an_invalid_artifact(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 1', encoding="utf-8")
    fails(cli("info", "--index", str(tmp_path)), 5, "manifest.json cannot be read", "build-index")


def tree(index: Path) -> dict[str, bytes]:
    layout = IndexLayout(index)
    files = [layout.manifest, *(p for p in layout.generations.rglob("*") if p.is_file())]
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("source", "text", "code", "parts"),
    [
        ("table=none.tsv", "", 2, ["none.tsv: no such file or directory"]),
        ("table=bad.tsv", "concept_id\tnaem\nMADE:1\tx\n", 2, ["needs a concept_id column", "naem"]),
        ("table=bad.tsv", "concept_id\tname\n", 2, ["no alias is left of", "bad.tsv"]),
        ("table=bad.tsv", "", 2, ["bad.tsv"]),
        ("table=bad.tsv", "concept_id\tname\nMADE:1\t...\n", 2, ["name without a letter or digit"]),
        ("wiki=bad.tsv", "x", 2, ["unknown source kind 'wiki'; known: mesh, obo, orphanet, sssom"]),
        ("bad.tsv", "x", 2, ["--source bad.tsv: not of the form KIND=PATH"]),
        ("table=", "x", 2, ["--source table=: not of the form KIND=PATH"]),
    ],
)  # fmt: skip
def test_a_build_that_fails_leaves_the_served_index_as_it_was(
    cli: Cli,
    served: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    text: str,
    code: int,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.tsv").write_text(text, encoding="utf-8")
    before = tree(served)
    command = ("build-index", "--source", source, "--out", str(served), "--encoder", "starter")
    fails(cli(*command), code, *parts)
    assert tree(served) == before
    assert cli("search", "red fever").rows[1][1] == "UMLS:C0000001"


def test_a_build_needs_a_source_and_a_place(cli: Cli, tmp_path: Path, names_tsv: Path) -> None:
    out = str(tmp_path / "new")
    source = ("--source", f"table={names_tsv}")
    fails(cli("build-index", *source, "--encoder", "starter"), 2, "out", "required")
    fails(cli("build-index", "--out", out, "--encoder", "starter"), 2, "sources", "required")
    missing = ("--encoder", str(tmp_path))
    fails(cli("build-index", *source, "--out", out, *missing), 4, "is no encoder")
    fails(cli("build-index", "--config", "no.toml", "--out", out), 2, "--config no.toml")
    file = ("--out", str(names_tsv))
    fails(cli("build-index", *source, *file, "--encoder", "starter"), 2, "cannot be written to")
    assert not Path(out).exists()


def test_training_without_torch_names_the_extra(
    cli: Cli, tmp_path: Path, names_tsv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("index_builder.")]:
        if name.rsplit(".", 1)[1] in ("export", "train", "pairs", "losses", "model"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = cli("build-index", "--source", f"table={names_tsv}", "--out", str(tmp_path / "new"))
    fails(result, 3, "needs torch: pip install 'bioelx-mcp[build]'", "--encoder")


@pytest.mark.parametrize(
    ("line", "part"),
    [(b"C0000001||ok\nno bars\n", ":2: not of the form"), (b"heart||x\n", ":1:"), (b"C0000001||\xff\n", "UTF-8"),
     (b"C0000001||ok\nC0000001|| ||x\n", ":2:"), (b"\n", "holds no query")],
)  # fmt: skip
def test_a_malformed_dataset_line_is_named(
    cli: Cli, tmp_path: Path, line: bytes, part: str
) -> None:
    dataset = tmp_path / "de.txt"
    dataset.write_bytes(line)
    fails(cli("evaluate", "xlbel", str(dataset)), 2, str(dataset), part)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [(KeyboardInterrupt(), 130, "interrupted"), (RankerBackendError("gone"), 6, "gone")],
)
def test_an_interrupt_and_a_backend_error_have_their_exit_status(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, part: str
) -> None:
    monkeypatch.setattr(Linker, "search", raising(error))
    fails(cli("search", "a"), code, part)


def test_an_error_nobody_foresaw_keeps_its_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Linker, "search", raising(RuntimeError("unforeseen")))
    with pytest.raises(RuntimeError, match="unforeseen"):
        cli("search", "a")


def test_a_reader_that_leaves_early_is_no_error(served: Path) -> None:
    command = [SCRIPT, "search", "--json", "--index", str(served), *["red fever"] * 400]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["mention"] == "red fever"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
