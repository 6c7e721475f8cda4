"""BioELX-MCP: biomedical entity linking in any language, from Python, the shell and MCP.

Names are imported when they are first used; importing the package itself costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bioelx_mcp.errors import (
        BioelxError,
        InvalidArtifactError,
        MissingArtifactError,
        MissingExtraError,
        RankerBackendError,
        UsageError,
    )
    from bioelx_mcp.linker import Linker
    from bioelx_mcp.schema import (
        Alias,
        AliasHit,
        Candidate,
        Concept,
        Filters,
        Mention,
        RankedCandidate,
        Ranking,
    )

try:
    __version__ = version("bioelx-mcp")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = [
    "Alias",
    "AliasHit",
    "BioelxError",
    "Candidate",
    "Concept",
    "Filters",
    "InvalidArtifactError",
    "Linker",
    "Mention",
    "MissingArtifactError",
    "MissingExtraError",
    "RankedCandidate",
    "RankerBackendError",
    "Ranking",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "linker" if name == "Linker" else "errors" if name.endswith("Error") else "schema"
    return getattr(import_module(f"bioelx_mcp.{home}"), name)
