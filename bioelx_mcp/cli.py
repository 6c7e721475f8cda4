"""The command `bioelx-mcp`. Results go to stdout, everything else to stderr; errors are one line.

Exit status: 0 done, 1 internal error, 2 usage or bad input, 3 missing extra, 4 missing artifact,
5 invalid artifact, 6 ranker backend.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioelx_mcp import __version__
from bioelx_mcp.clients import Client, client_block
from bioelx_mcp.console import (
    echo_json,
    echo_table,
    read_mentions,
    show_progress,
    visible,
    visible_line,
    warn_degraded,
)
from bioelx_mcp.errors import BioelxError, UsageError
from bioelx_mcp.index_cli import app as index_app
from bioelx_mcp.index_cli import index_card, render_card
from bioelx_mcp.settings import load_settings

if TYPE_CHECKING:
    from bioelx_mcp.linker import Linker
    from bioelx_mcp.schema import Filters, Ranking

app = typer.Typer(
    help="Biomedical entity linking in any language.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(index_app, name="index")

IndexOption = Annotated[
    Path | None,
    typer.Option("--index", help="Index directory; the starter index if not given. [BIOELX_INDEX]"),
]
RankerOption = Annotated[
    str | None, typer.Option("--ranker-url", help="vLLM server that ranks. [BIOELX_RANKER_URL]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]
LanguageOption = Annotated[
    list[str] | None, typer.Option("--language", help="Only aliases of this language; repeatable.")
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only concepts of this semantic type (name or TUI); repeatable."),
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group", help="Only concepts of this semantic group, as DISO; repeatable."),
]
VocabularyOption = Annotated[
    list[str] | None, typer.Option("--vocabulary", help="Only aliases of this source; repeatable.")
]
PrefixOption = Annotated[
    list[str] | None,
    typer.Option("--prefix", help="Only concepts whose id begins so, as MONDO; repeatable."),
]
MentionArguments = Annotated[
    list[str] | None,
    typer.Argument(
        help="Mentions; without any, stdin: one a line, or JSON lines {mention, context, start}."
    ),
]


def main() -> None:
    """Run the command line; the process ends with the documented exit status."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):  # whatever a pipe or locale says: names are UTF-8
            stream.reconfigure(encoding="utf-8")
    try:
        if app(standalone_mode=False) == 130:  # typer's answer to Ctrl-C
            _fail("interrupted", 130)
    except BioelxError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as stop:  # typer's answer to a reader of stdout that left: 1
        sys.exit(141 if isinstance(stop.__context__, BrokenPipeError) else stop.code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(f"{error.format_message()} (see bioelx-mcp --help)", 2)
        raise


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bioelx-mcp: {visible_line(message)}\n")
    sys.exit(code)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Biomedical entity linking in any language."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _open(index: Path | None, ranker_url: str | None = None) -> "Linker":
    from bioelx_mcp.linker import Linker

    return Linker.from_settings(load_settings(index=index, ranker_url=ranker_url))


@app.command()
def demo() -> None:
    """Link mentions in a dozen languages with the starter index, and say why each was linked."""
    from rich.console import Console

    from bioelx_mcp.demo import demo_table, link_demo

    linker = _open(None)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 130)
    console.print(demo_table(link_demo(linker)))
    manifest = linker.manifest
    typer.echo(
        f"\nIndex {manifest.index_id}: {manifest.concepts} concepts, {manifest.aliases} aliases, "
        f"{len(manifest.languages)} languages, offline.\n\n"
        "Connect an agent:  claude mcp add bioelx-mcp -- bioelx-mcp serve\n"
        "Other clients:     bioelx-mcp mcp-config --client claude-desktop|cursor|vscode|codex\n"
        "Your own names:    bioelx-mcp build-index --source table=NAMES.tsv --out DIR --encoder starter"
    )


@app.command()
def serve(index: IndexOption = None, ranker_url: RankerOption = None) -> None:
    """Serve the MCP tools over stdio."""
    from bioelx_mcp.server import build_server

    build_server(load_settings(index=index, ranker_url=ranker_url), guard_stdout=True).run()


