"""Log lines on stderr, one event a line: `text` (key=value) or `json`.

What an exception says may quote a mention, and clinical text is private: only its type and its place
are told, unless texts are asked for.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

OURS = "bioelx_mcp"


class LineFormatter(logging.Formatter):
    """A record as one line; its `fields` (given as `extra`) stand behind the event."""

    def __init__(self, form: Literal["text", "json"], *, texts: bool = False) -> None:
        super().__init__()
        self._form = form
        self._texts = texts

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        fields: dict[str, Any] = {**event, **getattr(record, "fields", {})}
        if record.name != OURS:
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = self._told(record.exc_info[1])
        if self._form == "json":
            return json.dumps(fields, default=str)
        first = " ".join(_plain(fields.pop(key)) for key in event)
        return " ".join([first, *(f"{key}={_plain(value)}" for key, value in fields.items())])

    def _told(self, error: BaseException) -> str:
        if self._texts:
            return "".join(traceback.format_exception(error))
        links: list[str] = []
        cause: BaseException | None = error
        while cause is not None and len(links) < 8:
            frames = traceback.extract_tb(cause.__traceback__)
            place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            links.append(f"{type(cause).__name__}{place}")
            cause = cause.__cause__ or cause.__context__
        return " from ".join(links)


def _plain(value: Any) -> str:
    """A value that ends neither its line nor, if it is empty or holds spaces, its field."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else json.dumps(text)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment, which whoever embeds a server may have put elsewhere."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None: ...


def set_up_logging(form: Literal["text", "json"] = "text", *, texts: bool = False) -> None:
    """Send the lines of this process to stderr: ours from `info`, those of libraries from `warning`."""
    handler = _Stderr()
    handler.setFormatter(LineFormatter(form, texts=texts))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.captureWarnings(True)
