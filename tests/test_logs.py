"""Log lines: one an event, in two forms, and never the text of a mention unless it is asked for."""

import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from callers import ask, complaint
from mcp import Client

from bioelx_mcp.linker import Linker
from bioelx_mcp.server import build_server
from bioelx_mcp.serving.logs import OURS, LineFormatter, set_up_logging
from bioelx_mcp.serving.observe import Call
from bioelx_mcp.settings import load_settings

SECRET = "mention-of-a-patient"


@pytest.fixture
def set_up() -> Iterator[Callable[..., None]]:
    """`set_up_logging`, undone afterwards."""
    root, ours = logging.getLogger(), logging.getLogger(OURS)
    before = (root.handlers[:], root.level, ours.level)
    root.handlers = []
    yield set_up_logging
    logging.captureWarnings(False)
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord(OURS, logging.INFO, "f.py", 1, message, None, None)
    made.fields = fields
    return made


def test_a_line_is_one_line_whatever_its_values_hold() -> None:
    made = record("a b", plain="x", spaced="x y", broken="x\ny=z", empty="", number=1.5)
    text = LineFormatter("text").format(made)
    assert "\n" not in text
    assert text.split(" ", 1)[1] == (
        'info "a b" plain=x spaced="x y" broken="x\\ny=z" empty="" number=1.5'
    )
    told = json.loads(LineFormatter("json").format(made))
    assert told["time"].endswith("+00:00") and told["level"] == "info"
    assert (told["event"], told["broken"], told["number"]) == ("a b", "x\ny=z", 1.5)
    assert "logger" not in told  # ours


def test_an_exception_is_told_by_type_and_place_alone_unless_texts_are_asked_for() -> None:
    made = record("crash")
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        made.exc_info = sys.exc_info()
    told = json.loads(LineFormatter("json").format(made))["exception"]
    assert SECRET not in told
    assert told.startswith("ValueError at ") and " from KeyError at " in told
    assert "test_logs.py:" in told
    assert f"ValueError: {SECRET}" in LineFormatter("text", texts=True).format(made)


@pytest.mark.anyio
@pytest.mark.parametrize("texts", [False, True])
async def test_requests_are_logged_with_counts_and_texts_only_where_asked_for(
    linker: Linker,
    starter_index: object,
    set_up: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    texts: bool,
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError(SECRET)

    calls: list[Call] = []
    settings = load_settings(index=starter_index, log_text=texts)
    async with Client(build_server(settings, meter=calls.append)) as client:
        set_up("json", texts=texts)
        await ask(client, "search_candidates", mentions=[SECRET, "NIDDM", ""], limit=2)
        await ask(client, "rank_candidates", items=[{"mention": "MI", "context": SECRET}])
        await complaint(client, "search_candidates", mentions=SECRET, limit=SECRET)
        with monkeypatch.context() as patch:
            patch.setattr(Linker, "search", crash)
            await complaint(client, "search_candidates", mentions=[SECRET])
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == "" and (SECRET in err) is texts
    told = [line for line in lines if line["event"] == "request" and line.get("tool")]
    assert [(one["tool"], one["outcome"]) for one in told] == [
        ("search_candidates", "ok"),
        ("rank_candidates", "ok"),
        ("search_candidates", "error"),
        ("search_candidates", "crash"),
    ]
    assert (told[0]["mentions"], told[0]["candidates"], told[0]["errors"]) == (3, 4, 1)
    assert (told[1]["items"], told[1]["nil"], told[1]["degraded"]) == (1, 0, 0)
    assert len({one["request"] for one in told}) == 4 and all(one["ms"] >= 0 for one in told)
    assert [call.outcome for call in calls if call.tool] == [one["outcome"] for one in told]
    assert ("arguments" in told[0]) is texts
    (crashed,) = [line for line in lines if "exception" in line]
    assert crashed["logger"].startswith("mcp.") and "RuntimeError" in crashed["exception"]


@pytest.mark.anyio
async def test_names_that_a_client_makes_up_are_not_logged(
    starter_index: object, set_up: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Call] = []
    server = build_server(load_settings(index=starter_index), meter=calls.append)
    async with Client(server, mode="legacy") as client:
        set_up("text")
        with pytest.raises(Exception, match="Unknown tool"):
            await client.call_tool(SECRET, {})
        with pytest.raises(Exception, match="resource"):
            await client.read_resource(f"x://{SECRET}")
    assert [(call.method, call.tool, call.outcome) for call in calls[-2:]] == [
        ("tools/call", "", "refused"),
        ("resources/read", "", "refused"),
    ]
    assert SECRET not in capsys.readouterr().err


def test_warnings_of_libraries_become_lines(
    set_up: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    set_up("json")
    logging.getLogger("py.warnings").warning("old %s", "news")
    logging.getLogger("some.library").info("nothing of interest")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["logger"], told["level"]) == ("old news", "py.warnings", "warning")
