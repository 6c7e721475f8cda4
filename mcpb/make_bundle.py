"""The folder that `mcpb pack` makes a Claude Desktop bundle of: manifest and sources, from which the host's uv installs.

python mcpb/make_bundle.py build/bundle
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("bioelx_mcp", "index_builder", "prompts")
FILES = ("pyproject.toml", "README.md", "LICENSE", "mcpb/manifest.json")


def main(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, out / Path(name).name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
