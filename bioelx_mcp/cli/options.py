"""What several commands share: their options, and the Linker that these describe."""

from typing import TYPE_CHECKING, Annotated

import typer

from bioelx_mcp.settings import load_settings

if TYPE_CHECKING:  # the command line starts without pyarrow
    from bioelx_mcp.linker import Linker

IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="Index directory or s3://BUCKET/PREFIX; the starter index if not given. [BIOELX_INDEX]",
    ),
]
RankerOption = Annotated[
    str | None, typer.Option("--ranker-url", help="Model server that ranks. [BIOELX_RANKER_URL]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]


def open_linker(index: str | None, ranker_url: str | None = None) -> "Linker":
    from bioelx_mcp.linker import Linker

    return Linker.from_settings(load_settings(index=index, ranker_url=ranker_url))
