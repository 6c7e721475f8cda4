"""Which ids mean the same concept: connected sets of exact mappings, each under one id.

An authority (UMLS unless configured) decides: two of its ids are never joined through a third one, unless
asked to; every mapping that would have done so is reported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Identity:
    """`canonical` names the concept of every id that was merged; its own id for the one that stayed.

    `conflicts` are the mappings that would join two ids of the authority: (id, mapped id, one, the other).
    """

    canonical: dict[str, str] = field(default_factory=dict)
    conflicts: list[tuple[str, str, str, str]] = field(default_factory=list)


def merge_ids(
    mappings: Iterable[tuple[str, str]],
    order: Sequence[str],
    *,
    join_authority: bool = False,
) -> Identity:
    """The concepts of ids under exact mappings; earlier mappings win where two contradict.

    Args:
        mappings: pairs of CURIEs that mean the same, in order of trust.
        order: prefixes, best first; a concept takes its best id. Of the first, the authority, it holds one.
        join_authority: join two ids of the authority, too; reported all the same.
    """
    parent: dict[str, str] = {}
    authority = f"{order[0]}:" if order else ""
    ranks = {prefix: rank for rank, prefix in enumerate(order)}
    found = Identity()

    def find(one: str) -> str:
        root = parent.setdefault(one, one)
        while parent[root] != root:
            root = parent[root]
        while parent[one] != root:  # path compression
            parent[one], one = root, parent[one]
        return root

    def worth(one: str) -> tuple[int, str]:
        return ranks.get(one.partition(":")[0], len(ranks)), one

    # The root of a set is its best id, so that an authority's id, where there is one, is the root.
    for one, other in mappings:
        a, b = find(one), find(other)
        if a == b:
            continue
        if authority and a.startswith(authority) and b.startswith(authority):
            found.conflicts.append((one, other, a, b))
            if not join_authority:
                continue
        best, rest = sorted((a, b), key=worth)
        parent[rest] = best
    found.canonical = {one: find(one) for one in parent}
    return found
