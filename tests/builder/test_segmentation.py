"""Names cut into other pieces than the tokenizer would choose."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bioelx_mcp.errors import UsageError
from index_builder.config import STARTER_ENCODER
from index_builder.segmentation import drop_pieces

NAMES = ["myocardial infarction", "Lackschildläuse", "сердечный приступ", "ไซนัสอักเสบ", "C4 (III)"]


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=24
    )


def unigram() -> PreTrainedTokenizerFast:
    return fast(Tokenizer.from_file(str(STARTER_ENCODER / "tokenizer.json")))


def wordpiece() -> PreTrainedTokenizerFast:
    pieces = ["[PAD]", "[UNK]", "card", "cardio", "##io", "##pathy", *"acdiorpthy"]
    pieces += [f"##{letter}" for letter in "acdiorpthy"]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(tokenizer)


def without(
    tokenizer: PreTrainedTokenizerFast, share: float, seed: int = 0
) -> PreTrainedTokenizerFast:
    return drop_pieces(tokenizer, share, np.random.default_rng(seed))


def pieces(tokenizer: PreTrainedTokenizerFast, name: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(name)["input_ids"]))


@pytest.mark.parametrize(
    ("tokenizer", "names"), [(unigram(), NAMES), (wordpiece(), ["cardiopathy"])]
)
def test_a_name_is_cut_into_other_pieces_of_the_same_letters(
    tokenizer: PreTrainedTokenizerFast, names: list[str]
) -> None:
    def letters(cut: list[str]) -> str:
        return "".join(piece.removeprefix("##") for piece in cut)

    others = [without(tokenizer, 0.5, seed) for seed in range(8)]
    for name in names:
        whole = pieces(tokenizer, name)
        cuts = [pieces(other, name) for other in others]
        assert {letters(cut) for cut in cuts} == {letters(whole)}
        assert any(len(cut) > len(whole) for cut in cuts)
    assert pieces(without(tokenizer, 0.0), names[0]) == pieces(tokenizer, names[0])


@pytest.mark.parametrize("tokenizer", [unigram(), wordpiece()])
def test_letters_and_special_pieces_stay_with_their_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    letters = without(tokenizer, 0.999)
    assert letters.convert_tokens_to_ids(["[PAD]", "[UNK]"]) == tokenizer.convert_tokens_to_ids(
        ["[PAD]", "[UNK]"]
    )
    cut = pieces(letters, "cardiopathy")
    assert "".join(cut).replace("##", "").strip("▁[CLS]EP") == "cardiopathy"
    assert len(cut) >= len("cardiopathy")
    assert letters.convert_tokens_to_ids(cut) == tokenizer.convert_tokens_to_ids(cut)


def test_a_draw_repeats_under_its_seed_and_leaves_the_tokenizer_as_it_is() -> None:
    tokenizer = unigram()
    before = pieces(tokenizer, NAMES[0])
    cuts = [[pieces(without(tokenizer, 0.5, seed), name) for name in NAMES] for seed in (3, 3, 4)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert pieces(tokenizer, NAMES[0]) == before


def test_pieces_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match=r"piece_dropout wants .* not BPE"):
        without(fast(Tokenizer(models.BPE())), 0.5)
