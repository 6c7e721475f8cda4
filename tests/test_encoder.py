"""The query encoder, run on the encoder that ships with the package."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bioelx_mcp.encoder import CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE, OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError
from index_builder.starter import ENCODER

FILES = (CONFIG_FILE, TOKENIZER_FILE, MODEL_FILE)
TEXTS = (
    "fever",
    "",
    "!",
    "ไซนัสอักเสบ",
    "心筋梗塞",
    "ارتفاع ضغط الدم",
    "🫀",
    "x" * 9000,
    "a b " * 900,
)
NOISE = 1e-5  # of a component: kernels differ with the width of a batch


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(ENCODER, threads=1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped encoder, to be spoilt."""
    return Path(shutil.copytree(ENCODER, tmp_path / "encoder"))


def test_vectors_are_float32_of_unit_norm_for_any_text(encoder: OnnxEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_text_gives_no_row(encoder: OnnxEncoder) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.dimension)
    assert vectors.dtype == np.float32


def test_row_i_belongs_to_text_i_however_the_texts_are_batched(encoder: OnnxEncoder) -> None:
    texts = [f"{'long ' * (i * 7 % 5)}name {i * i} of {i}" for i in range(150)]
    alone = np.vstack([encoder.encode([text]) for text in texts])
    for batch_size in (7, 64):
        together = encoder.encode(texts, batch_size=batch_size)
        np.testing.assert_allclose(together, alone, atol=NOISE)
    np.testing.assert_array_equal(encoder.encode(texts, batch_size=1), alone)
    assert len(np.unique(alone, axis=0)) > 100  # or the order would not show


def test_equal_texts_have_equal_vectors(encoder: OnnxEncoder) -> None:
    first, second = encoder.encode(["red fever", "red fever"])
    np.testing.assert_array_equal(first, second)


def test_a_long_text_counts_up_to_the_most_tokens_of_the_encoder(encoder: OnnxEncoder) -> None:
    long, longer, other = (["red fever " * 100], ["red fever " * 200], ["blue cough " * 100])
    np.testing.assert_array_equal(encoder.encode(long), encoder.encode(longer))
    assert np.abs(encoder.encode(long) - encoder.encode(other)).max() > NOISE


@pytest.mark.parametrize("name", FILES)
def test_an_encoder_that_lacks_a_file_is_missing(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(MissingArtifactError, match=f"{copy} is no encoder: it lacks {name}"):
        OnnxEncoder(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CONFIG_FILE, "{"),
        (CONFIG_FILE, '{"name": "x", "dimension": 8, "max_length": 9}'),
        (
            CONFIG_FILE,
            '{"name": "x", "dimension": 8, "max_length": 9, "pad_token": "", "pooling": 1}',
        ),
        (TOKENIZER_FILE, "{}"),
        (TOKENIZER_FILE, ""),
        (MODEL_FILE, "no graph"),
        (MODEL_FILE, ""),
    ],
)
def test_an_encoder_that_cannot_be_used_is_invalid(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    with pytest.raises(InvalidArtifactError, match=f"the encoder in {copy} cannot be loaded"):
        OnnxEncoder(copy)


def test_a_truncated_model_is_invalid(copy: Path) -> None:
    model = copy / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(InvalidArtifactError, match="cannot be loaded"):
        OnnxEncoder(copy)
