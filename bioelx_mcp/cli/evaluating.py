"""Benchmarks: `evaluate`, `report`."""

from pathlib import Path
from typing import Annotated

import typer

from bioelx_mcp.cli.options import IndexOption, RankerOption, open_linker
from bioelx_mcp.console import progress_bar
from bioelx_mcp.errors import UsageError

app = typer.Typer()


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
    linker = open_linker(index, ranker_url)
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
