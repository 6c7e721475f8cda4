"""What every benchmark becomes: queries, and remarks on what was left out of them or mended, each with its place.

A reader gives queries and calls `remark(where, reason)` for what it understands but cannot ask, or asks otherwise
than written; what it cannot understand is a UsageError that names file, line and reason.
"""

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Mention
from bioelx_mcp.semantic_types import semantic_group
from bioelx_mcp.text import has_surrogate, normalize_concept_id

Span = tuple[int, int]
Remark = Callable[[str, str], None]

NOT_THERE = "kept without its offset: the text there differs"
NO_ID = "left out: an annotation without an id"
NO_MENTION = "left out: a line that annotates no mention"
EMPTY = "left out: an annotation of no text"
MOST_LINE = 16 << 20  # characters; a document is one at most
MOST_WHOLE = 1 << 30  # bytes of a file that is parsed as a whole
_BETWEEN_IDS = re.compile(r"[|,;+]")
_NO_CONCEPT = {"", "-", "-1", "nil", "none", "null", "cuiless", "cui-less"}
_MESH = re.compile(r"[CD]\d{6}(?:\d{3})?")  # a CUI has seven digits


@dataclass(frozen=True, slots=True)
class Query:
    """One gold mention; any of the `gold` ids (CURIEs) is right, none at all means NIL. `where` is file and line.

    `spans` are the mention's (start, end) offsets in its context, several where it is discontinuous; its text is
    then that of the parts, joined by spaces. `group` is the semantic group or type that the corpus names.
    """

    mention: Mention
    gold: frozenset[str]
    language: str
    where: str
    group: str = ""
    document: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A benchmark as it was read. `remarks` are (where, reason) of what was left out or mended."""

    name: str
    path: Path
    queries: tuple[Query, ...]
    remarks: tuple[tuple[str, str], ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """How often each reason was given."""
        return dict(Counter(reason for _, reason in self.remarks).most_common())

    def first(self, reason: str) -> str:
        """Where a reason was given first."""
        return next(where for where, given in self.remarks if given == reason)

    @property
    def checksum(self) -> str:
        """SHA-256 over what is asked and what is right, wherever the files lie: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for query in self.queries:
            mention = query.mention
            asked = (mention.text, mention.context, mention.start, query.language)
            digest.update(json.dumps([*asked, sorted(query.gold)]).encode())
        return digest.hexdigest()[:16]


class Reader(Protocol):
    """Reads one format. `language` stands where the files name none."""

    def __call__(self, path: Path, language: str, remark: Remark) -> Iterable[Query]: ...


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line without its end) of a text file, plain or gzip.

    Raises:
        UsageError: it cannot be read, or a line is not UTF-8 or longer than any may be.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", errors="surrogateescape", newline="\n")
        ) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MOST_LINE), ""), 1):
                where = f"{path}:{number}"
                if len(line) == MOST_LINE:
                    raise malformed(
                        where, f"a line of {MOST_LINE >> 20} Mi characters and more", line
                    )
                if has_surrogate(line):
                    raise malformed(where, "not UTF-8", line)
                yield where, line.rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def malformed(where: str, reason: str, text: str = "") -> UsageError:
    """The error of a line that cannot be understood."""
    return UsageError(f"{where}: {reason}" + (f": {text.strip()[:80]!a}" if text.strip() else ""))


def files_of(path: Path, *patterns: str) -> list[Path]:
    """The files of these patterns in a folder and the folders in it, sorted; the path itself where it is a file.

    Raises:
        UsageError: there is none.
    """
    if path.is_file():
        return [path]
    found = sorted({file for pattern in patterns for file in path.rglob(pattern)})
    if not found:
        raise UsageError(f"{path} is no file, nor a folder with {' or '.join(patterns)}")
    return found


def parse_gold(where: str, text: str, vocabulary: str = "") -> frozenset[str]:
    """CURIEs of one or several ids (`|`, `,`, `;` or `+` between them); empty where the text says that none fits.

    A bare CUI is one of the UMLS, a bare `D003924` of MeSH; other bare ids are of the `vocabulary`.

    Raises:
        UsageError: a part is no id.
    """
    found = set()
    for part in map(str.strip, _BETWEEN_IDS.split(text)):
        if part.lower() in _NO_CONCEPT:
            continue
        mesh = f"MESH:{part}" if _MESH.fullmatch(part) else part
        curie = normalize_concept_id(mesh)
        if curie is None and vocabulary:
            curie = normalize_concept_id(f"{vocabulary}:{part}")
        if curie is None:
            raise malformed(where, "no concept id", part)
        found.add(curie)
    return frozenset(found)


def group_of(text: str) -> str:
    """The semantic group of a semantic type by name or TUI (`T047`, the first of several); other words as they are."""
    first = text.split(",")[0].strip()
    return semantic_group(first) or first


def make_query(
    text: str,
    context: str,
    spans: Iterable[Span],
    gold: frozenset[str],
    *,
    language: str,
    where: str,
    group: str,
    document: str,
    remark: Remark,
) -> Query | None:
    """A query whose mention stands at its spans; where the context says otherwise, it is kept without them."""
    given = tuple(spans)
    if not text.strip():
        remark(where, EMPTY)
        return None
    there = " ".join(context[start:end] for start, end in given)
    if given and " ".join(there.split()) != " ".join(text.split()):
        remark(where, NOT_THERE)
        given = ()
    start = given[0][0] if len(given) == 1 and there == text else None
    return Query(Mention(text, context, start), gold, language, where, group, document, given)
