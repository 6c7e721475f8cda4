"""The demo: what it links, and what a reader sees of it."""

import pytest
from rich.console import Console

from bioelx_mcp.cli import main
from bioelx_mcp.demo import MENTIONS, demo_table, link_demo
from bioelx_mcp.linker import Linker


def shown(linker: Linker, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(demo_table(link_demo(linker)))
    return capture.get().splitlines()


def test_the_demo_links_fifteen_mentions_in_a_dozen_languages(linker: Linker) -> None:
    rankings = link_demo(linker)
    linked = {
        (language, text)
        for (language, text), ranking in zip(MENTIONS, rankings, strict=True)
        if ranking.best is not None
    }
    assert len(linked) >= 15 and len({language for language, _ in linked}) >= 12
    assert [ranking.mention.text for ranking in rankings] == [text for _, text in MENTIONS]
    best = {r.mention.text: r.best.candidate.concept_id for r in rankings if r.best}
    for mention in ("Herzinfarkt", "心肌梗塞"):
        assert best[mention] == "UMLS:C0027051"
    assert best["NIDDM"] == "UMLS:C0011860"


def test_a_row_shows_the_concept_and_the_alias_language_channel_and_score_that_led_there(
    linker: Linker,
) -> None:
    lines = shown(linker, 200)
    assert (
        lines[1].split() == "language mention concept id matched alias lang channel score".split()
    )
    assert len(lines) == len(MENTIONS) + 2
    for line, (language, text), ranking in zip(lines[2:], MENTIONS, link_demo(linker), strict=True):
        assert ranking.best is not None
        candidate = ranking.best.candidate
        assert line.startswith(language) and text in line
        for part in (candidate.concept_id, candidate.preferred_name, candidate.hit.alias):
            assert part in line
        score = f"{candidate.retrieval_score:.2f}"
        assert line.split()[-3:] == [candidate.hit.language, candidate.hit.channel, score]


def test_on_a_narrow_terminal_an_id_can_still_be_copied(linker: Linker) -> None:
    lines = shown(linker, 80)
    for ranking in link_demo(linker):
        assert ranking.best is not None
        assert any(ranking.best.candidate.concept_id in line.split() for line in lines)


def test_a_mention_without_a_concept_is_nil(linker: Linker) -> None:
    rankings = [linker.rank([(text, [])])[0] for _, text in MENTIONS]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(demo_table(rankings))
    assert capture.get().count("NIL") == len(MENTIONS)


def test_the_command_prints_the_table_and_what_to_do_next(
    linker: Linker,
    cache: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BIOELX_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["bioelx-mcp", "demo"])
    main()
    out, err = capsys.readouterr()
    assert err == ""
    assert all(text in out for _, text in MENTIONS)
    assert f"Index {linker.manifest.index_id}: {linker.manifest.concepts} concepts" in out
    for command in ("claude mcp add", "bioelx-mcp mcp-config", "bioelx-mcp build-index"):
        assert command in out
