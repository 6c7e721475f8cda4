"""Mantra GSC (Kors et al., JAMIA 2015) as brat folders or as its XML files: EMEA, Patent, Medline."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import ParseError, iterparse

from bioelx_mcp.evaluation.datasets.base import (
    MOST_WHOLE,
    Query,
    Remark,
    files_of,
    make_query,
    malformed,
    parse_gold,
)
from bioelx_mcp.evaluation.datasets.brat import read_brat, same_span_once

_NAMED = re.compile(r"_GSC_([a-z]{2})_")


def read_mantra(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    """One query a span; a span with several CUIs has several gold ids.

    Raises:
        UsageError: nothing to read, or a file that cannot be understood.
    """
    files = files_of(path, "*.xml", "*.ann")
    marked = [file for file in files if file.suffix == ".xml"]
    found: Iterator[Query] = (query for file in marked for query in _read(file, language, remark))
    yield from same_span_once(found if marked else read_brat(path, language, remark))


def _read(path: Path, language: str, remark: Remark) -> Iterator[Query]:
    if path.stat().st_size > MOST_WHOLE:
        raise malformed(str(path), f"over {MOST_WHOLE >> 30} GiB long")
    data = path.read_bytes()
    if any("<!ENTITY".encode(code) in data for code in ("ascii", "utf-16-le", "utf-16-be")):
        raise malformed(str(path), "a file that declares entities is not read")
    named = _NAMED.search(path.name)
    text = unit = ""
    number = 0
    try:
        for event, element in iterparse(path, events=("start", "end")):  # noqa: S314 - no entities
            if event == "start":
                if element.tag == "Corpus":
                    language = language or element.get("lang") or (named[1] if named else "")
                elif element.tag == "unit":
                    unit, text = element.get("id") or "", ""
            elif element.tag == "text":
                text = element.text or ""
            elif element.tag == "e":
                number += 1
                where = f"{path}: annotation {number} ({element.get('id') or unit})"
                offset, length = element.get("offset") or "", element.get("len") or ""
                if not offset.isdecimal() or not length.isdecimal():
                    raise malformed(where, "no offset and len", f"{offset} {length}")
                query = make_query(
                    element.text or "",
                    text,
                    [(int(offset), int(offset) + int(length))],
                    parse_gold(where, element.get("cui") or ""),
                    language=language,
                    where=where,
                    group=element.get("grp") or "",
                    document=f"{path.stem}#{unit}",
                    remark=remark,
                )
                if query:
                    yield query
            elif element.tag == "unit":
                element.clear()
    except ParseError as error:
        raise malformed(f"{path}:{error.position[0]}", f"no XML ({error})") from error
