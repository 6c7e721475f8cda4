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
INT8_PARITY = 0.99  # mean cosine between torch and ONNX, int8
_COMPARED = 512  # samples
_SAMPLES = 32_768  # names by which an encoder is whitened
# Of a weight that is multiplied: 255 times 63, twice, stays within the 16 bits that processors without VNNI sum in.
_PRODUCT_STEPS = 63
_DOMAIN = "bioelx"
_FUNCTIONS = (
    """
    <domain: "bioelx">
    Floats (small, scale) => (values) {
        cast = Cast <to = 1> (small)
        values = Mul (cast, scale)
    }
    """,
    """
    <domain: "bioelx">
    Lookup (small, scale, ids) => (values) {
        row = Gather (small, ids)
        cast = Cast <to = 1> (row)
        scales = Gather (scale, ids)
        values = Mul (cast, scales)
    }
    """,
    # Once for all products of the same tokens: the runtime shares what is computed alike.
    """
    <domain: "bioelx">
    IntegerProduct (tokens, small, scale) => (product) {
        last = Constant <value_ints = [-1]> ()
        steps = Constant <value_float = 127.0> ()
        least = Constant <value_float = 1e-12> ()
        middle = Constant <value = uint8 {128}> ()
        rounding = Constant <value_float = 128.5> ()
        sizes = Abs (tokens)
        largest = ReduceMax (sizes, last)
        coarse = Div (largest, steps)
        step = Max (coarse, least)
        counted = Div (tokens, step)
        shifted = Add (counted, rounding)
        rounded = Cast <to = 2> (shifted)
        sums = MatMulInteger (rounded, small, middle)
        cast = Cast <to = 1> (sums)
        scaled = Mul (cast, scale)
        product = Mul (scaled, step)
    }
    """,
)


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
        mend = ": leave `quantize` out if its numbers do not fit into 8 bits" if quantize else ""
        raise InvalidArtifactError(
            f"the exported encoder departs from the model: cosine {reached:.5f} < {wanted}{mend}"
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
    """Store every large weight as int8 with a scale a row or column, and multiply by it in integers.

    What is multiplied is rounded to 8 bits token by token: unlike dynamic quantisation, which has one scale for a
    batch, this leaves a text's vector independent of the texts it is batched with. Of an embedding the rows that
    are looked up become float again; weights that are used otherwise do when the graph is loaded.
    """
    model = onnx.load(str(path))
    graph = model.graph
    nodes = list(graph.node)
    for weight in [w for w in graph.initializer if len(w.dims) == 2 and np.prod(w.dims) >= 4096]:
        name, values = weight.name, numpy_helper.to_array(weight)
        users = [node for node in nodes if name in node.input]
        uses = [(user.op_type, [*user.input].index(name)) for user in users]
        looked_up, multiplied = uses == [("Gather", 0)], uses == [("MatMul", 1)]
        axis = 1 if looked_up else 0  # of an embedding: a scale a token
        steps = _PRODUCT_STEPS if multiplied else 127
        scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / steps, 1e-12)
        small = np.clip(np.round(values / scale), -steps, steps).astype(np.int8)
        graph.initializer.remove(weight)
        parts = {f"{name}.int8": small, f"{name}.scale": scale.astype(np.float32)}
        graph.initializer.extend(numpy_helper.from_array(part, key) for key, part in parts.items())
        if looked_up:
            function, inputs = "Lookup", [*parts, users[0].input[1]]
        elif multiplied:
            function, inputs = "IntegerProduct", [users[0].input[0], *parts]
        else:
            nodes.insert(0, _call("Floats", list(parts), name))
            continue
        nodes[nodes.index(users[0])] = _call(function, inputs, users[0].output[0])
    del graph.node[:]
    graph.node.extend(nodes)
    functions = [onnx.parser.parse_function(text) for text in _FUNCTIONS]
    for function in functions:
        function.opset_import.extend(model.opset_import)
    model.functions.extend(functions)
    model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    onnx.save(model, str(path))


def _call(function: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return onnx.helper.make_node(function, inputs, [output], domain=_DOMAIN)
