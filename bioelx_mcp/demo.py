"""What `bioelx-mcp demo` links and shows: mentions in many languages, most of them no name of the starter index."""

from collections.abc import Sequence

from rich.table import Table

from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention, Ranking

# (language, mention): misspelt, inflected, abbreviated and lay ones among them
MENTIONS: Sequence[tuple[str, str]] = (
    ("German", "Herzinfarkt"),
    ("Thai", "ไซนัสอักเสบ"),
    ("English", "NIDDM"),
    ("Spanish", "infartos de miocardio"),
    ("French", "crise d'épilepsie"),
    ("Portuguese", "pressão arterial alta"),
    ("Italian", "mal di testa"),
    ("Dutch", "hoge bloeddruk"),
    ("Finnish", "keuhkokuumeen"),
    ("Russian", "воспаление лёгких"),
    ("Turkish", "tip 2 diyabetli"),
    ("Korean", "고혈압증"),
    ("Japanese", "しんきんこうそく"),
    ("Chinese", "心肌梗塞"),
    ("Chinese", "帕金森氏症"),
    ("German", "Acetylsalicylsäure 100 mg"),
    ("English", "diarhea"),
    ("Latin", "Mycobacterium tuberculosis"),
)


def link_demo(linker: Linker) -> list[Ranking]:
    return linker.link([Mention(text) for _, text in MENTIONS], limit=3)


def demo_table(rankings: Sequence[Ranking]) -> Table:
    """What was linked, and why."""
    table = Table(
        title="Mentions linked with the starter index",
        title_justify="left",
        pad_edge=False,
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in (
        "language",
        "mention",
        "concept",
        "id",
        "matched alias",
        "lang",
        "channel",
        "score",
    ):
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column in ("id", "lang", "channel"),  # an id is to be copied
            justify="right" if column == "score" else "left",
        )
    for (language, text), ranking in zip(MENTIONS, rankings, strict=True):
        if ranking.best is None:
            table.add_row(language, text, "NIL")
            continue
        candidate = ranking.best.candidate
        hit = candidate.hit
        score = f"{candidate.retrieval_score:.2f}"
        cells = (
            candidate.preferred_name,
            candidate.concept_id,
            hit.alias,
            hit.language,
            hit.channel,
            score,
        )
        table.add_row(language, text, *cells)
    return table
