"""Training in two real processes: the loss curve, the weights and a resume are those of one."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bioelx_mcp.errors import UsageError
from builder.conftest import tables_of
from index_builder import launch, train
from index_builder.config import SourceConfig, TrainConfig
from index_builder.launch import launch_training
from index_builder.losses import make_loss
from index_builder.pairs import read_names
from index_builder.sources import open_source
from index_builder.train import train_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT: dict[str, Any] = {
    "steps": 24,
    "learning_rate": 1e-3,  # a greater one amplifies rounding, and what is mined then turns on the processor
    "batch_pairs": 31,  # no multiple of the processes
    "vocabulary": 300,
    "max_length": 12,
    "checkpoint_steps": 12,
    "validation_concepts": 20,
    "hard_negatives": 0.3,
    "mining_steps": 12,
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, invented_tsv: Path) -> Path:
    directory = tmp_path_factory.mktemp("tables")
    tables_of([open_source(SourceConfig(kind="table", path=invented_tsv))], directory)
    return directory


def config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SHORT, **keys})


def metrics(directory: Path) -> list[dict[str, float]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_two_processes_train_as_one_does_and_resume_to_the_same_weights(
    tmp_path: Path, tables: Path
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    train_encoder(read_names(tables, {}), config(), alone, lambda *_: None)
    seen: list[tuple[int, int, str]] = []
    keys = config(processes=2, forward_names=20)
    model = launch_training(tables, keys, together, lambda *told: seen.append(told))
    assert model == together / "model"
    assert seen[-1][:2] == (24, 24)
    assert [line["step"] for line in metrics(together)] == [12, 20, 24]
    for key in ("loss", "learning_rate", "validation_recall@1"):
        one, two = ([line[key] for line in metrics(of) if key in line] for of in (alone, together))
        assert two == pytest.approx(one, rel=2e-3, abs=0.09 if key.startswith("validation") else 0)
    expected = load_file(alone / "model" / "model.safetensors")
    found = load_file(together / "model" / "model.safetensors")
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=2e-3), name
    # The checkpoint of step 12 is still there: training goes on from it, and to the same end.
    before = metrics(together)
    launch_training(tables, keys, together, lambda *_: None)
    assert metrics(together) == before
    again = load_file(together / "model" / "model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in found.items())


@pytest.mark.parametrize("loss", ["multi-similarity", "infonce"])
def test_the_gradients_of_shares_add_up_to_that_of_the_whole_batch(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(10, 4), dim=-1)
    labels, homonyms = torch.arange(5).repeat(2), torch.zeros(10, 10, dtype=torch.bool)
    loss_of = partial(make_loss(config(loss=loss)), labels=labels, homonyms=homonyms)

    def gradient(own: Tensor) -> tuple[float, Tensor]:
        leaf = vectors.clone().requires_grad_()
        others = vectors.clone()
        others[own] = 0.0  # what the other processes send
        monkeypatch.setattr(train, "reduce", lambda sent, how: sent + others)
        found = train._whole_loss(loss_of, own, len(vectors), leaf[own])
        found.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return found.item(), leaf.grad

    whole, expected = gradient(torch.arange(10))
    shares = [gradient(torch.arange(first, 10, 3)) for first in range(3)]
    assert [value for value, _ in shares] == pytest.approx([whole] * 3)
    assert torch.allclose(shares[0][1] + shares[1][1] + shares[2][1], expected, atol=1e-6)


def test_a_batch_of_fewer_pairs_than_processes_is_refused(
    tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = SimpleNamespace(num_processes=32)
    monkeypatch.setattr(train, "PartialState", lambda **_: many)
    with pytest.raises(UsageError, match="a batch of 31 pairs cannot be shared by 32 processes"):
        train_encoder(read_names(tables, {}), config(), tmp_path, lambda *_: None)


def test_a_process_that_fails_says_why_and_ends_the_training(
    tmp_path: Path, tables: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = config(processes=2, base_model="scratch:huge")
    with pytest.raises(UsageError, match="training in 2 processes failed"):
        launch_training(tables, keys, tmp_path, lambda *_: None)
    assert "unknown scratch size 'huge'" in capfd.readouterr().err


def test_more_processes_than_gpus_are_refused(
    tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=r"train\.processes 3: this machine has 2 GPUs"):
        launch_training(tables, config(processes=3), tmp_path, lambda *_: None)


def test_a_process_on_its_own_does_the_job_it_finds(
    tmp_path: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = config(steps=2, hard_negatives=0.0, validation_concepts=0)
    job = {"tables": str(tables), "train": keys.model_dump(mode="json")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert launch.main([str(tmp_path)]) == 0
    assert (tmp_path / "model" / "model.safetensors").exists()
    job["train"] = {**keys.model_dump(mode="json"), "base_model": "/no/such/model"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "job.json").write_text(json.dumps(job))
    assert launch.main([str(other)]) == 2
    assert "base model '/no/such/model' cannot be loaded" in capsys.readouterr().err
