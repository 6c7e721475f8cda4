"""`bioelx-mcp index`: the generations of an index directory; and what `bioelx-mcp info` shows of the one in service."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bioelx_mcp.builder import ensure_starter_index
from bioelx_mcp.cli.options import IndexOption, JsonOption, open_linker
from bioelx_mcp.console import echo_json, echo_table
from bioelx_mcp.errors import UsageError
from bioelx_mcp.location import S3Url, parse_location
from bioelx_mcp.settings import load_settings
from bioelx_mcp.text import visible

if TYPE_CHECKING:  # the command line starts without pyarrow
    from bioelx_mcp.manifest import IndexLayout, Manifest

app = typer.Typer(help="Generations of an index: list, restore, publish.", no_args_is_help=True)

cards = typer.Typer()


def _layout(index: str | None) -> "IndexLayout":
    from bioelx_mcp.manifest import IndexLayout

    settings = load_settings(index=index)
    if isinstance(settings.index, S3Url):
        raise UsageError(
            f"{settings.index} is read-only: change the directory that it was published from, then publish that again"
        )
    return IndexLayout(settings.index or ensure_starter_index(settings.cache))


@app.command()
def versions(
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the generations on disk, newest first; the one in service is marked."""
    from bioelx_mcp.generations import list_generations
    from bioelx_mcp.manifest import read_manifest

    layout = _layout(index)
    served = read_manifest(layout).index_id
    generations = list_generations(layout)
    if as_json:
        for manifest in generations:
            echo_json({**index_card(manifest), "served": manifest.index_id == served})
        return
    rows = [
        (
            "*" if manifest.index_id == served else "",
            manifest.index_id,
            manifest.created[:19],
            f"{manifest.concepts}",
            f"{manifest.aliases}",
            megabytes(sum(manifest.files.values())),
            ", ".join(source.name for source in manifest.sources),
        )
        for manifest in generations
    ]
    echo_table(("served", "id", "created", "concepts", "aliases", "size", "sources"), rows)


@app.command()
def rollback(
    index_id: Annotated[
        str | None,
        typer.Argument(help="A generation; the one before that in service if not given."),
    ] = None,
    index: IndexOption = None,
) -> None:
    """Put an older generation back into service; readers that are open stay with theirs."""
    from bioelx_mcp.generations import restore_generation

    manifest = restore_generation(_layout(index), index_id)
    typer.echo(f"{manifest.index_id}\t{manifest.concepts} concepts\t{manifest.aliases} aliases")


@app.command()
def publish(
    url: Annotated[str, typer.Argument(help="s3://BUCKET/PREFIX; the bucket is there already.")],
    index: IndexOption = None,
) -> None:
    """Copy the generation in service to object storage; files that are there already are not sent again."""
    target = parse_location(url)
    if not isinstance(target, S3Url):
        raise UsageError(f"an index is published to s3://BUCKET/PREFIX, not to {url!r}")
    from bioelx_mcp.remote import publish_index

    manifest = publish_index(_layout(index), target)
    typer.echo(f"{manifest.index_id}\t{target}")


@cards.command()
def info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds: counts, languages, sources, licences, encoder, how it is searched, sizes."""
    manifest = open_linker(index).manifest
    if as_json:
        echo_json(index_card(manifest))
        return
    for line in render_card(manifest):
        typer.echo(visible(line))


def index_card(manifest: "Manifest") -> dict[str, Any]:
    """What a manifest tells people; its files as bytes of each part."""
    card = manifest.card()
    sizes: Counter[str] = Counter()
    for name, size in manifest.files.items():
        sizes[name.partition("/")[0]] += size
    return {**card, "bytes": dict(sizes)}


def render_card(manifest: "Manifest") -> Iterator[str]:
    """The same as lines of text."""
    card = index_card(manifest)
    search = {key: card.pop(key) for key in ("bits", "partitions", "nprobes")}
    for key, value in card.items():
        if key == "languages":
            value = ", ".join(f"{language or 'und'} {count}" for language, count in value.items())
        elif key == "sources":
            value = "; ".join(
                f"{s['name']} {s['aliases']} ({', '.join(s['licenses']) or '-'})" for s in value
            )
        elif key == "encoder":
            value = f"{value['name']}, {value['dimension']} dimensions, {value['checksum'][:12]}"
        elif key == "dense_index" and search["partitions"]:
            value += ", {bits} bits, {nprobes} of {partitions} partitions".format_map(search)
        elif key == "bytes":
            key, parts = "size", ", ".join(f"{part} {megabytes(n)}" for part, n in value.items())
            value = f"{megabytes(sum(value.values()))} ({parts})"
        yield f"{key:<15}{value}"


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:.1f} MB"
