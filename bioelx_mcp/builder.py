"""The one door from the reader to `index_builder`, opened only when something is to be built."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bioelx_mcp.errors import MissingExtraError, UsageError
from bioelx_mcp.settings import load_settings


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


def read_build_config(path: Path | None, preset: str | None = None, **overrides: Any) -> Any:
    """The BuildConfig of a file or of a preset that ships, or of options alone where there is neither."""
    config = import_module("index_builder.config")
    if path is not None and preset is not None:
        raise UsageError(f"--preset {preset} and --config {path}: one of them")
    if preset is not None:
        build = config.BuildConfig.read(config.preset_path(preset), Path.cwd(), **overrides)
    elif path is not None:
        build = config.BuildConfig.read(path, **overrides)
    else:
        given = {key: value for key, value in overrides.items() if value is not None}
        build = config.BuildConfig.parse(given, "options")
    if build.downloads is None:
        build = build.model_copy(update={"downloads": load_settings().cache / "downloads"})
    return build


def plan_downloads(config: Any) -> str:
    """What a build would fetch, from where and under which licences, as a table; empty for nothing."""
    plan: str = import_module("index_builder.pipeline").render_downloads(config)
    return plan


def wikidata_query(prop: str, languages: Sequence[str]) -> str:
    """The SPARQL query whose answer the `wikidata` source reads."""
    query: str = import_module("index_builder.sources.formats.sparql").sparql_query(prop, languages)
    return query


def ensure_starter_index(cache: Path) -> Path:
    """The directory of the starter index below `cache`; made first if this version's is not there."""
    directory: Path = import_module("index_builder.starter").ensure_starter_index(cache)
    return directory
