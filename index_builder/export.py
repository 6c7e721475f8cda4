"""A trained encoder to the query encoder: ONNX, optionally int8, parity-checked against torch."""

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.encoder import CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE, EncoderConfig, OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError
from index_builder.config import BuildConfig
from index_builder.model import TextEncoder, reload_model, tokenize
from index_builder.pairs import Names, sample_texts
from index_builder.train import embed_names
from index_builder.whitening import whitening

FLOAT_PARITY = 0.9999  # least cosine between torch and ONNX, float32
INT8_PARITY = 0.999  # mean cosine between torch and ONNX, int8 weights
_COMPARED = 512  # samples
_SAMPLES = 32_768  # names by which an encoder is whitened


def export_encoder(
    model: Path,
    directory: Path,
    *,
    name: str,
    pooling: str,
    max_length: int,
    quantize: bool,
    samples: Sequence[str],
    whiten: float = 0.0,
    dimensions: int = 0,
) -> None:
    """Write an encoder directory and prove on `samples` that it gives the vectors of the torch model.

    `samples` are names of the kind that will be searched: they also tell which directions `whitening` evens out.

    Raises:
        InvalidArtifactError: the exported encoder's vectors differ from the torch model's.
        UsageError: the model has fewer than so many dimensions.
    """
    encoder, tokenizer = reload_model(model, pooling)
    encoder.eval()
    if whiten or dimensions:
        vectors = embed_names(encoder, tokenizer, list(samples), max_length).numpy()
        encoder.projection = nn.Parameter(torch.from_numpy(whitening(vectors, whiten, dimensions)))
    samples = samples[:_COMPARED]
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


def export_trained(
    config: BuildConfig,
    model: Path,
    directory: Path,
    *,
    name: str,
    names: Names,
    quantize: bool | None = None,
) -> None:
    """Write a trained model as an encoder, as the configuration says; `names` are those that it is whitened by."""
    export_encoder(
        model,
        directory,
        name=name,
        pooling=config.train.pooling,
        max_length=config.train.max_length,
        quantize=config.quantize if quantize is None else quantize,
        samples=sample_texts(names, _SAMPLES, exponent=1.0, seed=config.train.seed),
        whiten=config.whitening,
        dimensions=config.dimensions,
    )


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
    """Store every large weight as int8 with a scale a row or column; the arithmetic stays float32.

    The runtime folds `Cast` and `Mul` back into float weights when it loads the graph; those of an embedding stand
    behind its lookup, so that it stays small. Unlike dynamic quantisation this leaves a text's vector independent
    of the texts it is batched with.
    """
    model = onnx.load(str(path))
    graph = model.graph
    nodes = list(graph.node)
    lookups = {node.input[0]: node for node in nodes if node.op_type == "Gather"}
    for weight in [w for w in graph.initializer if len(w.dims) == 2 and np.prod(w.dims) >= 4096]:
        name, values = weight.name, numpy_helper.to_array(weight)
        lookup = lookups.get(name)
        axis = 0 if lookup is None else 1  # of an embedding: a scale a token
        scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / 127.0, 1e-12)
        small = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
        graph.initializer.remove(weight)
        parts = {f"{name}.int8": small, f"{name}.scale": scale.astype(np.float32)}
        graph.initializer.extend(numpy_helper.from_array(part, key) for key, part in parts.items())
        if lookup is None:
            nodes[:0] = _dequantized(f"{name}.int8", f"{name}.scale", name)
        else:
            taken = [
                onnx.helper.make_node("Gather", [key, lookup.input[1]], [f"{key}.row"])
                for key in parts
            ]
            floats = _dequantized(f"{name}.int8.row", f"{name}.scale.row", lookup.output[0])
            at = nodes.index(lookup)
            nodes[at : at + 1] = [*taken, *floats]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))


def _dequantized(small: str, scale: str, output: str) -> list[onnx.NodeProto]:
    """The nodes that multiply int8 values by their scale."""
    cast = onnx.helper.make_node("Cast", [small], [f"{small}.cast"], to=onnx.TensorProto.FLOAT)
    return [cast, onnx.helper.make_node("Mul", [f"{small}.cast", scale], [output])]
