"""PubTator: MedMentions (full and ST21pv), BC5CDR, NCBI disease and the like."""

import re
from collections.abc import Iterator
from pathlib import Path

from bioelx_mcp.evaluation.datasets.base import (
    NO_MENTION,
    Query,
    Remark,
    Span,
    files_of,
    group_of,
    make_query,
    malformed,
    numbered_lines,
    parse_gold,
)

_TEXT = re.compile(r"([^|\t]+)\|([ta])\|(.*)")


def read_pubtator(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    """A file (plain or gzip) or a folder of them; offsets count title, one character, abstract.

    A composite mention whose parts are spelt out (seventh column) is one query a part, each with its own id.

    Raises:
        UsageError: nothing to read, or a line that is neither text, annotation, relation nor blank.
    """
    for file in files_of(path, "*pubtator*", "*.PubTator", "*.txt", "*.txt.gz"):
        yield from _read(file, language or "en", remark)


def _read(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    document = title = context = ""
    for where, line in numbered_lines(path):
        if text := _TEXT.fullmatch(line):
            if text[2] == "t":
                document, title = text[1].strip(), text[3]
                context = title
            elif text[1].strip() != document:
                raise malformed(where, f"the abstract of another document than {document!r}", line)
            else:
                context = f"{title}\n{text[3]}"
            continue
        cells = line.split("\t")
        if not line.strip():
            continue
        if cells[0].strip() != document:
            raise malformed(where, f"no line of the document {document!r}", line)
        if len(cells) == 4 or (len(cells) == 5 and not cells[1].isdecimal()):
            remark(where, NO_MENTION)  # a relation
            continue
        if len(cells) not in (5, 6, 7) or not (cells[1].isdecimal() and cells[2].isdecimal()):
            raise malformed(where, "not of the form PMID, START, END, text, TYPE, ID", line)
        mention, kind = cells[3], cells[4]
        ids = cells[5] if len(cells) > 5 else ""
        parts = cells[6].split("|") if len(cells) > 6 else []
        each = ids.split("|")
        span = (int(cells[1]), int(cells[2]))
        asked: list[tuple[str, str, list[Span]]] = [(mention, ids, [span])]
        if len(parts) == len(each) > 1:  # the parts are no text of the document: no offsets
            asked = [(part, one, []) for part, one in zip(parts, each, strict=True)]
        for name, gold, spans in asked:
            query = make_query(
                name,
                context,
                spans,
                parse_gold(where, gold),
                language=language,
                where=where,
                group=group_of(kind),
                document=document,
                remark=remark,
            )
            if query:
                yield query
