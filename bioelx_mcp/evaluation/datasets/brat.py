"""brat standoff: Mantra GSC, whose annotations are typed by CUI, and corpora with `N` lines, as BioNNE-L has them."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets.base import (
    NO_ID,
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
from bioelx_mcp.files import read_small

_CUI = re.compile(r"C\d{7}|CUI-?less", re.IGNORECASE)
_NOTE_GROUP = re.compile(r'"([A-Z]{4})"\s*$')  # ... ,"DISO"
_FOLDERS = {"dutch": "nl", "english": "en", "french": "fr", "german": "de", "spanish": "es"}


def read_brat(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    """A folder (with its folders) of .ann files beside their .txt, or one .ann file.

    The gold id is that of the `N` lines (`N1  Reference T1 UMLS:C0000001  name`), else the type itself where
    that is a CUI. Folders named `Spanish` and the like, or by a code, say the language.

    Raises:
        UsageError: nothing to read, a text is missing, or a line is no standoff annotation.
    """
    for file in files_of(path, "*.ann"):
        yield from _read(file, language or _language(file), remark)


def same_span_once(queries: Iterator[Query]) -> Iterator[Query]:
    """Annotations of the same span of a text as one query with several gold ids: Mantra says so of a doubtful mention."""
    kept: dict[tuple[str, object], Query] = {}
    for query in queries:
        place = (query.document, query.spans or query.where)
        known = kept.get(place)
        kept[place] = query if known is None else replace(known, gold=known.gold | query.gold)
    yield from kept.values()


def _language(path: Path) -> str:
    for folder in reversed(path.parts[:-1]):
        name = folder.lower()
        if name in _FOLDERS or name in _FOLDERS.values():
            return _FOLDERS.get(name, name)
    return ""


def _read(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    text = path.with_suffix(".txt")
    try:
        context = read_small(text)  # as it is: offsets count every character
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} lacks its text {text.name}: {error}") from error
    marks: dict[str, tuple[str, str, list[Span], str]] = {}
    ids: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, str] = {}
    nil: set[str] = set()
    for where, line in numbered_lines(path):
        if not line.strip():
            continue
        key, *cells = line.split("\t")
        key = key.strip()
        if key.startswith("T"):
            if len(cells) < 2:
                raise malformed(where, "not of the form T1<tab>TYPE START END<tab>text", line)
            kind, spans = _place(where, cells[0])
            marks[key] = (where, kind, spans, cells[1])
        elif key.startswith("N"):
            parts = cells[0].split() if cells else []
            if len(parts) != 3:
                raise malformed(where, "not of the form N1<tab>Reference T1 DB:ID", line)
            gold = parse_gold(where, parts[2].split(":", 1)[1] if _nil(parts[2]) else parts[2])
            ids[parts[1]] |= gold
            if not gold:
                nil.add(parts[1])
        elif key.startswith("#"):
            words = cells[0].split() if cells else []
            if len(words) > 1 and (found := _NOTE_GROUP.search(line)):
                groups[words[1]] = found[1]
        elif key[:1] in {"R", "E", "A", "M", "*"}:
            remark(where, NO_MENTION)
        else:
            raise malformed(where, "no line of brat", line)
    if missing := sorted((ids.keys() | nil) - marks.keys()):
        raise malformed(str(path), f"an id is given for {missing[0]}, which is not annotated")
    for key, (where, kind, spans, mention) in marks.items():
        gold = frozenset(ids[key])
        if not gold and key not in nil:
            if not _CUI.fullmatch(kind):
                remark(where, NO_ID)
                continue
            gold = parse_gold(where, kind)
        group = groups.get(key) or ("" if _CUI.fullmatch(kind) else group_of(kind))
        query = make_query(
            mention,
            context,
            spans,
            gold,
            language=language,
            where=where,
            group=group,
            document=str(path.with_suffix("")),
            remark=remark,
        )
        if query:
            yield query


def _nil(reference: str) -> bool:
    """Whether a reference names a vocabulary and no concept of it: `UMLS:CUILESS`."""
    _, colon, local = reference.partition(":")
    return (
        bool(colon) and re.fullmatch(r"CUI-?less|nil|none|-1|-", local, re.IGNORECASE) is not None
    )


def _place(where: str, text: str) -> tuple[str, list[Span]]:
    kind, _, offsets = text.partition(" ")
    spans = [tuple(part.split()) for part in offsets.split(";")]
    if not all(len(span) == 2 and span[0].isdecimal() and span[1].isdecimal() for span in spans):
        raise malformed(where, "no offsets", text)
    return kind, [(int(start), int(end)) for start, end in spans]
