"""SapBERT self-alignment: names to an encoder, resumable at its checkpoints to the same loss curve.

training/base/            the untrained model and tokenizer, in the hub's layout
training/checkpoint/      weights, optimizer state (safetensors) and step of the last checkpoint
training/neighbours-STEP.safetensors  the hard negatives in force from a step on
training/metrics.jsonl    step, loss, learning rate; validation recall@1 at checkpoints
training/model/           the trained model and tokenizer, in the hub's layout; README.md is its card

Launched in several processes (launch.py), each encodes its share of a batch; the loss is that of the whole batch.
"""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import write_atomically
from index_builder.checkpoint import load_checkpoint, save_checkpoint
from index_builder.config import Report, TrainConfig
from index_builder.losses import make_loss
from index_builder.mining import mine_neighbours
from index_builder.model import (
    TextEncoder,
    backward_in_chunks,
    encode_by_length,
    join_tokens,
    load_model,
    reload_model,
    save_model,
    tokenize,
)
from index_builder.pairs import Names, PairSampler, cap_names, sample_texts, split_concepts
from index_builder.respelling import respell_pairs
from index_builder.segmentation import DROPPED_STEPS, drop_pieces

METRICS_FILE = "metrics.jsonl"
_LOG_EVERY = 20
_TOKENIZER_NAMES = 500_000  # names that a tokenizer from scratch learns from
_PATIENCE = timedelta(hours=6)  # of the other processes, while the first mines or validates


