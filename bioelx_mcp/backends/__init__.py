"""Who reads a prompt: a Backend says how far a model leans to each label as the next word after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Backend", "Model", "Prompts"]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rendered prompts that share all but their document; what they share comes first, for prefix caching.

    `prefix` and `suffix` are the chat format written out, the system message within `prefix`; servers that apply
    a chat template of their own are given `system` and `query` + document instead. `topic` is the marked mention in
    its context alone, for rerankers that have their own prompt. `labels` are the words that the model chooses from.
    """

    system: str
    prefix: str
    query: str
    documents: tuple[str, ...]
    suffix: str
    labels: tuple[str, ...]
    instruction: str = ""
    topic: str = ""

    @property
    def head(self) -> str:
        """What stands before every document."""
        return self.prefix + self.query

    @property
    def tails(self) -> list[str]:
        """Each document, and what stands behind it."""
        return [document + self.suffix for document in self.documents]


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answers; `max_tokens` is the longest prompt it reads, None where nobody says."""

    name: str
    max_tokens: int | None = None


class Backend(Protocol):
    """A model that chooses between labels. All methods run in one event loop; every wait in them has a limit."""

    async def connect(self) -> Model:
        """The model that answers; the first call finds out what the server offers, the others remember.

        Raises:
            RankerBackendError: the server cannot be reached in time, or offers nothing that can be used.
        """

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; never fewer than there are."""

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        """For each document the log-weight of each label, up to a constant of the document; higher is likelier.

        Raises:
            RankerBackendError: the server cannot be reached in time, or its answer cannot be used.
        """

    async def close(self) -> None:
        """Nothing is held any more."""


def count_bytes(texts: Sequence[str]) -> list[int]:
    """An upper bound of the tokens where no tokenizer is at hand: no piece of a tokenizer is shorter than a byte."""
    return [len(text.encode()) for text in texts]
