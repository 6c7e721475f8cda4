"""A training in several processes: one for each GPU, or (slower than one, but the same) on CPUs.

training/job.json     what the processes are told: where the tables lie, and the settings

`python -m index_builder.launch DIRECTORY` is one of them; torch's launcher starts them here, `accelerate launch`
may do so elsewhere. The first alone writes; all see the whole batch (train.py).
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bioelx_mcp.errors import BioelxError, UsageError
from bioelx_mcp.manifest import write_atomically
from index_builder.config import Report, TrainConfig
from index_builder.pairs import read_names
from index_builder.train import METRICS_FILE, render_metrics, train_encoder

JOB_FILE = "job.json"
_LOOK_EVERY = 1.0  # seconds


def launch_training(tables: Path, config: TrainConfig, directory: Path, progress: Report) -> Path:
    """Train (or go on training) in `directory` with `config.processes` processes; the trained model's directory.

    Raises:
        UsageError: there are fewer GPUs than processes, or one of the processes failed.
    """
    if 0 < torch.cuda.device_count() < config.processes:
        raise UsageError(
            f"train.processes {config.processes}: this machine has {torch.cuda.device_count()} GPUs"
        )
    job = {"tables": str(tables.absolute()), "train": config.model_dump(mode="json")}
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / JOB_FILE, json.dumps(job, indent=1))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={config.processes}", "-m", __name__, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
    try:
        while process.poll() is None:
            try:
                process.wait(_LOOK_EVERY)
            except subprocess.TimeoutExpired:
                _follow(directory / METRICS_FILE, config.steps, progress)
    finally:
        process.terminate()  # a build that is stopped takes them with it
        process.wait()
    if process.returncode:
        raise UsageError(
            f"training in {config.processes} processes failed; what they said stands above"
        )
    _follow(directory / METRICS_FILE, config.steps, progress)
    return directory / "model"


def _follow(metrics: Path, steps: int, progress: Report) -> None:
    """Report the last line that the first process wrote."""
    text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if lines:
        recalls = [line["validation_recall@1"] for line in lines if "validation_recall@1" in line]
        recall = recalls[-1] if recalls else float("nan")
        progress(lines[-1]["step"], steps, render_metrics(lines[-1]["loss"], recall))


def main(arguments: Sequence[str]) -> int:
    """One of the processes; what is wrong goes to stderr in a line, and its exit status comes back."""
    directory = Path(arguments[0])
    try:
        job = json.loads((directory / JOB_FILE).read_text(encoding="utf-8"))
        config = TrainConfig.model_validate(job["train"])
        names = read_names(Path(job["tables"]), config.source_weights)
        train_encoder(names, config, directory, lambda *_: None)
    except BioelxError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
