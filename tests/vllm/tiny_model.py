"""A tiny Qwen3 with random weights, and what transformers answers with it; run by VLLM_PYTHON.

tiny_model.py make DIRECTORY
tiny_model.py score DIRECTORY < [prompt, ...] > [logit(yes) - logit(no), ...]
"""

import json
import sys
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
MERGES = [("y", "e"), ("ye", "s"), ("n", "o"), ("t", "h"), ("th", "e"), ("i", "n"), ("e", "r")]


def make(directory: str) -> None:
    """Some 120,000 weights that tell prompts apart; all text is bytes to it, `yes` and `no` one token each."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in MERGES]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, MERGES))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=320,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # vLLM's attention on CPUs takes no less
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            initializer_range=0.3,  # wide: the answers differ clearly
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def score(directory: str, prompts: list[str]) -> list[float]:
    """Log-odds of `yes` against `no` as the next token."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    with torch.inference_mode():
        rows = [model(**tokenizer(p, return_tensors="pt")).logits[0, -1] for p in prompts]
    return [float(row[yes] - row[no]) for row in rows]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", directory]:
            make(directory)
        case ["score", directory]:
            json.dump(score(directory, json.load(sys.stdin)), sys.stdout)
