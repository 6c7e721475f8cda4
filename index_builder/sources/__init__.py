"""The registry of source kinds: one module each; `open_source` makes one from its configuration."""

from pydantic import ValidationError

from bioelx_mcp.errors import UsageError, problems
from index_builder.config import SourceConfig
from index_builder.sources.base import Record, Rejects, Source
from index_builder.sources.obo import OboSource
from index_builder.sources.starter import StarterSource
from index_builder.sources.table import TableSource

REGISTRY: dict[str, type[Source]] = {
    "obo": OboSource,
    "starter": StarterSource,
    "table": TableSource,
}

__all__ = ["REGISTRY", "Record", "Rejects", "Source", "open_source"]


def open_source(config: SourceConfig) -> Source:
    """A checked source, ready to read.

    Raises:
        UsageError: the kind or an option is unknown, or the path is not there.
    """
    if config.kind not in REGISTRY:
        raise UsageError(
            f"unknown source kind {config.kind!r}; known: {', '.join(sorted(REGISTRY))}"
        )
    try:
        source = REGISTRY[config.kind](path=config.path, **config.options)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise UsageError(f"source {config.kind}={config.path}: {where}: {what}") from error
    source.check()
    return source
