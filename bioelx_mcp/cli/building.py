"""Making an index: `build-index`, `wikidata-query`."""

from pathlib import Path
from typing import Annotated

import typer

from bioelx_mcp.errors import UsageError

app = typer.Typer()


@app.command("build-index")
def build_index(
    config: Annotated[
        Path | None, typer.Option(help="A build.toml; the options below override it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A build that ships: `open` (no licence to sign) or `umls`."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND=PATH, as in table=names.tsv, obo=doid.obo or umls=META; repeatable. "
            "Takes the place of the sources of its kind in a file or preset, or goes first."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the index.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the index, part of its id.")] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="A trained encoder, or `starter`: the one that ships. Skips training."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="Train from a hub name, a directory, or scratch:tiny|mini|small."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    max_rejected: Annotated[
        float | None,
        typer.Option(help="Share of a source's rows that may be bad before the build stops."),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(help="A directory that holds the public files: nothing is fetched."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Where to embed and materialise: `local`, or `ray`, a Ray cluster."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be fetched, and its licences.")
    ] = False,
) -> None:
    """Build an index from sources of names; a killed build resumes where it stopped."""
    from bioelx_mcp import builder

    training = {"base_model": base_model, "steps": steps}
    given = builder.read_build_config(
        config,
        preset,
        out=out,
        name=name,
        encoder=encoder,
        sources=[_source(text) for text in source] if source else None,
        train={key: value for key, value in training.items() if value is not None} or None,
        merge=None if max_rejected is None else {"max_rejected": max_rejected},
        mirror=mirror,
        engine=engine,
    )
    if plan:
        typer.echo(builder.plan_downloads(given) or "nothing is fetched")
        return
    manifest = builder.build_index(given)
    typer.echo(f"{manifest.index_id}\t{manifest.concepts} concepts\t{manifest.aliases} aliases")


@app.command("wikidata-query")
def wikidata_query(
    prop: Annotated[
        str, typer.Option("--property", help="The identifier an item must have; P2892: UMLS CUI.")
    ] = "P2892",
    language: Annotated[
        list[str] | None, typer.Option(help="A language of the names; repeatable.")
    ] = None,
) -> None:
    """Print the SPARQL query for a public Wikidata endpoint; `--source wikidata=ANSWER.tsv` reads its answer."""
    from bioelx_mcp import builder

    typer.echo(builder.wikidata_query(prop, language or ["en"]))


def _source(text: str) -> dict[str, str]:
    kind, separator, path = text.partition("=")
    if not separator or not path:
        raise UsageError(f"--source {text}: not of the form KIND=PATH")
    return {"kind": kind, "path": path}