def train_encoder(names: Names, config: TrainConfig, directory: Path, progress: Report) -> Path:
    """Train (or go on training) in `directory`; the directory of the trained model comes back."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    training, validation = split_concepts(names, config.validation_concepts, config.seed)
    training = cap_names(training, config.names_per_concept, config.language_exponent, config.seed)
    sampler = PairSampler(
        training,
        cross_lingual=config.cross_lingual,
        cross_source=config.cross_source,
        exponent=config.language_exponent,
        seed=config.seed,
    )
    # No more pairs than concepts: of a few concepts the miner's triplets would grow with the cube of the batch.
    pairs = min(config.batch_pairs, sampler.concepts)
    if pairs < state.num_processes:
        raise UsageError(
            f"a batch of {pairs} pairs cannot be shared by {state.num_processes} processes"
        )
    base = directory / "base"
    with state.main_process_first():
        if not base.exists():
            texts = sample_texts(training, _TOKENIZER_NAMES, config.language_exponent, config.seed)
            fresh = base.with_suffix(".new")
            save_model(*load_model(config, texts), fresh)
            fresh.rename(base)
    encoder, tokenizer = reload_model(base, config.pooling)
    encoder.to(state.device).train()
    optimizer = torch.optim.AdamW(
        encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    loss_of = make_loss(config)
    start = load_checkpoint(directory / "checkpoint", encoder, optimizer)
    if state.is_main_process:
        _forget_metrics(directory / METRICS_FILE, start)
    recall = float("nan")
    neighbours: NDArray[np.int32] | None = None
    fewer = tokenizer  # that second names are cut by
    for step in range(start, config.steps):
        # dropout: the same after a resume, another in each process
        torch.manual_seed(config.seed * 1_000_003 + step + 500_009 * state.process_index)
        rate = config.learning_rate * _schedule(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if config.hard_negatives and (step == start or step % config.mining_steps == 0):
            with state.main_process_first():  # the others find the file
                neighbours = _neighbours(directory, step, encoder, tokenizer, sampler, config)
        first, second = sampler.sample_pairs(step, pairs, neighbours, config.hard_negatives)
        rows = np.concatenate([first, second])
        texts = training.text(rows)
        if config.respelt:
            rng = np.random.default_rng([config.seed, 6, step])
            texts = respell_pairs(texts, training.language[rows], config.respelt, rng)
        if config.piece_dropout and (step == start or step % DROPPED_STEPS == 0):
            rng = np.random.default_rng([config.seed, 7, step // DROPPED_STEPS])
            fewer = drop_pieces(tokenizer, config.piece_dropout, rng)
        mine = np.arange(state.process_index, len(rows), state.num_processes)
        ids, mask = _tokenize_pairs(tokenizer, fewer, texts, mine, config.max_length)
        labels, homonyms, own = (
            torch.from_numpy(a).to(state.device)
            for a in (training.concept[rows], sampler.homonyms(rows), mine)
        )
        optimizer.zero_grad()
        share_loss = partial(
            _whole_loss, partial(loss_of, labels=labels, homonyms=homonyms), own, len(rows)
        )
        loss = _backward(encoder, ids.to(state.device), mask.to(state.device), share_loss, config)
        if state.num_processes > 1:
            for weight in encoder.parameters():
                weight.grad = None if weight.grad is None else reduce(weight.grad, "sum")
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        checkpoint = done % config.checkpoint_steps == 0
        if not state.is_main_process or not (
            checkpoint or done % _LOG_EVERY == 0 or done == config.steps
        ):
            continue
        line = {"step": done, "loss": round(loss.item(), 5), "learning_rate": rate}
        if checkpoint or done == config.steps:
            recall = validation_recall(encoder, tokenizer, validation, training, config)
            line["validation_recall@1"] = round(recall, 4)
        with (directory / METRICS_FILE).open("a", encoding="utf-8") as metrics:
            metrics.write(json.dumps(line) + "\n")
        progress(done, config.steps, render_metrics(loss.item(), recall))
        if checkpoint and done < config.steps:
            save_checkpoint(directory / "checkpoint", encoder, optimizer, done)
    model = directory / "model"
    if state.is_main_process:
        save_model(encoder.eval(), tokenizer, model)
    state.wait_for_everyone()
    return model


def render_metrics(loss: float, recall: float) -> str:
    """What a training shows of itself."""
    return f"loss {loss:.3f} · validation recall@1 {recall:.3f}"


def _tokenize_pairs(
    tokenizer: PreTrainedTokenizerFast,
    fewer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    mine: NDArray[np.int64],
    max_length: int,
) -> tuple[Tensor, Tensor]:
    """Token ids and mask of the rows `mine` of the names of n pairs (2n); second ones are cut by the tokenizer of fewer pieces."""
    half = np.searchsorted(mine, len(texts) // 2)
    parts = ((tokenizer, mine[:half]), (fewer, mine[half:]))
    each = [
        tokenize(by, [texts[row] for row in rows], max_length) for by, rows in parts if len(rows)
    ]
    return join_tokens(each, tokenizer.pad_token_id)


def _whole_loss(
    loss_of: Callable[[Tensor], Tensor], own: Tensor, count: int, vectors: Tensor
) -> Tensor:
    """The loss of a batch of `count` names, of which `vectors` are the rows `own`: the gradient flows to these alone.

    Each process has its rows and computes the whole loss; the gradients of the weights, added up over the
    processes, are then those of one process with all rows.
    """
    if len(own) == count:
        return loss_of(vectors)
    whole = vectors.new_zeros(count, vectors.shape[1])
    whole[own] = vectors.detach()
    return loss_of(reduce(whole, "sum").index_copy(0, own, vectors))


def _backward(
    encoder: TextEncoder,
    ids: Tensor,
    mask: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    config: TrainConfig,
) -> Tensor:
    """The loss of a batch, its gradient added to the weights."""
    half = config.precision == "bfloat16"

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=half):
            return encoder(ids, mask)  # type: ignore[no-any-return]

    if config.forward_names:
        return backward_in_chunks(encode, ids, mask, config.forward_names, loss_of)
    loss = loss_of(encode_by_length(encode, ids, mask))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _schedule(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then linear decay to zero."""
    warm = max(1, int(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    return max(0.0, (config.steps - step) / max(1, config.steps - warm))


@torch.no_grad()
def embed_names(
    encoder: TextEncoder, tokenizer: PreTrainedTokenizerFast, texts: list[str], max_length: int
) -> torch.Tensor:
    """Float32 (len(texts), dimension) on the CPU, rows of unit norm."""
    device = next(encoder.parameters()).device
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out: torch.Tensor | None = None
    for start in range(0, len(order), 256):
        rows = order[start : start + 256]
        ids, mask = tokenize(tokenizer, [texts[row] for row in rows], max_length)
        vectors = encoder(ids.to(device), mask.to(device)).float().cpu()
        out = torch.empty(len(texts), vectors.shape[1]) if out is None else out
        out[rows] = vectors
    return out if out is not None else torch.empty(0, 0)


def validation_recall(
    encoder: TextEncoder,
    tokenizer: PreTrainedTokenizerFast,
    validation: Names,
    distractors: Names,
    config: TrainConfig,
    most: int = 10_000,
) -> float:
    """Share of held-out concepts one of whose names finds another of them first, among distractors.

    The names of the held-out concepts and `most` training names make the dictionary; a name equal to the
    query but for spelling does not count. NaN without held-out concepts.
    """
    if len(validation) == 0:
        return float("nan")
    rng = np.random.default_rng([config.seed, 3])
    others = rng.choice(len(distractors), size=min(most, len(distractors)), replace=False)
    concept = np.concatenate([validation.concept, distractors.concept[others]])
    key = np.concatenate([validation.key, distractors.key[others]])
    texts = validation.text(np.arange(len(validation))) + distractors.text(others)
    encoder.eval()
    vectors = embed_names(encoder, tokenizer, texts, config.max_length)
    encoder.train()
    starts = np.flatnonzero(np.diff(validation.concept, prepend=-1))
    sizes = np.diff(np.append(starts, len(validation)))
    queries = starts + (rng.random(len(starts)) * sizes).astype(np.int64)
    similarity = (vectors[torch.from_numpy(queries)] @ vectors.T).numpy()
    similarity[key[queries][:, None] == key[None, :]] = -1.0
    return float(np.mean(concept[similarity.argmax(1)] == concept[queries]))


def _neighbours(
    directory: Path,
    step: int,
    encoder: TextEncoder,
    tokenizer: PreTrainedTokenizerFast,
    sampler: PairSampler,
    config: TrainConfig,
) -> NDArray[np.int32]:
    """The neighbours in force at a step: mined when its stretch of `mining_steps` began, kept for a resume."""
    begin = step - step % config.mining_steps
    path = directory / f"neighbours-{begin:07d}.safetensors"
    if path.exists():
        return load_file(path)["neighbours"].numpy()
    encoder.eval()
    found = mine_neighbours(
        sampler,
        lambda texts: embed_names(encoder, tokenizer, texts, config.max_length),
        config.seed,
        begin,
    )
    encoder.train()
    fresh = path.with_suffix(".new")
    save_file({"neighbours": torch.from_numpy(found)}, fresh)
    fresh.rename(path)
    for older in sorted(directory.glob("neighbours-*.safetensors"))[:-2]:
        older.unlink()
    return found


def _forget_metrics(path: Path, start: int) -> None:
    """Drop the lines after step `start`: those steps are done again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= start]
    write_atomically(path, "".join(kept))
