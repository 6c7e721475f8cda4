"""What the choices of a training are worth: short runs of small models, alike but for one choice.

    python benchmarks/ablation.py choices  --build build/shipped-encoder-2/build --shared ../shared/data
    python benchmarks/ablation.py wikidata --build build/shipped-encoder-2/build --shared ../shared/data

`--build` holds the tables (for `choices` also the training tables) of examples/shipped-encoder-2.toml. `choices`: recall@1, 5 and 64 of
the vectors alone on the XL-BEL development half, in a fixed sample of the open KB: every gold concept and `--others`
more. `wikidata`: one recipe trained with and without the names of Wikidata, Wikipedia and the wordnets, searched
among names with and without them, in the same sample, by language, and as a plot. Runs are short: they order
choices, and say nothing of what a long training reaches. Results are written after each run.
"""

import argparse
import json
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from dense_recall import dense_recall, read_dictionary
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.evaluation.datasets import Query, read_xlbel
from bioelx_mcp.evaluation.metrics import RECALL_AT
from bioelx_mcp.evaluation.run import checkout_commit
from index_builder.config import TrainConfig
from index_builder.model import (
    TextEncoder,
    new_transformer,
    reload_model,
    save_model,
    train_tokenizer,
)
from index_builder.pairs import Names, read_names, sample_texts
from index_builder.tables import ALIASES_FILE
from index_builder.train import embed_names, train_encoder

WIKI_TITLES = {
    "wiki_titles": 0.6
}  # of one concept in five: their share is that of the shipped recipe
_THINNED = 5
BASE: dict[str, Any] = {
    "loss": "infonce",
    "pooling": "mean",
    "learning_rate": 2e-3,
    "steps": 300,
    "batch_pairs": 128,
    "max_length": 24,
    "source_weights": WIKI_TITLES,
    "validation_concepts": 0,
    "checkpoint_steps": 100_000,
    "precision": "bfloat16",
}
# Name of a run -> what differs: shape (hidden, layers, heads), vocabulary (0: characters), settings of a training.
CHOICES: dict[str, dict[str, Any]] = {
    "2 x 128, 16,000 pieces, mean, InfoNCE at 0.05, 128 pairs, wiki titles": {},
    "the same, another seed": {"seed": 1},
    "vocabulary 4,000": {"vocabulary": 4_000},
    "vocabulary 32,000": {"vocabulary": 32_000},
    "characters": {"vocabulary": 0, "max_length": 48},
    "shape 1 x 192": {"shape": (192, 1, 3)},
    "shape 4 x 96": {"shape": (96, 4, 3)},
    "[CLS] pooling": {"pooling": "cls"},
    "multi-similarity": {"loss": "multi-similarity"},
    "512 pairs, gradients cached": {"batch_pairs": 512, "forward_names": 256},
    "32 pairs": {"batch_pairs": 32},
    "without wiki titles": {"source_weights": {"wiki_titles": 0}},
    "temperature 0.02": {"temperature": 0.02},
    "temperature 0.1": {"temperature": 0.1},
    "languages as they come": {"language_exponent": 1.0},
    "pairs of two languages only by chance": {"cross_lingual": 0.0},
    "half of the pairs of two sources": {"cross_source": 0.5},
    "at most 10 names a concept": {"names_per_concept": 10},
}
SHAPE, VOCABULARY = (128, 2, 2), 16_000
ENRICHMENT = re.compile(r"(wikidict|wikidata|omw).*")  # Wikipedia by Wikidata, Wikidata, wordnets
WIKIDATA_STEPS = 600


