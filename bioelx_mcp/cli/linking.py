"""Mentions to concepts from the shell: `demo`, `search`, `link`, `rank`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bioelx_mcp.cli.options import IndexOption, JsonOption, RankerOption, open_linker
from bioelx_mcp.console import echo_json, echo_table, read_mentions, warn_degraded

if TYPE_CHECKING:
    from bioelx_mcp.schema import Filters, Ranking

app = typer.Typer()

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


@app.command()
def demo() -> None:
    """Link mentions in a dozen languages with the starter index, and say why each was linked."""
    from rich.console import Console

    from bioelx_mcp.demo import demo_table, link_demo

    linker = open_linker(None)
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
    found = open_linker(index).search(given, limit, filters)
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
    rankings = open_linker(index, ranker_url).link(given, limit, filters)
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
    linker = open_linker(index, ranker_url)
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


def _filters(*values: Sequence[str] | None) -> "Filters":
    """Filters of the options, which stand in the order of its fields."""
    from bioelx_mcp.schema import Filters

    return Filters(*(tuple(asked or ()) for asked in values))


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
