"""Benchmark files to queries: a mention in its context, its gold concept ids, its language."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Mention
from bioelx_mcp.text import has_surrogate, normalize_concept_id

_TARGET = re.compile(r"<tgt>(.*?)</tgt>", re.DOTALL)
_LOCAL_ID = re.compile(r"\S*\d\S*")


@dataclass(frozen=True, slots=True)
class Query:
    """One gold mention; any of the `gold` ids (CURIEs) is right. `where` is file and line."""

    mention: Mention
    gold: frozenset[str]
    language: str
    where: str


def read_xlbel(path: Path) -> list[Query]:
    """XL-BEL (Liu et al., ACL 2021): a file, or a folder of files named by language (`de_..._query.txt`).

    A line is `CUI[|CUI]||mention` (v0.0) or `CUI[|CUI]||mention||context with <tgt>mention</tgt>` (v1.0).

    Raises:
        UsageError: nothing to read, or a line that is not of this form; the message names file and line.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError(f"XL-BEL: {path} is no .txt file, nor a folder of them")
    queries = [query for file in files for query in _xlbel_file(file)]
    if not queries:
        raise UsageError(f"XL-BEL: {path} holds no query")
    return queries


def _xlbel_file(path: Path) -> Iterator[Query]:
    language = re.split(r"[^A-Za-z]", path.name)[0].lower()
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            fields = line.rstrip("\r\n").split("||", 2)
            gold = [_gold_id(part) for part in fields[0].split("|")]
            if len(fields) < 2 or None in gold or not fields[1].strip() or has_surrogate(line):
                raise UsageError(
                    f"{where}: not of the form CUI[|CUI]||mention[||context] in UTF-8: {line[:80]!a}"
                )
            context, start = _context(fields[2]) if len(fields) > 2 else ("", None)
            yield Query(
                Mention(fields[1], context, start), frozenset(filter(None, gold)), language, where
            )


def _gold_id(text: str) -> str | None:
    """A CURIE; any other word with a digit (real files hold `CL449350` and `90058`) is taken for an id of the UMLS."""
    if curie := normalize_concept_id(text):
        return curie
    return f"UMLS:{text}" if _LOCAL_ID.fullmatch(text) else None


def _context(marked: str) -> tuple[str, int | None]:
    """The context without its marks, and where the mention starts in it."""
    match = _TARGET.search(marked)
    if match is None:
        return marked, None
    return marked[: match.start()] + match[1] + marked[match.end() :], match.start()


DATASETS: dict[str, Callable[[Path], list[Query]]] = {"xlbel": read_xlbel}
