"""A training's checkpoint: weights and optimizer state (safetensors), and the step; replaced as a whole."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def save_checkpoint(
    directory: Path, encoder: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write a checkpoint beside the last one, then put it in its place: one of the two is always whole."""
    fresh = directory.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(
        {n: p.detach().contiguous() for n, p in encoder.named_parameters()},
        fresh / "weights.safetensors",
    )
    states = optimizer.state_dict()["state"]
    moments = {f"{i}.{n}": v.contiguous() for i, state in states.items() for n, v in state.items()}
    save_file(moments, fresh / "optimizer.safetensors")
    (fresh / "step.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    old = directory.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(directory: Path, encoder: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the last whole checkpoint, if there is one; the step to go on from."""
    for place in (directory, directory.with_suffix(".old")):
        if (place / "step.json").exists():
            break
    else:
        return 0
    encoder.load_state_dict(load_file(place / "weights.safetensors"), strict=False)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(place / "optimizer.safetensors").items():
        number, _, field = name.partition(".")
        states.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return int(json.loads((place / "step.json").read_text(encoding="utf-8"))["step"])
