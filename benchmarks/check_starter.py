"""Check the starter knowledge base against the open KB: ids that agree, names that point elsewhere.

    python benchmarks/check_starter.py --open-kb ../shared/data/open_kb [FILE.jsonl ...]

A starter id *agrees* when the open KB knows it (as id, alternative CUI or xref) and gives it at least one
of our names. A name is *elsewhere* when the open KB gives it to other concepts only. Both rates are printed.
"""

import argparse
import json
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

STARTER = Path(__file__).parent.parent / "index_builder" / "starter" / "concepts"


def key(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(STARTER.glob("*.jsonl")))
    parser.add_argument("--open-kb", type=Path, default=Path("../shared/data/open_kb"))
    parser.add_argument("--show", type=int, default=400, help="findings to print")
    args = parser.parse_args()

    preferred: dict[str, str] = {}
    spelled: dict[str, set[str]] = defaultdict(set)  # any id -> the open KB's concepts that bear it
    for row in pq.read_table(args.open_kb / "concepts.parquet").to_pylist():
        preferred[row["concept_id"]] = row["preferred_name"]
        for other in [row["concept_id"], *row["alt_cuis"], *row["xrefs"]]:
            spelled[other.removeprefix("UMLS:")].add(row["concept_id"])
    by_name: dict[str, set[str]] = defaultdict(set)
    names_of: dict[str, set[str]] = defaultdict(set)
    aliases = pq.read_table(args.open_kb / "aliases.parquet", columns=["concept_id", "name"])
    for concept, name in zip(*(column.to_pylist() for column in aliases.columns), strict=True):
        by_name[key(name)].add(concept)
        names_of[concept].add(key(name))

    concepts = [json.loads(line) for path in args.files for line in path.open(encoding="utf-8")]
    findings: list[str] = []
    known = agreed = names = elsewhere = 0
    for concept in concepts:
        mine = spelled.get(concept["id"].removeprefix("UMLS:"), set())
        ours = {key(n) for group in concept["names"].values() for n in group}
        label = f"{concept['id']} {concept['names']['en'][0]!r}"
        if mine:
            known += 1
            if any(ours & names_of[c] for c in mine):
                agreed += 1
            else:
                findings.append(
                    f"ID     {label}: the open KB calls it {[preferred[c] for c in mine]}"
                )
        else:
            there = {c for n in concept["names"]["en"] for c in by_name.get(key(n), ())}
            if there:
                shown = ", ".join(f"{c} {preferred[c]!r}" for c in sorted(there)[:4])
                findings.append(f"ID     {label}: id not in the open KB, which has {shown}")
        for language, group in concept["names"].items():
            for name in group:
                names += 1
                owners = by_name.get(key(name), set())
                if mine and owners and not owners & mine:
                    elsewhere += 1
                    shown = ", ".join(f"{c} {preferred[c]!r}" for c in sorted(owners)[:3])
                    findings.append(f"NAME   {label} [{language}] {name!r}: there only {shown}")
    sys.stdout.write("\n".join(findings[: args.show]) + "\n")
    sys.stdout.write(
        f"{len(concepts)} concepts, {known} known to the open KB, {agreed} agree "
        f"({agreed / max(known, 1):.1%}); {names} names, {elsewhere} elsewhere only "
        f"({elsewhere / max(names, 1):.2%})\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
