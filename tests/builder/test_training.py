"""Self-alignment: a small transformer trained by the real trainer, killed, resumed and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError, UsageError
from builder.conftest import tables_of
from index_builder import export
from index_builder.config import SourceConfig, TrainConfig
from index_builder.export import export_encoder
from index_builder.losses import make_loss
from index_builder.model import (
    TextEncoder,
    backward_in_chunks,
    load_model,
    reload_model,
    tokenize,
    train_tokenizer,
)
from index_builder.pairs import Names, PairSampler, read_names
from index_builder.sources import open_source
from index_builder.train import embed_names, train_encoder
from index_builder.whitening import whitening

pytestmark = pytest.mark.usefixtures("one_thread")


SHORT: dict[str, Any] = {
    "steps": 40,
    "learning_rate": 4e-3,
    "batch_pairs": 32,
    "vocabulary": 300,
    "max_length": 12,
    "checkpoint_steps": 20,
    "validation_concepts": 100,
}


def quiet(done: int, total: int, text: str) -> None:
    pass


def config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SHORT, **keys})


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, invented_tsv: Path) -> Names:
    directory = tmp_path_factory.mktemp("tables")
    tables_of([open_source(SourceConfig(kind="table", path=invented_tsv))], directory)
    return read_names(directory, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, names: Names, one_thread: None) -> Path:
    """The directory of a training that nothing disturbed."""
    directory = tmp_path_factory.mktemp("training")
    assert train_encoder(names, config(), directory, quiet) == directory / "model"
    return directory


def metrics(directory: Path) -> list[dict[str, float]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model" / "model.safetensors")


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_a_tiny_model_learns_names_it_never_saw(trained: Path) -> None:
    lines = metrics(trained)
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["validation_recall@1"] > 0.6  # chance is 2 in 359
    assert lines[0]["learning_rate"] > lines[1]["learning_rate"] > 0


def test_a_training_that_was_killed_goes_on_to_the_same_metrics_and_weights(
    tmp_path: Path, trained: Path, names: Names
) -> None:
    def killer(done: int, total: int, text: str) -> None:
        if done == 40:  # its line is written, its checkpoint is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_encoder(names, config(), tmp_path, killer)
    assert [line["step"] for line in metrics(tmp_path)] == [20, 40]
    with (tmp_path / "metrics.jsonl").open("a") as out:
        out.write('{"step": 4')  # a line that was not finished
    seen: list[int] = []
    train_encoder(names, config(), tmp_path, lambda done, total, text: seen.append(done))
    assert seen == [40]
    assert metrics(tmp_path) == metrics(trained)
    assert equal(weights(tmp_path), weights(trained))


def test_a_training_with_hard_negatives_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, names: Names
) -> None:
    keys = config(
        steps=12,
        checkpoint_steps=4,
        hard_negatives=0.5,
        mining_steps=6,
        validation_concepts=0,
        respelt=0.3,
        piece_dropout=0.3,
    )
    train_encoder(names, keys, tmp_path / "whole", quiet)
    mined = sorted(path.name for path in (tmp_path / "whole").glob("neighbours-*"))
    assert mined == ["neighbours-0000000.safetensors", "neighbours-0000006.safetensors"]

    def killer(done: int, total: int, text: str) -> None:
        if done == 8:  # after the second mining, before its checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_encoder(names, keys, tmp_path / "broken", killer)
    train_encoder(names, keys, tmp_path / "broken", quiet)
    assert equal(weights(tmp_path / "broken"), weights(tmp_path / "whole"))


def test_a_checkpoint_that_was_being_replaced_is_read_from_its_old_place(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"steps": 5, "checkpoint_steps": 2}
    train_encoder(names, config(**keys), tmp_path, quiet)
    first = weights(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint.new").mkdir()
    steps: list[int] = []
    right = PairSampler.sample_pairs

    def sample_pairs(self: PairSampler, step: int, *rest: Any) -> Any:
        steps.append(step)
        return right(self, step, *rest)

    monkeypatch.setattr(PairSampler, "sample_pairs", sample_pairs)
    train_encoder(names, config(**keys), tmp_path, quiet)
    assert steps == [4]
    assert equal(weights(tmp_path), first)
    assert [line["step"] for line in metrics(tmp_path)] == [2, 4, 5]


def test_a_base_model_that_was_being_written_is_written_again(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(encoder: TextEncoder, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("index_builder.train.save_model", half)
        train_encoder(names, config(steps=1), tmp_path, quiet)
    assert train_encoder(names, config(steps=1), tmp_path, quiet).is_dir()


@pytest.mark.parametrize("keys", [{}, {"loss": "infonce", "precision": "bfloat16"}])
def test_equal_seeds_give_equal_weights_and_others_other_weights(
    tmp_path: Path, names: Names, keys: dict[str, Any]
) -> None:
    models = []
    for number, seed in enumerate((0, 0, 1)):
        directory = tmp_path / str(number)
        train_encoder(names, config(steps=2, seed=seed, **keys), directory, quiet)
        models.append(weights(directory))
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])
    assert all(tensor.isfinite().all() for tensor in models[0].values())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_batch_in_chunks_has_the_gradient_of_the_whole(dropout: float) -> None:
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )
    encoder = TextEncoder(BertModel(shape, add_pooling_layer=False), "mean").train()
    ids, mask = torch.randint(5, 50, (12, 6)), torch.ones(12, 6, dtype=torch.long)
    labels = torch.arange(6).repeat(2)
    homonyms = torch.zeros(12, 12, dtype=torch.bool)
    loss_of = make_loss(config(loss="infonce"))

    def gradients(names: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        encoder.zero_grad()
        torch.manual_seed(1)
        loss = backward_in_chunks(encoder, ids, mask, names, lambda v: loss_of(v, labels, homonyms))
        return loss, [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    torch.manual_seed(1)
    encoder.zero_grad()
    plain = loss_of(encoder(ids, mask), labels, homonyms)
    plain.backward()  # type: ignore[no-untyped-call]
    expected = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    for names in (12, 5) if not dropout else (12,):  # chunks draw another dropout than the whole
        loss, found = gradients(names)
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
    again, repeated = gradients(5)
    once, first = gradients(5)
    assert again == once
    assert all(torch.equal(one, other) for one, other in zip(repeated, first, strict=True))


def test_a_training_in_chunks_learns_as_one_of_whole_batches(tmp_path: Path, names: Names) -> None:
    keys = {"steps": 3, "validation_concepts": 0, "checkpoint_steps": 1}
    train_encoder(names, config(**keys), tmp_path / "whole", quiet)
    train_encoder(names, config(**keys, forward_names=20), tmp_path / "chunks", quiet)
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("whole", "chunks")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_without_validation_concepts_the_recall_is_nan(tmp_path: Path, names: Names) -> None:
    shown: list[str] = []
    keys = {"steps": 1, "validation_concepts": 0}
    train_encoder(names, config(**keys), tmp_path, lambda done, total, text: shown.append(text))
    assert "validation recall@1 nan" in shown[-1]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base_model": "scratch:huge"}, "unknown scratch size 'huge'; known: tiny, mini, small"),
        ({"base_model": "/no/such/model"}, "base model '/no/such/model' cannot be loaded: "),
        (
            {"vocabulary": 300, "names": [chr(0x4E00 + i) for i in range(400)]},
            "train.vocabulary 300",
        ),
    ],
)
def test_a_base_model_that_cannot_be_made_is_a_usage_error(keys: dict[str, Any], said: str) -> None:
    texts = keys.pop("names", ["a name"])
    with pytest.raises(UsageError) as caught:
        load_model(config(**keys), texts)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def bert(names: list[str], place: Path) -> None:
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(names, vocab_size=300, show_progress=False)
    tokenizer = BertTokenizer(vocab=pieces.get_vocab())
    BertModel(BertConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(place)
    tokenizer.save_pretrained(place)


def xlm_roberta(names: list[str], place: Path) -> None:
    trained = train_tokenizer(names, 300, 16).backend_tokenizer
    learnt = [(text, score) for text, score in json.loads(trained.to_str())["model"]["vocab"][4:]]
    special = [(text, 0.0) for text in ("<s>", "<pad>", "</s>", "<unk>")]
    tokenizer = XLMRobertaTokenizer(vocab=[*special, *learnt, ("<mask>", 0.0)])
    shape = {"max_position_embeddings": 20, **SHAPE}
    XLMRobertaModel(XLMRobertaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(place)
    tokenizer.save_pretrained(place)


def export_and_compare(model: Path, directory: Path, pooling: str, quantize: bool) -> float:
    """Export, and the least cosine between torch and the query encoder on texts of every length."""
    texts = ["a", "", "zaza sima", "ß 日本 😀", "tura luze " * 30, "dure nide"]
    export_encoder(
        model,
        directory,
        name="made",
        pooling=pooling,
        max_length=12,
        quantize=quantize,
        samples=texts,
    )
    encoder, tokenizer = reload_model(model, pooling)
    expected = embed_names(encoder.eval(), tokenizer, texts, 12).numpy()
    query_encoder = OnnxEncoder(directory, threads=1)
    vectors = query_encoder.encode(texts)
    assert query_encoder.config.name == "made"
    assert query_encoder.dimension == expected.shape[1]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    return float(np.min(np.sum(expected * vectors, axis=1)))


def test_an_exported_encoder_is_whitened_and_cut(tmp_path: Path, names: Names) -> None:
    torch.manual_seed(0)
    texts = names.texts.to_pylist()
    bert(texts, tmp_path / "hub")
    export_encoder(
        tmp_path / "hub",
        tmp_path / "onnx",
        name="white",
        pooling="mean",
        max_length=12,
        quantize=True,
        samples=texts,
        whiten=1.0,
        dimensions=8,
    )
    encoder, tokenizer = reload_model(tmp_path / "hub", "mean")
    plain = embed_names(encoder.eval(), tokenizer, texts, 12).numpy()
    expected = plain @ whitening(plain, 1.0, 8)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    query_encoder = OnnxEncoder(tmp_path / "onnx", threads=1)
    vectors = query_encoder.encode(texts)
    assert query_encoder.dimension == 8
    assert np.mean(np.sum(vectors * expected, axis=1)) > 0.999

    def spread(vectors: np.ndarray) -> float:
        """How much the greatest direction outweighs the average."""
        values = np.linalg.eigvalsh(vectors.T @ vectors)
        return float(values[-1] / values.mean())

    assert spread(vectors) < 0.5 * spread(plain)


@pytest.mark.parametrize("make", [bert, xlm_roberta])
def test_a_checkpoint_in_the_hubs_layout_trains_and_exports(
    tmp_path: Path, names: Names, make: Callable[[list[str], Path], None]
) -> None:
    torch.manual_seed(0)
    make(names.texts.to_pylist(), tmp_path / "hub")
    keys = {"base_model": str(tmp_path / "hub"), "steps": 3, "learning_rate": 1e-2}
    encoder, tokenizer = load_model(config(**keys), [])
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert encoder.pooling == "cls"
    ids, mask = tokenize(tokenizer, ["zaza sima", "a"], 12)
    vectors = encoder.eval()(ids, mask)
    states = encoder.transformer(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    assert torch.allclose(vectors, torch.nn.functional.normalize(states, dim=-1))
    model = train_encoder(names, config(**keys), tmp_path / "training", quiet)
    assert not equal(
        load_file(model / "model.safetensors"), load_file(tmp_path / "hub" / "model.safetensors")
    )
    assert export_and_compare(model, tmp_path / "onnx", "cls", quantize=False) > 0.9999


def test_an_int8_encoder_is_small_and_near_the_model(tmp_path: Path, trained: Path) -> None:
    cosine = export_and_compare(trained / "model", tmp_path / "int8", "mean", quantize=True)
    assert cosine > 0.998
    size = (tmp_path / "int8" / "model.onnx").stat().st_size
    assert size < 0.4 * (trained / "model" / "model.safetensors").stat().st_size
    assert not (tmp_path / "int8.new").exists()


def test_an_int8_encoder_gives_a_text_the_same_vector_in_any_company(
    tmp_path: Path, trained: Path
) -> None:
    export_and_compare(trained / "model", tmp_path / "int8", "mean", quantize=True)
    encoder = OnnxEncoder(tmp_path / "int8", threads=1)
    texts = ["zaza sima", "tura", "😀 " * 9, "ZAZA", ""]
    alone = np.vstack([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts, batch_size=5), alone, atol=1e-5)


@pytest.mark.parametrize("extreme", [1.0, 1e4, 0.0])
def test_a_product_of_integers_is_near_that_of_the_floats_and_overflows_nowhere(
    tmp_path: Path, extreme: float
) -> None:
    """Whatever the weights are used for; of tokens that are all zeros, or far larger than their neighbours, too."""
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(size=(64, 64)).astype(np.float32)
        for name in ("embedding", "first", "second", "tied", "turned")
    }
    weights["first"][:] = np.where(weights["first"] < 0, -1, 1)  # the most that two products sum to
    graph = onnx.parser.parse_graph(
        """
        graph (int64[n] ids, float[n, 1] size) => (float[n, 64] out, float[n, 64] tied_out) {
            row = Gather (embedding, ids)
            tokens = Mul (row, size)
            one = MatMul (tokens, first)
            two = MatMul (tokens, second)
            columns = Transpose (turned)
            three = MatMul (tokens, columns)
            out = Sum (one, two, three)
            tied_row = Gather (tied, ids)
            tied_out = MatMul (tied_row, tied)
        }
        """
    )
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in weights.items()
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    ids = np.array([3, 5, 8, 63])
    feeds = {"ids": ids, "size": np.array([[1], [extreme], [0.1], [1]], np.float32)}
    expected = onnxruntime.InferenceSession(path).run(None, feeds)
    export._quantize(path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    for values, right in zip(session.run(None, feeds), expected, strict=True):
        largest = np.abs(right).max(axis=1, keepdims=True)
        assert np.all(np.abs(values - right) <= 0.03 * largest)
    alone = session.run(None, {name: rows[:1] for name, rows in feeds.items()})
    np.testing.assert_array_equal(alone[0], session.run(None, feeds)[0][:1])


def test_an_export_that_departs_from_the_model_is_refused_and_the_old_one_stays(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "old").write_text("old")
    right = OnnxEncoder.encode
    monkeypatch.setattr(OnnxEncoder, "encode", lambda self, texts: right(self, texts)[::-1])
    with pytest.raises(InvalidArtifactError, match="departs from the model: cosine"):
        export_and_compare(trained / "model", tmp_path / "onnx", "mean", quantize=False)
    assert (tmp_path / "onnx" / "old").read_text() == "old"
