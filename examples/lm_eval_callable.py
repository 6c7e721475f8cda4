"""A Linker behind the functions that lm-eval's task files name: documents in, answers out, scores by document.

In a task's YAML: `doc_to_text: !function lm_eval_callable.doc_to_text`, `doc_to_target`, `process_results`, and
`metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]`. `answer` stands where a model would:

    docs = load_docs("jsonl", "mentions.jsonl")
    requests = [doc_to_text(doc) for doc in docs]
    scores = [process_results(doc, [text]) for doc, text in zip(docs, answer(docs), strict=True)]

Any other system is compared by answering the same requests with ids.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bioelx_mcp import Linker, Mention
from bioelx_mcp.evaluation.datasets import read_dataset
from bioelx_mcp.evaluation.gold import GoldMap


@cache
def open_linker() -> Linker:
    """The index that BIOELX_INDEX names, else the starter index."""
    return Linker.open()


def load_docs(format: str, path: str) -> list[dict[str, Any]]:
    """One document a mention; `right` are the ids of the index that are right, none for NIL or what it lacks."""
    linker, queries = open_linker(), read_dataset(format, Path(path)).queries
    gold = GoldMap(linker.index, {one for query in queries for one in query.gold})
    return [
        {
            "mention": query.mention.text,
            "context": query.mention.context,
            "start": query.mention.start,
            "nil": not query.gold,
            "right": [linker.index.concept(row).concept_id for row in gold.right(query.gold)],
        }
        for query in queries
    ]


def doc_to_text(doc: dict[str, Any]) -> str:
    """What a language model is asked."""
    return f"Context: {doc['context']}\nMention: {doc['mention']}\nConcept id, or NIL:"


def doc_to_target(doc: dict[str, Any]) -> str:
    """A right answer."""
    return "NIL" if doc["nil"] else next(iter(doc["right"]), "")


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 for an answer that is right."""
    answer = results[0].strip()
    return {"acc": float(answer in doc["right"] or (doc["nil"] and answer == "NIL"))}


def answer(docs: Sequence[dict[str, Any]]) -> list[str]:
    """The Linker's answers."""
    mentions = [Mention(doc["mention"], doc["context"], doc["start"]) for doc in docs]
    rankings = open_linker().link(mentions)
    return [one.best.candidate.concept_id if one.best else "NIL" for one in rankings]
