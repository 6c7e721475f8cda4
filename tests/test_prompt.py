"""Prompt files are checked when loaded; what is wrong is named by file and field."""

from pathlib import Path
from typing import Any

import pytest

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError
from bioelx_mcp.prompt import SHIPPED, Calibration, ListwisePrompt, PointwisePrompt, load_prompt

# Qwen3-Reranker's own chat format, from its model card.
PREFIX = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n",
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".',
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
KINDS: dict[str, Any] = {"qwen3-reranker": PointwisePrompt, "letters": ListwisePrompt}


def changed(tmp_path: Path, old: str, new: str, name: str = "qwen3-reranker") -> Path:
    """A copy of a shipped prompt with one thing changed."""
    text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_shipped_prompt_has_the_format_that_qwen3_reranker_was_trained_with() -> None:
    prompt = load_prompt("qwen3-reranker", PointwisePrompt)
    assert (prompt.prefix, prompt.system, prompt.suffix) == (*PREFIX, SUFFIX)
    assert prompt.query == "<Instruct>: {instruction}\n<Query>: {context}\n"
    assert prompt.label == "qwen3-reranker@2"
    assert load_prompt(str(SHIPPED / "qwen3-reranker.toml"), PointwisePrompt) == prompt


def test_every_shipped_prompt_loads_in_every_language_it_has() -> None:
    assert sorted(path.stem for path in SHIPPED.glob("*.toml")) == sorted(KINDS)
    for name, kind in KINDS.items():
        plain = load_prompt(name, kind)
        for language in plain.instructions:
            prompt = load_prompt(name, kind, language=language)
            assert all(mark in prompt.instruction for mark in prompt.marks)
            assert prompt.label == plain.label + (f"/{language}" if language != "en" else "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nil_threshold = 0.5", "", "nil_threshold: Field required"),
        ("nil_threshold = 0.5", "nil_threshold = 1.5", "nil_threshold: .*less than or equal"),
        ("version = 2", "version = 2\ncolour = 'red'", "colour: Extra inputs"),
        ('kind = "pointwise"', 'kind = "listwise"', "kind: .*pointwise"),
        ("temperature = 1.0", "temperature = 0.0", "temperature: .*greater than 0"),
        ("max_tokens = 4096", "max_tokens = 10", "max_tokens: .*greater than or equal"),
        ('marks = ["[[", "]]"]', 'marks = ["[["]', r"marks\.1: Field required"),
        ('labels = ["yes", "no"]', 'labels = ["yes"]', r"labels\.1: Field required"),
        ("{context}", "{contxt}", r"query: unknown placeholder \{contxt\}"),
        ("{context}", "", r"query: lacks the placeholder \{context\}"),
        ("{system}", "", r"prefix: unknown placeholder"),
        ("{name}", "{label}", r"document: unknown placeholder \{label\}"),
        ("{name}", "", r"document: lacks the placeholder \{name\}"),
        ("{name}", "{name}{options}", r"document: unknown placeholder \{options\}"),
        ("type: {types}", "type: {names}", r"types: unknown placeholder \{names\}"),
        ("version = 2", "version = ", "not a TOML file"),
        ("en = ", "english = ", "instructions: none in 'en'; there are de, english, es"),
        ("[instructions]", "[calibration.x]\ntemperature = 2\n\n[instructions]", r"calibration\.x\.nil_threshold: Field required"),
    ],
)  # fmt: skip
def test_a_prompt_file_that_is_wrong_is_refused_by_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    if old == "{system}":
        new = "{systm}"
    path = changed(tmp_path, old, new)
    with pytest.raises(InvalidArtifactError, match=f"^{path}: {message}"):
        load_prompt(str(path), PointwisePrompt)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{letter}. {name}", "{name}", r"option: lacks the placeholder \{letter\}"),
        ("{letter}. none", "none", r"none: lacks the placeholder \{letter\}"),
        ("{options}", "{name}", r"document: unknown placeholder \{name\}"),
        ("candidates = 8", "candidates = 9", "candidates: .*less than or equal to 8"),
        ("orders = 4", "orders = 1", "orders: .*greater than or equal to 2"),
    ],
)
def test_a_prompt_of_letters_is_checked_as_well(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = changed(tmp_path, old, new, "letters")
    with pytest.raises(InvalidArtifactError, match=f"^{path}: {message}"):
        load_prompt(str(path), ListwisePrompt)


@pytest.mark.parametrize("name", ["nope", "/nowhere/nope.toml"])
def test_a_prompt_that_is_not_there_is_missing_and_those_that_are_are_named(
    tmp_path: Path, name: str
) -> None:
    changed(tmp_path, "version = 2", "version = 3")
    message = f"no prompt '{name}'; there are letters, mine, qwen3-reranker"
    with pytest.raises(MissingArtifactError, match=message):
        load_prompt(name, PointwisePrompt, directory=tmp_path)


def test_a_directory_of_ones_own_goes_before_what_ships(tmp_path: Path) -> None:
    changed(tmp_path, 'id = "qwen3-reranker"', 'id = "mine"').rename(
        tmp_path / "qwen3-reranker.toml"
    )
    assert load_prompt("qwen3-reranker", PointwisePrompt, directory=tmp_path).id == "mine"
    assert load_prompt("letters", ListwisePrompt, directory=tmp_path).id == "letters"
    with pytest.raises(MissingArtifactError, match="no directory of prompts /nowhere"):
        load_prompt("letters", ListwisePrompt, directory=Path("/nowhere"))


def test_a_calibration_holds_for_its_model_wherever_it_is_served_from(tmp_path: Path) -> None:
    block = "[calibration.'Qwen/Qwen3-Reranker-4B']\ntemperature = 2.5\nnil_threshold = 0.3\n\n"
    path = changed(tmp_path, "[instructions]", f"{block}[instructions]")
    prompt = load_prompt(str(path), PointwisePrompt)
    fitted = Calibration(temperature=2.5, nil_threshold=0.3)
    assert prompt.calibrated("Qwen/Qwen3-Reranker-4B") == fitted
    assert prompt.calibrated("/models/qwen3-reranker-4b/") == fitted
    default = Calibration(temperature=1.0, nil_threshold=0.5)
    assert prompt.calibrated("Qwen/Qwen3-Reranker-8B") == default
