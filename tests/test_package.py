"""The package as a whole: light to import, its names kept true, its errors one tree."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import bioelx_mcp
from bioelx_mcp import errors

HEAVY = "numpy pyarrow lancedb onnxruntime torch transformers vllm mcp".split()


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    ["import bioelx_mcp", "from bioelx_mcp import Mention, BioelxError", "import bioelx_mcp.text"],
)
def test_importing_the_package_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]"


def test_importing_the_linker_leaves_what_trains_and_serves_models_alone() -> None:
    heavy = ["torch", "transformers", "vllm", "mcp", "index_builder"]
    code = "import sys; from bioelx_mcp import Linker; print([n for n in %s if n in sys.modules])"
    assert python(code % heavy) == "[]"


def test_public_names_are_sorted_and_importable() -> None:
    assert bioelx_mcp.__all__ == sorted(bioelx_mcp.__all__)
    for name in bioelx_mcp.__all__:
        value = getattr(bioelx_mcp, name)
        if name != "__version__":
            assert value.__name__ == name
            assert value.__doc__


def test_every_name_for_type_checkers_is_public_and_the_other_way_round() -> None:
    source = Path(bioelx_mcp.__file__).read_text(encoding="utf-8")
    block = source[source.index("if TYPE_CHECKING:") : source.index("try:")]
    named = set(re.findall(r"\b[A-Z]\w+", block.split("\n", 1)[1]))
    assert named | {"__version__"} == set(bioelx_mcp.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'bioelx_mcp' has no attribute 'Entity'"):
        bioelx_mcp.Entity  # noqa: B018


def test_the_version_is_that_of_the_installed_package() -> None:
    assert bioelx_mcp.__version__ == version("bioelx-mcp")


def test_the_exit_status_of_every_error_is_the_one_that_the_tree_shows() -> None:
    assert errors.__doc__ is not None
    drawn = {name: int(code) for name, code in re.findall(r"(\w+Error) +(\d)", errors.__doc__)}
    classes = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.BioelxError)
    }
    assert drawn == classes
    assert len(set(drawn.values())) == len(drawn) == 6
    assert set(drawn) <= set(bioelx_mcp.__all__)


def test_both_packages_say_that_they_are_typed() -> None:
    root = Path(bioelx_mcp.__file__).parents[1]
    assert (root / "bioelx_mcp" / "py.typed").is_file()
    assert (root / "index_builder" / "py.typed").is_file()
