"""The command `bioelx-mcp`. Results go to stdout, everything else to stderr; errors are one line.

Exit status: 0 done, 1 internal error, 2 usage or bad input, 3 missing extra, 4 missing artifact,
5 invalid artifact, 6 ranker backend.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bioelx_mcp import __version__
from bioelx_mcp.clients import Client, client_block
from bioelx_mcp.console import echo_json, echo_table, progress_bar, read_mentions, warn_degraded
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
    str | None, typer.Option("--ranker-url", help="Model server that ranks. [BIOELX_RANKER_URL]")
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
        status = app(standalone_mode=False)
        if status == 130:  # typer's answer to Ctrl-C
            _fail("interrupted", 130)
        if status:  # a command that ended so itself
            sys.exit(status)
    except BioelxError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as stop:  # typer's answer to a reader of stdout that left: 1
        sys.exit(141 if isinstance(stop.__context__, BrokenPipeError) else stop.code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(f"{error.format_message()} (see bioelx-mcp --help)", 2)
        raise


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bioelx-mcp: {' '.join(message.split())}\n")
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
def serve(
    index: IndexOption = None,
    ranker_url: RankerOption = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP instead of stdio.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Address for HTTP; 127.0.0.1 if not given. [BIOELX_HOST]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port for HTTP; 8765 if not given. [BIOELX_PORT]")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[:PORT] under which clients may call, needed for a --host that is not loopback; "
            "repeatable. [BIOELX_ALLOWED_HOSTS]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer over HTTP. [BIOELX_WORKERS]")
    ] = None,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Log mentions and contexts, too. [BIOELX_LOG_TEXT]")
    ] = False,
) -> None:
    """Serve the MCP tools over stdio, or over HTTP."""
    from bioelx_mcp.logs import set_up_logging

    settings = load_settings(
        index=index,
        ranker_url=ranker_url,
        host=host,
        port=port,
        allowed_hosts=allowed_host or None,
        workers=workers,
        log_text=log_text or None,
    )
    set_up_logging(settings.log_format, texts=settings.log_text)
    if http:
        from bioelx_mcp.http import serve_http

        serve_http(settings)
        return
    from bioelx_mcp.server import build_server

    build_server(settings, stdio=True).run()


@app.command("serve-ranker")
def serve_ranker(
    model: Annotated[
        str, typer.Argument(help="0.6B, 4B or 8B of Qwen3-Reranker, a hub name, or a directory.")
    ],
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    max_tokens: Annotated[int, typer.Option(help="The longest prompt, in tokens.")] = 8192,
    only_print: Annotated[
        bool, typer.Option("--print", help="Only print the command, for a machine that has a GPU.")
    ] = False,
) -> None:
    """Start a vLLM server with the options that ranking needs; other commands take its --ranker-url."""
    import shlex

    from bioelx_mcp.ranker_server import run_server, vllm_command

    command = vllm_command(model, port, max_tokens)
    if only_print:
        typer.echo(shlex.join(command))
        return
    run_server(command)


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
    dataset: Annotated[
        str,
        typer.Argument(
            help="Format of the benchmark: xlbel, mantra, pubtator, wikimed-de-bel, brat, bigbio or jsonl."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="Its file or folder.")],
    index: IndexOption = None,
    ranker_url: RankerOption = None,
    ranked: Annotated[
        int, typer.Option(help="Candidates that the ranker orders; 0: retrieval alone.")
    ] = 10,
    protocol: Annotated[
        str,
        typer.Option(
            help="`distinct` concepts, or `published`: names, as in the papers on XL-BEL and Mantra."
        ),
    ] = "distinct",
    language: Annotated[str, typer.Option(help="Of a corpus that does not say it; BCP-47.")] = "",
    ids: Annotated[
        Path | None, typer.Option(help="Only the documents whose ids this file lists, one a line.")
    ] = None,
    retired: Annotated[
        Path | None,
        typer.Option(help="MRCUI.RRF of a UMLS release: what retired gold CUIs became."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the result as JSON, and the predictions beside it as JSON lines; a killed run goes on."
        ),
    ] = None,
) -> None:
    """Measure retrieval and ranking on a benchmark: recall by language, on covered queries / on all."""
    from bioelx_mcp.evaluation.datasets import read_dataset
    from bioelx_mcp.evaluation.gold import read_retired
    from bioelx_mcp.evaluation.results import predictions_path, write_result
    from bioelx_mcp.evaluation.run import evaluate_linker, render_table

    if out is not None and out.suffix != ".json":
        raise UsageError(f"--out {out}: the name of a result ends in .json")
    read = read_dataset(dataset, path, language=language, ids=ids)
    for reason, count in read.reasons.items():
        typer.echo(f"bioelx-mcp: {count} {reason} (first: {read.first(reason)})", err=True)
    linker = _open(index, ranker_url)
    with progress_bar("mentions") as progress:
        result = evaluate_linker(
            linker,
            read,
            protocol=protocol,
            ranked=ranked if linker.ranks else 0,
            retired=read_retired(retired) if retired else None,
            predictions=predictions_path(out) if out else None,
            progress=progress,
        )
    system, speed = result["system"], result["speed"]
    typer.echo(
        f"{dataset}, {result['dataset']['queries']} queries, protocol {protocol}, index {system['index']}, "
        f"ranker {system['ranker'] or 'none'}; recall in percent, covered / all\n"
    )
    typer.echo(render_table(result))
    typer.echo(
        f"\n{speed['mentions_per_second']:.0f} mentions a second, one by one {speed['p50_ms']:.1f} ms "
        f"(median), on {result['machine']['processor']}, {result['machine']['cores']} cores"
    )
    if out is not None:
        write_result(out, result)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Results that `evaluate --out` wrote.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
) -> None:
    """Make one HTML page of results, with plots and an error browser; results on the same queries are compared."""
    from bioelx_mcp.evaluation.report import render_report
    from bioelx_mcp.evaluation.results import read_runs, render_comparison

    runs = read_runs(results)
    try:
        out.write_text(render_report(runs), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out}: {error}") from error
    if table := render_comparison(runs):
        typer.echo(table + "\n")
    typer.echo(f"{out}")


@app.command()
def info(index: IndexOption = None, as_json: JsonOption = False) -> None:
    """Show what an index holds: counts, languages, sources, licences, encoder, how it is searched, sizes."""
    manifest = _open(index).manifest
    if as_json:
        echo_json(index_card(manifest))
        return
    for line in render_card(manifest):
        typer.echo(line)


@app.command()
def doctor(
    index: IndexOption = None, ranker_url: RankerOption = None, as_json: JsonOption = False
) -> None:
    """Check versions, settings, index, encoder and ranker, and say what to do; exit status of what is broken."""
    from bioelx_mcp.doctor import examine, exit_code

    findings = list(examine(index=index, ranker_url=ranker_url))
    if as_json:
        for finding in findings:
            echo_json(asdict(finding))
    else:
        rows = [(each.check, each.state, each.seen, each.mend) for each in findings]
        echo_table(("check", "state", "seen", "what to do"), rows)
    raise typer.Exit(exit_code(findings))


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
