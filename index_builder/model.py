"""The encoder in torch: a transformer with its pooling and unit norm, from a checkpoint or from scratch."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from bioelx_mcp.errors import UsageError
from index_builder.config import SCRATCH, TrainConfig

# hidden size, layers, heads
SCRATCH_SIZES = {"tiny": (128, 2, 2), "mini": (256, 3, 4), "small": (384, 6, 6)}
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


class TextEncoder(nn.Module):
    """Token ids and mask (n, t) to unit vectors (n, hidden), float32; (n, dimensions) behind a `projection`."""

    def __init__(self, transformer: nn.Module, pooling: str) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.projection: nn.Parameter | None = None  # (hidden, dimensions): whitening.py

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1)
        pooled = pooled.float()
        if self.projection is not None:
            pooled = pooled @ self.projection
        return nn.functional.normalize(pooled, dim=-1)


def tokenize(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_length: int
) -> tuple[Tensor, Tensor]:
    """(input_ids, attention_mask), int64 (n, t), padded to the longest."""
    batch = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=True,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    return batch["input_ids"], batch["attention_mask"]


def join_tokens(parts: Iterable[tuple[Tensor, Tensor]], padding: int) -> tuple[Tensor, Tensor]:
    """(input_ids, attention_mask) of several batches as one, padded to the longest with a token's id."""
    ids, masks = zip(*parts, strict=True)
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return pad([*chain(*ids)], padding_value=padding), pad([*chain(*masks)])


Encode = Callable[[Tensor, Tensor], Tensor]
"""Token ids and mask to unit vectors, as a TextEncoder does."""


def encode_by_length(
    encode: Encode, input_ids: Tensor, attention_mask: Tensor, chunks: int = 4
) -> Tensor:
    """As `encode(...)`, in chunks of like length: half the tokens of a batch of names are padding else."""
    lengths = attention_mask.sum(1)
    order = lengths.argsort()
    parts = []
    for rows in order.tensor_split(chunks):
        if len(rows):
            width = int(lengths[rows].max())
            parts.append(encode(input_ids[rows, :width], attention_mask[rows, :width]))
    return torch.cat(parts)[order.argsort()]


def backward_in_chunks(
    encode: Encode,
    input_ids: Tensor,
    attention_mask: Tensor,
    names: int,
    loss_of: Callable[[Tensor], Tensor],
) -> Tensor:
    """The loss of a whole batch, its gradient added to the weights, `names` of it through the model at once.

    Gradient caching (Gao et al., RepL4NLP 2021): vectors without a graph, the gradient of the loss by them,
    then each chunk once more with its part of that gradient. Dropout is drawn alike both times.
    """
    rows = [slice(start, start + names) for start in range(0, len(input_ids), names)]
    states, parts = [], []
    with torch.no_grad():
        for part in rows:
            states.append(_random_state(input_ids.device))
            parts.append(encode(input_ids[part], attention_mask[part]))
    vectors = torch.cat(parts).requires_grad_()
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    after = _random_state(input_ids.device)
    for part, state in zip(rows, states, strict=True):
        _set_random_state(state, input_ids.device)
        encode(input_ids[part], attention_mask[part]).backward(vectors.grad[part])  # type: ignore[no-untyped-call]
    _set_random_state(after, input_ids.device)
    return loss.detach()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def load_model(
    config: TrainConfig, names: Iterable[str]
) -> tuple[TextEncoder, PreTrainedTokenizerFast]:
    """The base model of a training; `names` train the tokenizer where it starts from scratch.

    Raises:
        UsageError: there is no such checkpoint or scratch size, or its tokenizer is no fast one.
    """
    if config.base_model.startswith(SCRATCH):
        return _from_scratch(config, names)
    try:
        return reload_model(config.base_model, config.pooling)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"base model {config.base_model!r} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error


def _from_scratch(
    config: TrainConfig, names: Iterable[str]
) -> tuple[TextEncoder, PreTrainedTokenizerFast]:
    size = config.base_model.removeprefix(SCRATCH)
    if size not in SCRATCH_SIZES:
        raise UsageError(f"unknown scratch size {size!r}; known: {', '.join(SCRATCH_SIZES)}")
    hidden, layers, heads = SCRATCH_SIZES[size]
    tokenizer = train_tokenizer(names, config.vocabulary, config.max_length)
    torch.manual_seed(config.seed)
    transformer = new_transformer(tokenizer, hidden, layers, heads, config.max_length)
    return TextEncoder(transformer, config.pooling), tokenizer


def new_transformer(
    tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int, max_length: int
) -> BertModel:
    """An untrained BERT for names: ReLU, no dropout, no pooler."""
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max(64, max_length),
        type_vocab_size=1,
        hidden_act="relu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertModel(shape, add_pooling_layer=False)


def train_tokenizer(
    names: Iterable[str], vocabulary: int, max_length: int, longest_piece: int = 8
) -> PreTrainedTokenizerFast:
    """A lower-casing unigram tokenizer over decomposed characters (accents and Hangul letters are pieces)."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL.values()),
        unk_token=_SPECIAL["unk_token"],
        max_piece_length=longest_piece,
        show_progress=False,
    )
    try:
        tokenizer.train_from_iterator(names, trainer)
    except Exception as error:  # tokenizers raises no class of its own
        raise UsageError(f"train.vocabulary {vocabulary}: {error}") from error
    cls, sep = (tokenizer.token_to_id(_SPECIAL[name]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=max_length, **_SPECIAL
    )


def save_model(encoder: TextEncoder, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """The transformer and tokenizer in the hub's layout (safetensors)."""
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    encoder.transformer.save_pretrained(directory)  # type: ignore[operator]
    tokenizer.save_pretrained(directory)


def reload_model(place: Path | str, pooling: str) -> tuple[TextEncoder, PreTrainedTokenizerFast]:
    """A checkpoint in the hub's layout: a directory, or a hub name. Only safetensors are read.

    Plain attention: for names of ten tokens its backward is several times faster on a CPU than the
    fused kernel's.

    Raises:
        OSError, ValueError: there is no such checkpoint, or its tokenizer is no fast one.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{place} has no fast tokenizer (tokenizer.json)")
    transformer = AutoModel.from_pretrained(
        place, trust_remote_code=False, use_safetensors=True, attn_implementation="eager"
    )
    if hasattr(transformer, "pooler"):
        transformer.pooler = None  # not used, and not always in the checkpoint
    return TextEncoder(transformer, pooling), tokenizer
