"""Benchmarks of the field: one module a format, one registry."""

from pathlib import Path

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets.base import Dataset, Query, Reader, numbered_lines
from bioelx_mcp.evaluation.datasets.brat import read_brat
from bioelx_mcp.evaluation.datasets.mantra import read_mantra
from bioelx_mcp.evaluation.datasets.pubtator import read_pubtator
from bioelx_mcp.evaluation.datasets.records import read_bigbio, read_jsonl
from bioelx_mcp.evaluation.datasets.xlbel import read_wikimed_de, read_xlbel
from bioelx_mcp.language import wanted_language

__all__ = ["DATASETS", "Dataset", "Query", "read_dataset", "read_xlbel"]

DATASETS: dict[str, Reader] = {
    "xlbel": read_xlbel,
    "mantra": read_mantra,
    "pubtator": read_pubtator,
    "wikimed-de-bel": read_wikimed_de,
    "brat": read_brat,
    "bigbio": read_bigbio,
    "jsonl": read_jsonl,
}


def read_dataset(name: str, path: Path, *, language: str = "", ids: Path | None = None) -> Dataset:
    """A benchmark by its format, with remarks on what was left out or mended.

    Args:
        name: a key of DATASETS.
        path: its file or folder.
        language: BCP-47, for a corpus that does not say its language.
        ids: a file that lists the ids of the documents to read, one a line (MedMentions ST21pv and its splits).

    Raises:
        UsageError: unknown format or language, nothing to read, or a malformed file; the message names file and line.
    """
    reader = DATASETS.get(name)
    if reader is None:
        raise UsageError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    remarks: list[tuple[str, str]] = []
    found = reader(
        Path(path),
        wanted_language(language) if language else "",
        lambda where, reason: remarks.append((where, reason)),
    )
    queries = list(found)
    if ids is not None:
        wanted = {line.strip(): where for where, line in numbered_lines(ids) if line.strip()}
        remarks += [
            (query.where, "left out: its document is not listed")
            for query in queries
            if query.document not in wanted
        ]
        known = {query.document for query in queries}
        remarks += [
            (where, "left out: no annotation in this document")
            for document, where in wanted.items()
            if document not in known
        ]
        queries = [query for query in queries if query.document in wanted]
    if not queries:
        raise UsageError(f"{name}: {path} holds no query")
    return Dataset(name, Path(path), tuple(queries), tuple(remarks))
