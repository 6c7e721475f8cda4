"""Settings: argument over environment over file over default, and errors that name the culprit."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bioelx_mcp.errors import UsageError
from bioelx_mcp.settings import load_settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, empty."""
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("BIOELX_CONFIG", str(path))
    return path


def test_defaults_need_no_file_and_no_variable() -> None:
    settings = load_settings()
    assert (settings.index, settings.ranker_url, settings.ranker_key) == (None, None, None)
    assert (settings.threads, settings.prompt) == (1, "qwen3-reranker")
    assert settings.cache.name == "bioelx-mcp"


def test_an_argument_beats_a_variable_beats_the_file_beats_the_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().threads == 1
    config.write_text('threads = 4\nindex = "/made/index"\n')
    assert load_settings().threads == 4
    monkeypatch.setenv("BIOELX_THREADS", "2")
    assert load_settings().threads == 2
    assert load_settings(threads=3).threads == 3
    assert load_settings(threads=None).threads == 2  # None: not given
    assert load_settings().index == Path("/made/index")


def test_an_empty_variable_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("threads = 4")
    monkeypatch.setenv("BIOELX_THREADS", "")
    assert load_settings().threads == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": -1}, r"setting threads \(BIOELX_THREADS\): .*greater than or equal to 0"),
        ({"ranker_timeout": 0}, "setting ranker_timeout .*greater than 0"),
        ({"colour": "red"}, "setting colour .*Extra inputs"),
        ({"prompt": 3}, "setting prompt .*string"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(**arguments)


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "many"), ("THREADS", "-1"), ("RANKER_TIMEOUT", "soon")]
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"BIOELX_{name}", value)
    with pytest.raises(UsageError, match=f"BIOELX_{name}"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"colour = 'red'", "setting colour .*Extra inputs"),
        (b"threads = 'many'", "setting threads .*integer"),
        (b"[ranker]\nurl = 'http://x'", "setting ranker .*Extra inputs"),
        (b"threads == 1", r"config\.toml cannot be read: .*line 1"),
        (b"\xff\xfe", r"config\.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_named(config: Path, text: bytes, message: str) -> None:
    config.write_bytes(text)
    with pytest.raises(UsageError, match=message):
        load_settings()


@pytest.mark.parametrize("key", ["made-secret\n", "made secret", "made-sécret"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(UsageError, match="BIOELX_RANKER_KEY") as caught:
        load_settings(ranker_key=key)
    assert "made" not in str(caught.value)


def test_the_key_is_not_shown_and_nothing_can_be_changed() -> None:
    settings = load_settings(ranker_key="made-secret")
    assert settings.ranker_key == "made-secret"
    assert "made-secret" not in repr(settings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.threads = 2  # type: ignore[misc]
