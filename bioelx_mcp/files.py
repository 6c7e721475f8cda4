"""Files that are read whole: no longer than such a file may be, whoever wrote it."""

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20  # of a manifest, a configuration, a prompt, a result


def read_small(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file that is read whole.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than such a file may be, or not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is over {most >> 20} MiB long")
    return data.decode()


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file that is read whole.

    Raises:
        OSError, ValueError: it cannot be read, or holds no JSON; see `read_small`.
    """
    try:
        return json.loads(read_small(path, most))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
