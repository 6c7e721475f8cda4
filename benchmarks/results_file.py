"""What a benchmark measured, as JSON: shown, and kept where that is asked for."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tell(told: Mapping[str, Any], out: Path | None) -> None:
    """Write it to stdout, and to `out`."""
    text = json.dumps(told, indent=1) + "\n"
    sys.stdout.write(text)
    if out:
        out.write_text(text, encoding="utf-8")
