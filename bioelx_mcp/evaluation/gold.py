"""Gold ids to concepts of an index: which concepts are right for an id, and by what the index knows so.

In this order, the first that finds any: the concept's id or an alternative id of it; the CUI that a retired one became
(MRCUI); the cross-references. A descriptor of MeSH groups several concepts, and whoever annotates with it means any of
them: where several concepts state a cross-reference, each is right, and the run counts such ids apart. Ids of the UMLS
are never taken through a cross-reference: which CUIs are one concept an index has decided.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from bioelx_mcp.evaluation.datasets.base import malformed, numbered_lines
from bioelx_mcp.index import AliasIndex

Basis = Literal["id", "retired", "xref", "shared xref", "none"]


class GoldMap:
    """Which rows of the concepts table are right for a gold id."""

    def __init__(
        self, index: AliasIndex, gold: Iterable[str], retired: Mapping[str, str] | None = None
    ) -> None:
        """Look up ids.

        Args:
            index: where.
            gold: the ids, as CURIEs.
            retired: retired CUIs and what they became; see `read_retired`.
        """
        wanted = set(gold)
        became = {one: new for one in wanted if (new := _latest(one, retired or {})) != one}
        asked = wanted | set(became.values())
        self._same = _owners(index.concepts, asked, "concept_id", "alt_ids")
        crossed = _owners(index.concepts, wanted, "xrefs")
        self.basis: dict[str, Basis] = {}
        self._right: dict[str, frozenset[int]] = {}
        for one in wanted:
            self.basis[one], self._right[one] = self._find(one, became.get(one, one), crossed)

    def right(self, gold: Iterable[str]) -> frozenset[int]:
        """The rows of the concepts that are right where any of these ids is; empty where the index has none."""
        return frozenset().union(*(self._right[one] for one in gold))

    def _find(
        self, one: str, new: str, crossed: Mapping[str, set[int]]
    ) -> tuple[Basis, frozenset[int]]:
        if known := self._same.get(one):
            return "id", frozenset(known)
        if known := self._same.get(new):
            return "retired", frozenset(known)
        owners = crossed.get(one, set())
        if one.startswith("UMLS:") or not owners:
            return "none", frozenset()
        return ("xref" if len(owners) == 1 else "shared xref"), frozenset(owners)


def read_retired(path: Path) -> dict[str, str]:
    """Retired CUIs and the CUIs that they became, of a UMLS release's MRCUI.RRF (plain or gzip).

    Only synonymous successors count (`SY`); one that is broader, narrower or merely related is another concept.

    Raises:
        UsageError: the file cannot be read, or a line is not of its form.
    """
    became: dict[str, str] = {}
    for where, line in numbered_lines(path):
        fields = line.split("|")
        if len(fields) < 7:
            raise malformed(where, "not of the form CUI1|VER|REL|RELA|MAPREASON|CUI2|MAPIN|", line)
        old, relation, new = fields[0], fields[2], fields[5]
        if relation == "SY" and new:
            became[f"UMLS:{old}"] = f"UMLS:{new}"
    return became


def _latest(one: str, became: Mapping[str, str]) -> str:
    """What an id has become in the end, a chain of replacements followed."""
    seen = {one}
    while (one := became.get(one, one)) not in seen:
        seen.add(one)
    return one


def _owners(concepts: pa.RecordBatch, ids: set[str], *columns: str) -> dict[str, set[int]]:
    """The rows of the concepts that hold each id in one of these columns."""
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, set[int]] = defaultdict(set)
    for name in columns:
        column = concepts[name]
        values = column
        rows = pa.array(range(len(column)), pa.int64())
        if pa.types.is_list(column.type):
            values, rows = column.flatten(), pc.list_parent_indices(column)
        hit = pc.is_in(values, wanted)
        for one, row in zip(
            values.filter(hit).to_pylist(), rows.filter(hit).to_pylist(), strict=True
        ):
            found[one].add(row)
    return found
