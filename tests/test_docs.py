"""The README says what the program does: commands, settings, exit status, examples that run."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from bioelx_mcp import errors
from bioelx_mcp.cli import app, main
from bioelx_mcp.linker import Linker
from bioelx_mcp.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_command_is_named() -> None:
    commands = set(typer.main.get_group(app).commands)
    assert len(commands) >= 14
    assert {name for name in commands if f"`{name}`" not in README} == set()


def test_every_setting_is_named_and_no_other() -> None:
    settings = {f"BIOELX_{name.upper()}" for name in Settings.model_fields} | {"BIOELX_CONFIG"}
    assert set(re.findall(r"\bBIOELX_[A-Z_]+\b", README)) == settings


def test_every_exit_status_is_named() -> None:
    codes = {kind.exit_code for kind in errors.BioelxError.__subclasses__()}
    (told,) = re.findall(r"^Exit status: (.*)$", README, re.MULTILINE)
    assert codes <= {int(code) for code in re.findall(r"\b\d+\b", told)}


def test_the_tools_are_named() -> None:
    assert all(
        f"`{tool}`" in README for tool in ("search_candidates", "rank_candidates", "get_concepts")
    )


def test_python_examples_that_say_so_run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    examples = [block for block in blocks("python") if block.startswith("# runs")]
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})


def test_the_first_transcript_is_what_the_command_prints(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    (shown,) = [block for block in blocks("console") if block.startswith("$ bioelx-mcp link ")]
    command, expected = shown.split("\n", 1)
    monkeypatch.setattr("sys.argv", shlex.split(command.removeprefix("$ ")))
    main()
    assert capsys.readouterr().out == expected


def test_the_size_of_the_starter_index_is_told_right(linker: Linker) -> None:
    manifest = linker.manifest
    size = f"{manifest.concepts} concepts that clinicians and biologists meet daily, {manifest.aliases:,} names in "
    assert f"{size}{len(manifest.languages)} languages" in " ".join(README.split())
