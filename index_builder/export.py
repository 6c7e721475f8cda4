"""A trained encoder to the query encoder: ONNX, optionally int8, parity-checked against torch."""

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.encoder import CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE, EncoderConfig, OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError
from index_builder.model import TextEncoder, reload_model, tokenize
from index_builder.train import embed_names

FLOAT_PARITY = 0.9999  # least cosine between torch and ONNX, float32
INT8_PARITY = 0.98  # mean cosine between torch and ONNX, int8


def export_encoder(
    model: Path,
    directory: Path,
    *,
    name: str,
    pooling: str,
    max_length: int,
    quantize: bool,
    samples: Sequence[str],
) -> None:
    """Write an encoder directory and prove on `samples` that it gives the vectors of the torch model.

    Raises:
        InvalidArtifactError: the exported encoder's vectors differ from the torch model's.
    """
    encoder, tokenizer = reload_model(model, pooling)
    encoder.eval()
    fresh = directory.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _export_graph(encoder, tokenizer, fresh / MODEL_FILE, max_length)
    if quantize:
        _quantize(fresh / MODEL_FILE)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(fresh / TOKENIZER_FILE), pretty=False)
    with torch.no_grad():
        expected = embed_names(encoder, tokenizer, list(samples), max_length).numpy()
    config = EncoderConfig(
        name=name,
        dimension=expected.shape[1],
        max_length=max_length,
        pad_token=str(tokenizer.pad_token),
    )
    (fresh / CONFIG_FILE).write_text(
        json.dumps(config.model_dump(), indent=1) + "\n", encoding="utf-8"
    )
    cosine = np.sum(expected * OnnxEncoder(fresh).encode(samples), axis=1)
    reached, wanted = (cosine.mean(), INT8_PARITY) if quantize else (cosine.min(), FLOAT_PARITY)
    if not reached >= wanted:
        raise InvalidArtifactError(
            f"the exported encoder departs from the model: cosine {reached:.5f} < {wanted}"
        )
    if (model / "README.md").exists():
        shutil.copy(model / "README.md", fresh / "README.md")
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)


def _export_graph(
    encoder: TextEncoder, tokenizer: PreTrainedTokenizerFast, path: Path, max_length: int
) -> None:
    ids, mask = tokenize(tokenizer, ["myocardial infarction", "heart"], max_length)
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=2)
    shape = {0: batch, 1: tokens}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder,
            (ids, mask),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["vectors"],
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            verbose=False,
        )
    if program is None:
        raise InvalidArtifactError("torch gave no ONNX program")
    program.save(str(path), external_data=False)


def _quantize(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    full = path.with_suffix(".float.onnx")
    path.rename(full)
    quantize_dynamic(full, path, weight_type=QuantType.QInt8, per_channel=True)
    full.unlink()