class Bases:
    """Untrained models by shape and vocabulary, each tokenizer learnt once."""

    def __init__(self, names: Names, directory: Path) -> None:
        self.texts = sample_texts(names, 100_000, 0.5, seed=0)
        self.directory = directory
        self.tokenizers: dict[int, PreTrainedTokenizerFast] = {}

    def path(self, shape: tuple[int, int, int], vocabulary: int, seed: int) -> Path:
        place = self.directory / f"base-{'-'.join(map(str, shape))}-{vocabulary}-{seed}"
        if not place.exists():
            if vocabulary not in self.tokenizers:
                self.tokenizers[vocabulary] = train_tokenizer(
                    self.texts, vocabulary or 8_000, 48, 8 if vocabulary else 1
                )
            tokenizer = self.tokenizers[vocabulary]
            torch.manual_seed(seed)
            save_model(TextEncoder(new_transformer(tokenizer, *shape, 48), ""), tokenizer, place)
        return place


def train(
    names: Names, bases: Bases, directory: Path, name: str, differs: dict[str, Any]
) -> tuple[TextEncoder, PreTrainedTokenizerFast, TrainConfig, float]:
    """A trained encoder, its tokenizer and settings, and the CPU seconds of a step after the first report."""
    told = {**BASE, **differs}
    shape, vocabulary = told.pop("shape", SHAPE), told.pop("vocabulary", VOCABULARY)
    base = bases.path(shape, vocabulary, told.get("seed", 0))
    config = TrainConfig.model_validate({**told, "base_model": str(base)})
    place = directory / name.replace("/", "-")
    told_at: list[tuple[int, float]] = []
    model = train_encoder(
        names, config, place, lambda done, *_: told_at.append((done, time.process_time()))
    )
    (first, began), (last, ended) = told_at[0], told_at[-1]
    seconds = (ended - began) / max(1, last - first)
    encoder, tokenizer = reload_model(model, config.pooling)
    return encoder.eval(), tokenizer, config, seconds


def embed(
    encoder: TextEncoder, tokenizer: PreTrainedTokenizerFast, texts: list[str], max_length: int
) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = embed_names(encoder, tokenizer, texts, max_length).numpy()
    return vectors


def row(name: str, result: dict[str, Any], more: str = "") -> str:
    cells = [result["average"][f"covered_recall@{k}"] for k in RECALL_AT]
    cells += [result["unnamed"][f"covered_recall@{k}"] for k in (1, 64)]
    return f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" |{more}\n"


