"""The registry of source kinds: one module each; `open_source` makes one from its configuration."""

from importlib import import_module

from pydantic import ValidationError

from bioelx_mcp.errors import UsageError, problems
from index_builder.config import SourceConfig
from index_builder.sources.base import (
    RAW_ALIASES,
    RAW_CONCEPTS,
    Block,
    Rejected,
    Rows,
    Source,
)

# Kind -> module and class; a module is imported when a build names its kind.
REGISTRY: dict[str, tuple[str, str]] = {
    "mesh": ("mesh", "MeshSource"),
    "obo": ("obo", "OboSource"),
    "orphanet": ("orphanet", "OrphanetSource"),
    "sssom": ("sssom", "SssomSource"),
    "starter": ("starter", "StarterSource"),
    "table": ("table", "TableSource"),
    "translations": ("translations", "TranslationsSource"),
    "umls": ("umls", "UmlsSource"),
    "wikidata": ("wikidata", "WikidataSource"),
}

__all__ = [
    "RAW_ALIASES",
    "RAW_CONCEPTS",
    "REGISTRY",
    "Block",
    "Rejected",
    "Rows",
    "Source",
    "make_source",
    "open_source",
]


def open_source(config: SourceConfig) -> Source:
    """A checked source, ready to read.

    Raises:
        UsageError: the kind or an option is unknown, or the path is not there.
    """
    source = make_source(config)
    source.check()
    return source


def make_source(config: SourceConfig) -> Source:
    """A source whose path nobody has looked at, or that is known to be good.

    Raises:
        UsageError: the kind or an option is unknown.
    """
    if config.kind not in REGISTRY:
        raise UsageError(
            f"unknown source kind {config.kind!r}; known: {', '.join(sorted(REGISTRY))}"
        )
    assert config.path is not None, "what is to be fetched has a path by now"
    module, name = REGISTRY[config.kind]
    kind: type[Source] = getattr(import_module(f"{__name__}.{module}"), name)
    try:
        return kind(path=config.path, **config.options)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise UsageError(f"source {config.kind}={config.path}: {where}: {what}") from error
