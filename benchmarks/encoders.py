"""What the shipped encoder costs and what its int8 weights lose.

    python benchmarks/encoders.py speed --shared ../shared/data
    python benchmarks/encoders.py int8 --shared ../shared/data --config examples/shipped-encoder-5.toml

`speed`, one thread: mentions of XL-BEL one by one and in batches of 1,024, against a model of XLM-R base's size (random
weights cost the same) in PyTorch and in ONNX Runtime, all fed by our tokenizer; medians, taken in turns. `int8`: the
float32 model that a build has trained, exported as its configuration says with and without int8, vectors alone, in
a sample of the open KB with every gold concept.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from dense_recall import dense_recall, read_dictionary
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.evaluation.datasets import read_xlbel
from bioelx_mcp.evaluation.metrics import RECALL_AT
from bioelx_mcp.evaluation.run import checkout_commit
from index_builder.config import STARTER_ENCODER, BuildConfig
from index_builder.export import _export_graph, export_trained
from index_builder.model import TextEncoder, tokenize
from index_builder.pairs import read_names

MAX_LENGTH = 24
OTHERS = 5_000
TURN = 20  # mentions: a pass of the large model leaves nothing of the small one in the cache
Encode = Callable[[Sequence[str]], object]


def base_size(tokenizer: PreTrainedTokenizerFast, directory: Path) -> dict[str, Encode]:
    """An XLM-R base of random weights (278 million), by PyTorch and by ONNX Runtime, one thread."""
    shape = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)
    encoder = TextEncoder(XLMRobertaModel(shape, add_pooling_layer=False), "cls").eval()
    path = directory / "base.onnx"
    _export_graph(encoder, tokenizer, path, MAX_LENGTH)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def in_torch(texts: Sequence[str]) -> object:
        with torch.no_grad():
            return encoder(*tokenize(tokenizer, texts, MAX_LENGTH))

    def in_onnx(texts: Sequence[str]) -> object:
        ids, mask = tokenize(tokenizer, texts, MAX_LENGTH)
        feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        return session.run(["vectors"], feeds)

    return {"XLM-R base, PyTorch": in_torch, "XLM-R base, ONNX Runtime": in_onnx}


def speed(shared: Path, directory: Path, singles: int) -> dict[str, Any]:
    """Median milliseconds, of the process's CPU time, of one mention and of 1,024, by system."""
    mentions = [query.mention.text for query in read_xlbel(shared / "eval" / "xlbel")]
    mentions = mentions[:: len(mentions) // 1024]  # all languages
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(STARTER_ENCODER / "tokenizer.json"), pad_token="[PAD]"
    )
    ours = OnnxEncoder(STARTER_ENCODER, threads=1)
    systems: dict[str, Encode] = {"shipped": ours.encode, **base_size(tokenizer, directory)}
    taken: dict[str, dict[str, list[float]]] = {name: {"one": [], "1,024": []} for name in systems}
    some = mentions[:: max(1, len(mentions) // (singles + TURN))]
    for start in range(0, len(some), TURN):
        for name, encode in systems.items():
            for text in some[start : start + TURN]:
                started = time.process_time()
                encode([text])
                if start:  # the first turn warms up
                    taken[name]["one"].append(1000 * (time.process_time() - started))
    for name, encode in systems.items():
        started = time.process_time()
        encode(mentions[:1024])
        taken[name]["1,024"].append(1000 * (time.process_time() - started))
    milliseconds = {
        name: {kind: statistics.median(times) for kind, times in kinds.items()}
        for name, kinds in taken.items()
    }
    sys.stdout.write(
        "| encoder | one mention, CPU ms | times ours | 1,024, CPU ms | times ours |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    fast = milliseconds["shipped"]
    for name, told in milliseconds.items():
        cells = [f"{told[kind]:.2f} | {told[kind] / fast[kind]:.0f}" for kind in ("one", "1,024")]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
    return {"cpu_milliseconds": milliseconds}


def quantisation(
    config: BuildConfig, model: Path | None, shared: Path, directory: Path
) -> dict[str, Any]:
    """Recall of the vectors of one model, as float32 and as int8."""
    build = config.layout
    queries = read_xlbel(shared / "eval" / "xlbel")
    dictionary = read_dictionary(build.tables, queries, OTHERS)
    mentions = [query.mention.text for query in queries]
    names = read_names(build.tables, {})
    results: dict[str, Any] = {"names": len(dictionary.texts)}
    sys.stdout.write(f"\n{len(dictionary.texts)} names, covered queries\n\n")
    sys.stdout.write("| weights | R@1 | R@5 | R@10 | R@64 |\n|---|---|---|---|---|\n")
    for name, quantize in (("float32", False), ("int8", True)):
        place = directory / name
        export_trained(
            config,
            model or build.training / "model",
            place,
            name=name,
            names=names,
            quantize=quantize,
        )
        encoder = OnnxEncoder(place, threads=1)
        result = dense_recall(
            dictionary, encoder.encode(dictionary.texts), encoder.encode(mentions), queries
        )
        results[name] = {**result, "bytes": (place / "model.onnx").stat().st_size}
        cells = [f"{result['average'][f'covered_recall@{k}']:.2f}" for k in RECALL_AT]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["speed", "int8"])
    parser.add_argument("--config", type=Path, default=Path("examples/shipped-encoder-5.toml"))
    parser.add_argument("--model", type=Path, help="instead of the one that the build has trained")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--singles", type=int, default=50)
    parser.add_argument("--out", type=Path, help="the part is written into it, beside the other")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if args.part == "speed":
            result = speed(args.shared, Path(directory), args.singles)
        else:
            result = quantisation(
                BuildConfig.read(args.config), args.model, args.shared, Path(directory)
            )
    if args.out:
        told = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        told[args.part] = {"commit": checkout_commit(), "hardware": platform.processor(), **result}
        args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