@app.command()
def search(
    mentions: MentionArguments = None,
    index: IndexOption = None,
    limit: Annotated[int, typer.Option(help="Candidates a mention.")] = 5,
    language: LanguageOption = None,
    type_: TypeOption = None,
    group: GroupOption = None,
    vocabulary: VocabularyOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find candidate concepts for mentions."""
    given = list(read_mentions(mentions))
    filters = _filters(language, type_, group, vocabulary, prefix)
    found = _open(index).search(given, limit, filters)
    if as_json:
        for mention, candidates in zip(given, found, strict=True):
            echo_json({"mention": mention.text, "candidates": [asdict(c) for c in candidates]})
        return
    header = ("mention", "id", "preferred name", "score", "matched alias", "lang", "channel")
    rows = [
        (
            m.text,
            c.concept_id,
            c.preferred_name,
            f"{c.retrieval_score:.3f}",
            c.hit.alias,
            c.hit.language,
            c.hit.channel,
        )
        for m, candidates in zip(given, found, strict=True)
        for c in candidates
    ]
    echo_table(header, rows)


@app.command()
def link(
    mentions: MentionArguments = None,
    context: Annotated[
        str, typer.Option(help="The text around the mentions given as arguments.")
    ] = "",
    index: IndexOption = None,
    ranker_url: RankerOption = None,
    limit: Annotated[int, typer.Option(help="Candidates that are ranked.")] = 10,
    language: LanguageOption = None,
    type_: TypeOption = None,
    group: GroupOption = None,
    vocabulary: VocabularyOption = None,
    prefix: PrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Link mentions: search, then rank; one answer each, or NIL."""
    given = list(read_mentions(mentions, context))
    filters = _filters(language, type_, group, vocabulary, prefix)
    rankings = _open(index, ranker_url).link(given, limit, filters)
    warn_degraded(rankings)
    if as_json:
        for ranking in rankings:
            echo_json(asdict(ranking))
        return
    echo_table(
        ("mention", "id", "preferred name", "score", "ranker"), [_link_row(r) for r in rankings]
    )


@app.command()
def rank(
    mention: Annotated[str, typer.Argument(help="The mention.")],
    candidate: Annotated[
        list[str] | None, typer.Option("--candidate", help="A concept id; searched if none.")
    ] = None,
    context: Annotated[str, typer.Option(help="The text around the mention.")] = "",
    index: IndexOption = None,
    ranker_url: RankerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Order the candidates of one mention by its context."""
    linker = _open(index, ranker_url)
    (given,) = read_mentions([mention], context)
    if candidate:
        ranking = linker.rank([(given, linker.candidates(mention, candidate))])[0]
    else:
        ranking = linker.link([given])[0]
    warn_degraded([ranking])
    if as_json:
        echo_json(asdict(ranking))
        return
    rows = [
        (
            "*" if ranked is ranking.best else "",
            ranked.candidate.concept_id,
            ranked.candidate.preferred_name,
            "" if ranked.rank_score is None else f"{ranked.rank_score:.3f}",
            f"{ranked.candidate.retrieval_score:.3f}",
        )
        for ranked in ranking.candidates
    ]
    echo_table(("best", "id", "preferred name", "rank score", "retrieval score"), rows)


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


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help="Format of the benchmark: xlbel.")],
    path: Annotated[Path, typer.Argument(help="Its file or folder.")],
    index: IndexOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON, too.")] = None,
) -> None:
    """Measure retrieval on a benchmark: recall@1/5/10/64 by language, on covered queries / on all."""
    from bioelx_mcp.evaluation.datasets import DATASETS
    from bioelx_mcp.evaluation.run import evaluate_retrieval, render_table

    if dataset not in DATASETS:
        raise UsageError(f"unknown dataset {dataset!r}; known: {', '.join(sorted(DATASETS))}")
    queries = DATASETS[dataset](path)
    result = {
        "dataset": dataset,
        **evaluate_retrieval(_open(index), queries, progress=show_progress),
    }
    typer.echo(
        f"{dataset}, {len(queries)} queries, index {result['index']}; recall in percent, covered / all\n"
    )
    typer.echo(render_table(result))
    typer.echo(f"\n{result['mentions_per_second']:.0f} mentions a second on {result['hardware']}")
    if out is not None:
        try:
            finite = json.loads(json.dumps(result), parse_constant=lambda _: None)  # no NaN in JSON
            out.write_text(
                json.dumps(finite, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise UsageError(f"--out {out}: {error}") from error


@app.command()
def info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds: counts, languages, sources, licences, encoder, how it is searched, sizes."""
    manifest = _open(index).manifest
    if as_json:
        echo_json(index_card(manifest))
        return
    for line in render_card(manifest):
        typer.echo(visible(line))


@app.command("mcp-config")
def mcp_config(
    client: Annotated[Client, typer.Option(help="The agent client.")] = Client.claude_desktop,
    index: IndexOption = None,
) -> None:
    """Print the block that connects an agent client to this server."""
    import shutil

    command = shutil.which("bioelx-mcp") or "bioelx-mcp"
    arguments = ["serve", *(["--index", str(index.resolve())] if index else [])]
    typer.echo(client_block(client, command, arguments))


def _filters(*values: Sequence[str] | None) -> "Filters":
    """Filters of the options, which stand in the order of its fields."""
    from bioelx_mcp.schema import Filters

    return Filters(*(tuple(asked or ()) for asked in values))


def _source(text: str) -> dict[str, str]:
    kind, separator, path = text.partition("=")
    if not separator or not path:
        raise UsageError(f"--source {text}: not of the form KIND=PATH")
    return {"kind": kind, "path": path}


def _link_row(ranking: "Ranking") -> tuple[str, ...]:
    if ranking.best is None:
        return (ranking.mention.text, "NIL", "", "", ranking.ranker)
    candidate, rank_score = ranking.best.candidate, ranking.best.rank_score
    score = candidate.retrieval_score if rank_score is None else rank_score
    return (
        ranking.mention.text,
        candidate.concept_id,
        candidate.preferred_name,
        f"{score:.3f}",
        ranking.ranker,
    )
