"""The second look: a few lettered options and "none of them" in one prompt, in several cyclic orders.

A model leans to some letters and places whatever stands there (Zheng et al., arXiv 2309.03882); over cyclic
orders that leaning is told from what the options are worth by least squares, and removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.backends import Backend
from bioelx_mcp.prompt import ListwisePrompt
from bioelx_mcp.render import LETTERS, Description, fit_prompts
from bioelx_mcp.schema import Mention

NONE = -1  # the option that no candidate fits


@dataclass(frozen=True)
class Verdict:
    """A probability for each candidate and for NIL, which sum to 1; and how many orders agree on the likeliest."""

    probabilities: list[float]
    nil: float
    agreement: float


class SecondLook:
    """Chooses among the best candidates with a model that writes."""

    def __init__(self, prompt: ListwisePrompt, backend: Backend) -> None:
        self.prompt = prompt
        self.backend = backend

    async def choose(self, mention: Mention, told: Sequence[Description]) -> tuple[Verdict, str]:
        """The verdict on the descriptions, and which model and prompt gave it.

        Raises:
            RankerBackendError: the server does not answer, or not with letters.
        """
        model = await self.backend.connect()
        orders = cyclic_orders(len(told), self.prompt.orders)
        limit = model.max_tokens or self.prompt.max_tokens
        count = self.backend.count_tokens
        prompts = await fit_prompts(self.prompt, mention, told, limit, count, orders)
        letters = tuple(LETTERS[: len(told) + 1])
        weights = await self.backend.score_labels(replace(prompts, labels=letters))
        return settle(orders, weights), f"{model.name}/{self.prompt.label}"


def cyclic_orders(candidates: int, most: int) -> list[list[int]]:
    """At most `most` orders of the candidates' places and NONE, each one place further than the one before.

    One place, since then letters and options all hang together, and the least squares have one answer.
    """
    places = [*range(candidates), NONE]
    return [places[i:] + places[:i] for i in range(min(most, len(places)))]


def settle(orders: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]) -> Verdict:
    """The verdict from the log-weight of each letter in each order.

    Least squares for log-probability = leaning to the letter + worth of the option.
    """
    size = len(orders[0])
    seen: NDArray[np.float64] = np.array(weights, dtype=np.float64)
    seen -= np.logaddexp.reduce(seen, axis=1, keepdims=True)
    rows = np.arange(seen.size)
    option = np.array(orders).ravel() % size  # NONE is the last
    design = np.zeros((seen.size, 2 * size))
    design[rows, rows % size] = 1.0
    design[rows, size + option] = 1.0
    found = np.linalg.lstsq(design, seen.ravel(), rcond=None)[0]
    leaning, worth = found[:size], found[size:]
    probabilities = np.exp(worth - np.logaddexp.reduce(worth))
    firsts = option.reshape(seen.shape)[np.arange(len(orders)), (seen - leaning).argmax(axis=1)]
    agreement = float(np.mean(firsts == worth.argmax()))
    return Verdict(probabilities[:-1].tolist(), float(probabilities[-1]), agreement)
