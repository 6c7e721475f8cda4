"""Who scores a prompt: a Backend gives log-odds of "yes" for documents that share a query."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Backend"]


class Backend(Protocol):
    """A model server, seen as a scorer of rendered prompts."""

    @property
    def model(self) -> str:
        """The id of the model that answers; asks the server the first time."""

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        """Log-odds of "yes" for query + document, in the order of the documents; higher is better.

        Raises:
            RankerBackendError: the server cannot be reached in time, or its answer cannot be used.
        """
