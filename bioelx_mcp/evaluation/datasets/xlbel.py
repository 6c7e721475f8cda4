"""XL-BEL (Liu et al., ACL 2021), and WikiMed-DE-BEL, whose files have the same lines."""

import re
from collections.abc import Iterator
from pathlib import Path

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets.base import Query, Remark, malformed, numbered_lines
from bioelx_mcp.schema import Mention
from bioelx_mcp.text import normalize_concept_id

_TARGET = re.compile(r"<tgt>(.*?)</tgt>", re.DOTALL)
_LOCAL_ID = re.compile(r"\S*\d\S*")
ALL_AGAIN = "left out: a file of all languages beside those of each"


def _silent(where: str, reason: str) -> None:
    """Say nothing."""


def read_xlbel(path: Path, language: str = "", remark: Remark = _silent) -> list[Query]:
    """A file, or a folder of files named by language (`de_..._query.txt`).

    A line is `CUI[|CUI]||mention` (v0.0) or `CUI[|CUI]||mention||context with <tgt>mention</tgt>` (v1.0).

    Raises:
        UsageError: nothing to read, or a line that is not of this form; the message names file and line.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError(f"XL-BEL: {path} is no .txt file, nor a folder of them")
    for file in files:
        if len(files) > 1 and _language(file) == "all":
            remark(str(file), ALL_AGAIN)
            files = [other for other in files if other != file]
    queries = [query for file in files for query in _read(file, language or _language(file))]
    if not queries:
        raise UsageError(f"XL-BEL: {path} holds no query")
    return queries


def read_wikimed_de(path: Path, language: str, remark: Remark) -> list[Query]:
    """WikiMed-DE-BEL: the lines of XL-BEL, German."""
    return read_xlbel(path, language or "de", remark)


def _language(path: Path) -> str:
    return re.split(r"[^A-Za-z]", path.name)[0].lower()


def _read(path: Path, language: str) -> Iterator[Query]:
    for where, line in numbered_lines(path):
        if not line.strip():
            continue
        fields = line.split("||", 2)
        gold = [_gold_id(part) for part in fields[0].split("|")]
        if len(fields) < 2 or None in gold or not fields[1].strip():
            raise malformed(where, "not of the form CUI[|CUI]||mention[||context]", line)
        context, start = _context(fields[2]) if len(fields) > 2 else ("", None)
        yield Query(
            Mention(fields[1], context, start),
            frozenset(filter(None, gold)),
            language,
            where,
            spans=() if start is None else ((start, start + len(fields[1])),),
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
