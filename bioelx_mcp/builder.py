"""The one door from the reader to `index_builder`, opened only when something is to be built."""

from importlib import import_module
from pathlib import Path
from typing import Any

from bioelx_mcp.errors import MissingExtraError


def build_index(config: Any) -> Any:
    """Run a build (`index_builder.pipeline.build_index`); the manifest of the new index comes back.

    Raises:
        MissingExtraError: the build trains an encoder, and torch is not installed.
    """
    try:
        return import_module("index_builder.pipeline").build_index(config)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this build needs {error.name}: pip install 'bioelx-mcp[build]', or reuse a trained encoder with --encoder"
        ) from error


def read_build_config(path: Path | None, **overrides: Any) -> Any:
    """The BuildConfig of a file, or of options alone where there is none."""
    config = import_module("index_builder.config").BuildConfig
    if path is not None:
        return config.read(path, **overrides)
    given = {key: value for key, value in overrides.items() if value is not None}
    return config.parse(given, "options")


def ensure_starter_index(cache: Path) -> Path:
    """The directory of the starter index below `cache`; made first if this version's is not there."""
    directory: Path = import_module("index_builder.starter").ensure_starter_index(cache)
    return directory
