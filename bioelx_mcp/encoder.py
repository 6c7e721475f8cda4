"""Text to vector: the Encoder protocol, and the CPU query encoder (ONNX Runtime and tokenizers).

An encoder directory holds `encoder.json`, `tokenizer.json` and `model.onnx`; pooling and the unit norm
are part of the graph, lower-casing and the like part of the tokenizer, so nothing is left to configure.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError
from bioelx_mcp.files import read_small

CONFIG_FILE = "encoder.json"
TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "model.onnx"


class EncoderConfig(BaseModel):
    """What `encoder.json` holds: `max_length` in tokens, special ones included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dimension: int
    max_length: int
    pad_token: str


class Encoder(Protocol):
    """Anything that gives texts unit vectors."""

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 (len(texts), dimension), rows of unit norm; row i belongs to text i."""


class OnnxEncoder:
    """The query encoder of an index: a transformer run by ONNX Runtime on the CPU."""

    def __init__(self, directory: Path, *, threads: int = 0) -> None:
        """Load an encoder directory.

        Args:
            directory: holds `encoder.json`, `tokenizer.json`, `model.onnx`.
            threads: intra-op threads; 0 lets ONNX Runtime choose.

        Raises:
            MissingArtifactError: a file is missing.
            InvalidArtifactError: a file cannot be used.
        """
        for name in (CONFIG_FILE, TOKENIZER_FILE, MODEL_FILE):
            if not (directory / name).is_file():
                raise MissingArtifactError(f"{directory} is no encoder: it lacks {name}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between the small batches of a server cost half of its CPU time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.config = EncoderConfig.model_validate_json(read_small(directory / CONFIG_FILE))
            tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
            self._session = onnxruntime.InferenceSession(
                str(directory / MODEL_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InvalidArtifactError(
                f"the encoder in {directory} cannot be loaded: {error}"
            ) from error
        tokenizer.enable_truncation(self.config.max_length)
        tokenizer.no_padding()
        self._pad = tokenizer.token_to_id(self.config.pad_token) or 0
        self._tokenizer = tokenizer

    @property
    def dimension(self) -> int:
        return self.config.dimension

    def encode(self, texts: Sequence[str], *, batch_size: int = 16) -> NDArray[np.float32]:
        """Float32 (len(texts), dimension), rows of unit norm; texts of like length in tokens are a batch."""
        vectors = np.empty((len(texts), self.config.dimension), dtype=np.float32)
        tokens = [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            lengths = np.array([len(tokens[row]) for row in rows])
            mask = np.arange(lengths[-1]) < lengths[:, None]
            ids = np.full(mask.shape, self._pad, dtype=np.int64)
            ids[mask] = np.concatenate([tokens[row] for row in rows])
            feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
            vectors[rows] = self._session.run(["vectors"], feeds)[0]
        return vectors