def choices(
    build: Path, queries: list[Query], others: int, directory: Path, only: list[str], out: Path
) -> None:
    dictionary = read_dictionary(build / "tables", queries, others)
    mentions = [query.mention.text for query in queries]
    sys.stdout.write(
        f"{len(dictionary.texts)} names of the sample, {BASE['steps']} steps, covered queries\n\n"
        "| run | R@1 | R@5 | R@10 | R@64 | unnamed R@1 | R@64 | CPU ms a step |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    results: dict[str, Any] = {}
    names = read_names(build / "training-tables", WIKI_TITLES)
    names = names.select((names.weight == 1.0) | (names.concept % _THINNED == 0))
    bases = Bases(names, directory)
    for name, differs in CHOICES.items():
        if only and name not in only:
            continue
        ours = names
        if differs.get("source_weights"):
            ours = names.select(names.weight == 1.0)
        encoder, tokenizer, config, seconds = train(ours, bases, directory, name, differs)
        result = dense_recall(
            dictionary,
            embed(encoder, tokenizer, dictionary.texts, config.max_length),
            embed(encoder, tokenizer, mentions, config.max_length),
            queries,
        )
        results[name] = {**result, "differs": differs, "cpu_seconds_a_step": seconds}
        sys.stdout.write(row(name, result, f" {1000 * seconds:.0f} |"))
        sys.stdout.flush()
        save({"base": BASE, "names": len(dictionary.texts), "runs": results}, out)


def wikidata(
    build: Path, queries: list[Query], others: int, directory: Path, out: Path, plot: Path
) -> None:
    """Trained and indexed with and without the enrichment: the four recalls."""
    dictionary = read_dictionary(build / "tables", queries, others)
    ours = np.array(
        [not all(map(ENRICHMENT.fullmatch, of.split("|"))) for of in dictionary.sources]
    )
    plain = dictionary.select(ours)
    column = pq.read_table(build / "tables" / ALIASES_FILE, columns=["source"])["source"]
    sources = {one for of in column.unique().to_pylist() for one in of.split("|")}
    without = {one: 0.0 for one in sources if ENRICHMENT.fullmatch(one)}
    mentions = [query.mention.text for query in queries]
    results: dict[str, Any] = {}
    sys.stdout.write(
        f"{len(dictionary.texts)} names, {len(plain.texts)} without; covered queries\n\n"
        "| trained | searched | R@1 | R@5 | R@10 | R@64 | unnamed R@1 | R@64 |\n|---|---|---|---|---|---|---|---|\n"
    )
    recipes: tuple[tuple[str, dict[str, float]], ...] = (("with", {}), ("without", without))
    for trained, weights in recipes:
        names = read_names(build / "tables", weights)
        bases = Bases(names, directory / trained)
        differs = {"steps": WIKIDATA_STEPS, "source_weights": {}}
        encoder, tokenizer, config, _ = train(names, bases, directory, trained, differs)
        vectors = embed(encoder, tokenizer, dictionary.texts, config.max_length)
        asked = embed(encoder, tokenizer, mentions, config.max_length)
        for searched, among, rows in (
            ("with", dictionary, slice(None)),
            ("without", plain, ours),
        ):
            result = dense_recall(among, vectors[rows], asked, queries, dictionary)
            results[f"trained {trained}, searched {searched}"] = result
            sys.stdout.write(row(f"{trained} | {searched}", result))
            sys.stdout.flush()
        told = {
            "base": {**BASE, "steps": WIKIDATA_STEPS},
            "left_out": sorted(without),
            "names": {"with": len(dictionary.texts), "without": len(plain.texts)},
            "runs": results,
        }
        save(told, out)
    table_by_language(results)
    draw(results, plot)


def save(told: dict[str, Any], out: Path) -> None:
    told = {"commit": checkout_commit(), "hardware": platform.processor(), **told}
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def table_by_language(results: dict[str, Any]) -> None:
    languages = list(next(iter(results.values()))["languages"])
    sys.stdout.write("\n| recall@1 / @64 | " + " | ".join(languages) + " |\n")
    sys.stdout.write("|---|" + "---|" * len(languages) + "\n")
    for name, result in results.items():
        cells = [
            f"{of['covered_recall@1']:.1f} / {of['covered_recall@64']:.1f}"
            for of in result["languages"].values()
        ]
        sys.stdout.write(f"| {name} | " + " | ".join(cells) + " |\n")


def draw(results: dict[str, Any], path: Path) -> None:
    """Recall@1 and recall@64 by language, a bar for each of the runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    languages = list(next(iter(results.values()))["languages"])
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True)
    places = np.arange(len(languages))
    for axis, k in zip(axes, (1, 64), strict=True):
        for number, (name, result) in enumerate(results.items()):
            values = [of[f"covered_recall@{k}"] for of in result["languages"].values()]
            axis.bar(places + 0.2 * (number - 1.5), values, 0.2, label=name)
        axis.set_ylabel(f"recall@{k}, %")
        axis.grid(axis="y", alpha=0.3)
    axes[1].set_xticks(places, languages)
    figure.suptitle("Names of Wikidata, Wikipedia and wordnets: XL-BEL dev, vectors alone")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=2)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["choices", "wikidata"])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--others", type=int, default=5000, help="concepts beside the gold ones")
    parser.add_argument("--only", nargs="*", default=[], choices=list(CHOICES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    queries = read_xlbel(args.shared / "eval" / "xlbel")
    out = args.out / f"ablation-{args.part}.json"
    with tempfile.TemporaryDirectory() as directory:
        if args.part == "choices":
            choices(args.build, queries, args.others, Path(directory), args.only, out)
        else:
            plot = out.with_suffix(".svg")
            wikidata(args.build, queries, args.others, Path(directory), out, plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
