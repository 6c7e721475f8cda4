"""Files that are read whole: no longer than such a file may be, whoever wrote it."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20  # of a manifest, a configuration, a prompt, a result


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """What a file holds that is read whole.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than such a file may be.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is over {most >> 20} MiB long")
    return data


def read_small(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file that is read whole.

    Raises:
        OSError, ValueError: it cannot be read, or is not UTF-8; see `read_bytes`.
    """
    return read_bytes(path, most).decode()


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file that is read whole.

    Raises:
        OSError, ValueError: it cannot be read, or holds no JSON; see `read_small`.
    """
    return parse_json(read_small(path, most))


def parse_json(text: str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: it holds none, or one that is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
