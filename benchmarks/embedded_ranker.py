"""Would a ranker that needs no model order candidates better than retrieval does? Cross-validated recall@1.

    python benchmarks/embedded_ranker.py --index build/open-kb --shared ../shared/data

Evidence that the index itself holds, weighed by a conditional logit (McFadden, 1974) over the candidates of a
mention; fitted on eleven of twelve groups (ten languages of XL-BEL, two of PubTator), measured on the twelfth.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Candidate, Concept, Mention
from bioelx_mcp.text import character_grams, normalize_alias, normalize_concept_id

Floats = NDArray[np.float64]
CANDIDATES = 10
NAMES = 6  # of a candidate
CHUNK = 48  # characters of context that the encoder, made for names, reads at a time
PENALTY = 10.0
EVIDENCE = {
    "retrieval": ("retrieval score", "exact"),
    "popularity": ("aliases", "languages", "xrefs"),
    "definitions": ("cosine definition", "grams definition", "has definition"),
    "names": ("cosine name", "cosine best name", "grams names"),
    "types": ("cosine types",),
    "language": ("hit in the mentions' language",),
}
COLUMNS = [name for names in EVIDENCE.values() for name in names]
SETS = (
    ("retrieval",),
    ("retrieval", "popularity"),
    ("retrieval", "definitions"),
    ("retrieval", "names"),
    ("retrieval", "types"),
    ("retrieval", "language"),
    ("retrieval", "definitions", "names", "types"),
    ("retrieval", "popularity", "definitions", "names", "types"),
    tuple(EVIDENCE),
)


@dataclass(frozen=True)
class Choice:
    """A mention to decide: one row of evidence a candidate, in the order of retrieval; `right` may be empty."""

    group: str
    evidence: Floats
    right: NDArray[np.bool_]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    linker = Linker.open(args.index)
    groups = read_groups(linker, args.shared / "eval")
    choices = [choice for group in groups.items() for choice in weigh(linker, *group)]
    report(choices)
    return 0


def read_groups(linker: Linker, folder: Path) -> dict[str, list[Query]]:
    """Covered queries with context, by language or dataset; the golds are ids of the index."""
    by_xref: dict[str, set[str]] = defaultdict(set)
    table = linker._index._concepts
    for own, xrefs in zip(table["concept_id"].to_pylist(), table["xrefs"].to_pylist(), strict=True):
        for xref in xrefs:
            by_xref[xref].add(own)
    groups: dict[str, list[Query]] = defaultdict(list)
    for query in read_xlbel(folder / "xlbel"):
        groups[f"xlbel {query.language}"].append(query)
    for path in sorted((folder / "pubtator").glob("*.txt")):
        groups[path.name.split(".")[0]] = read_pubtator(path)
    known: dict[str, list[Query]] = {}
    for name, queries in groups.items():
        kept = []
        for query in queries:
            gold = {c.concept_id for g in query.gold if (c := linker.concept(g))}
            gold |= {own for g in query.gold for own in by_xref.get(g, ())}
            if gold and query.mention.context:
                kept.append(Query(query.mention, frozenset(gold), query.language, query.where))
        known[name] = kept
    return known


def read_pubtator(path: Path) -> list[Query]:
    """Mentions with their sentence; one that a document repeats counts once."""
    queries: dict[tuple[str, str], Query] = {}
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        lines = block.splitlines()
        text = " ".join(line.split("|", 2)[2] for line in lines[:2])
        for line in lines[2:]:
            fields = line.split("\t")
            if len(fields) < 6 or fields[5] in ("-1", ""):
                continue
            start, end = int(fields[1]), int(fields[2])
            gold = frozenset(
                g
                for part in re.split(r"[|+]", fields[5])
                if (g := normalize_concept_id(part if ":" in part else f"MESH:{part}"))
            )
            low = text.rfind(". ", 0, start) + 2 if ". " in text[:start] else 0
            high = found + 1 if (found := text.find(". ", end)) >= 0 else len(text)
            mention = Mention(fields[3], text[low:high], start - low)
            queries.setdefault((fields[0], fields[3]), Query(mention, gold, "en", str(path)))
    return list(queries.values())


def weigh(linker: Linker, group: str, queries: Sequence[Query]) -> list[Choice]:
    """The evidence for each candidate of each query that retrieval offers a choice for."""
    sys.stderr.write(f"{group}: {len(queries)} queries\n")
    found = linker.search([query.mention for query in queries], CANDIDATES)
    languages = [c.hit.language for candidates in found for c in candidates[:1]]
    usual = max(set(languages), key=languages.count)
    told = {c.concept_id: describe(linker, c) for candidates in found for c in candidates}
    contexts = [chunks(query.mention) for query in queries]
    texts = sorted(
        {text for parts in contexts for text in parts}
        | {text for concept, names in told.values() for text in every(concept, names)}
    )
    vectors = dict(zip(texts, linker._index.encoder.encode(texts), strict=True))
    weight = linker._index.lexicon.weight
    choices = []
    for query, parts, candidates in zip(queries, contexts, found, strict=True):
        around = np.array([vectors[part] for part in parts]) if parts else np.zeros((1, 1))
        grams = {g for part in parts for g in character_grams(normalize_alias(part))}

        def nearest(text: str, around: Floats = around, parts: list[str] = parts) -> float:
            return float((around @ vectors[text]).max()) if parts and text else 0.0

        def shared(text: str, grams: set[str] = grams) -> float:
            theirs = character_grams(normalize_alias(text))
            total = sum(map(weight, theirs))
            return sum(weight(g) for g in theirs if g in grams) / total if total else 0.0

        rows = []
        for candidate in candidates:
            concept, names = told[candidate.concept_id]
            cosines = [nearest(text) for text in names]
            rows.append(
                [
                    candidate.retrieval_score,
                    candidate.retrieval_score == 1.0,
                    np.log(1 + linker._index.aliases_of_concept[_row(linker, candidate)]),
                    np.log(1 + len({lang for _, lang in linker.names(concept.concept_id)})),
                    np.log(1 + len(concept.xrefs)),
                    nearest(concept.definition),
                    shared(concept.definition),
                    bool(concept.definition),
                    cosines[0],
                    max(cosines),
                    max(shared(name) for name in names),
                    max((nearest(one) for one in concept.semantic_types), default=0.0),
                    candidate.hit.language == usual,
                ]
            )
        right = np.array([c.concept_id in query.gold for c in candidates])
        choices.append(Choice(group, np.array(rows, dtype=np.float64), right))
    return choices


def _row(linker: Linker, candidate: Candidate) -> int:
    row = linker._index.find_concept(candidate.concept_id)
    assert row is not None
    return row


def describe(linker: Linker, candidate: Candidate) -> tuple[Concept, list[str]]:
    concept = linker.concept(candidate.concept_id)
    assert concept is not None
    wanted = ("en", candidate.hit.language)
    names = [name for name, lang in linker.names(concept.concept_id) if lang in wanted]
    return concept, list(dict.fromkeys([concept.preferred_name, *names]))[:NAMES]


def every(concept: Concept, names: Sequence[str]) -> list[str]:
    return [*names, *concept.semantic_types, *([concept.definition] if concept.definition else [])]


def chunks(mention: Mention) -> list[str]:
    """The context without the mention, in pieces as long as names, and whole."""
    text, start = mention.context, mention.start or 0
    end = start + len(mention.text)
    before, after = text[max(0, start - 4 * CHUNK) : start], text[end : end + 4 * CHUNK]
    pieces = [
        part[i : i + CHUNK] for part in (before, after) for i in range(0, len(part), CHUNK // 2)
    ]
    return [piece for piece in [*pieces, f"{before[-CHUNK:]} {after[:CHUNK]}"] if piece.strip()]


def fit(choices: Sequence[Choice], columns: Sequence[int]) -> tuple[Floats, Floats]:
    """(weights, scale of each column) of a conditional logit, by Newton's method."""
    usable = [c for c in choices if c.right.any() and not c.right.all()]
    scale = np.concatenate([c.evidence[:, columns] for c in usable]).std(axis=0) + 1e-9
    weights = np.zeros(len(columns))
    for _ in range(12):
        gradient, curvature = -PENALTY * weights, np.eye(len(columns)) * PENALTY
        for choice in usable:
            rows = choice.evidence[:, columns] / scale
            p = softmax(rows @ weights)
            q = p * choice.right / (p @ choice.right)  # several may be right
            gradient += (q - p) @ rows
            centred = rows - p @ rows
            curvature += (centred * p[:, None]).T @ centred
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights, scale


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max())
    result: Floats = e / e.sum()
    return result


