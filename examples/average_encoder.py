"""The encoder that ships, after four parts: the mean of the weights of several trained models, and its export.

    python examples/average_encoder.py --config examples/shipped-encoder-4.toml --name bioelx-mini-4 --out build/shipped-encoder-mean \
        build/shipped-encoder-{2,3,4}/build/training/model

Models that were trained one from the other lie near enough for it ("model soups", Wortsman et al., ICML 2022). The
configuration says how the encoder is exported, and its searched tables give the names that it is whitened by. The
model lies in OUT/model then, the encoder in OUT/onnx.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from index_builder.config import BuildConfig
from index_builder.export import export_trained
from index_builder.pairs import read_names

WEIGHTS = "model.safetensors"


def average_models(models: Sequence[Path], out: Path) -> None:
    """Write the first model again, with the mean of the weights of all."""
    shutil.copytree(models[0], out, ignore=shutil.ignore_patterns("README.md"))
    each = [load_file(model / WEIGHTS) for model in models]
    mean = {name: torch.stack([w[name].float() for w in each]).mean(0) for name in each[0]}
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = BuildConfig.read(args.config)
    names = read_names(config.layout.tables, {})
    average_models(args.models, args.out / "model")
    export_trained(config, args.out / "model", args.out / "onnx", name=args.name, names=names)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
