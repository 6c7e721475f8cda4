"""Concepts as JSON lines, names grouped by language: the format of the starter knowledge base.

{"id": "UMLS:C0000000", "type": "...", "definition": "...", "names": {"en": ["preferred", "synonym"], ...}}
"""

import json
from collections.abc import Iterator
from pathlib import Path

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Alias, AliasKind, Concept
from index_builder.sources.base import Record, Rejects, Source


class StarterSource(Source):
    """One `.jsonl` file, or a directory of them."""

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.jsonl")) if self.path.is_dir() else [self.path]

    def read(self, rejects: Rejects) -> Iterator[Record]:
        for path in self.files:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        row = json.loads(line)
                        yield Concept(
                            concept_id=row["id"],
                            preferred_name=row["names"]["en"][0],
                            semantic_types=(row["type"],),
                            definition=row["definition"],
                        )
                    except (ValueError, KeyError, TypeError, IndexError) as error:
                        raise UsageError(
                            f"{path}:{number}: not a starter concept ({error!r})"
                        ) from error
                    for language, names in row["names"].items():
                        for position, name in enumerate(names):
                            kind: AliasKind = (
                                "synonym"
                                if position
                                else "preferred"
                                if language == "en"
                                else "translation"
                            )
                            yield Alias(row["id"], name, language, kind, self.label, self.license)