def report(choices: Sequence[Choice]) -> None:
    names = sorted({choice.group for choice in choices})
    write = sys.stdout.write
    write(
        "| evidence | average | "
        + " | ".join(names)
        + " |\n|---|"
        + "---|" * (len(names) + 1)
        + "\n"
    )
    rows: list[tuple[str, tuple[str, ...] | None]] = [("order of retrieval", None)]
    rows += [(", ".join(chosen), chosen) for chosen in SETS]
    for label, chosen in rows:
        recall = []
        for name in names:
            held = [c for c in choices if c.group == name]
            if chosen is None:
                hits = [bool(c.right[0]) for c in held]
            else:
                columns = [COLUMNS.index(column) for key in chosen for column in EVIDENCE[key]]
                weights, scale = fit([c for c in choices if c.group != name], columns)
                hits = [
                    bool(c.right[np.argmax(np.round(c.evidence[:, columns] / scale @ weights, 9))])
                    for c in held
                ]
            recall.append(100 * float(np.mean(hits)))
        write(
            f"| {label} | {np.mean(recall):.1f} | "
            + " | ".join(f"{r:.1f}" for r in recall)
            + " |\n"
        )
    weights, _ = fit(choices, range(len(COLUMNS)))
    write(
        "\nweights on all: "
        + ", ".join(f"{n} {w:+.2f}" for n, w in zip(COLUMNS, weights, strict=True))
        + "\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
