"""Piece dropout: names cut into other pieces than the tokenizer would choose, as an inflected or misspelt word is.

Subword regularization (Kudo, ACL 2018) with a draw that repeats under its seed, which the sampling of the tokenizers
library does not: a share of the vocabulary is missing for a while.
"""

import json
from copy import deepcopy

import numpy as np
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.errors import UsageError

DROPPED_STEPS = 10  # for which the same pieces are missing
_IMPOSSIBLE = -100.0  # log-probability of a piece that is missing: no cut into others is worse


def drop_pieces(
    tokenizer: PreTrainedTokenizerFast, share: float, rng: np.random.Generator
) -> PreTrainedTokenizerFast:
    """The tokenizer without a share of its pieces; those of one letter and special ones stay, ids are the same.

    Raises:
        UsageError: its pieces are neither those of a unigram model nor WordPiece.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    missing = rng.random(len(model["vocab"])) < share
    keep = set(tokenizer.all_special_tokens)
    fewer = deepcopy(tokenizer)
    if model["type"] == "Unigram":
        vocabulary = [
            (piece, _IMPOSSIBLE if gone and len(piece.strip("▁")) > 1 and piece not in keep else p)
            for (piece, p), gone in zip(model["vocab"], missing, strict=True)
        ]
        fewer.backend_tokenizer.model = models.Unigram(
            vocabulary, model["unk_id"], model["byte_fallback"]
        )
    elif model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        fewer.backend_tokenizer.model = models.WordPiece(
            {
                piece: number
                for (piece, number), gone in zip(model["vocab"].items(), missing, strict=True)
                if not gone or len(piece.removeprefix(prefix)) == 1 or piece in keep
            },
            unk_token=model["unk_token"],
            max_input_chars_per_word=model["max_input_chars_per_word"],
            continuing_subword_prefix=prefix,
        )
    else:
        raise UsageError(
            f"piece_dropout wants a tokenizer of unigram or WordPiece pieces, not {model['type']}"
        )
    return fewer
