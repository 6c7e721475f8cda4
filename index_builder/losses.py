"""The two losses of self-alignment; both see 2n names, and never push apart concepts that share a name.

Multi-similarity with online hard-pair mining: Liu et al. 2021, "Self-alignment pretraining for biomedical
entity representations", section 2. InfoNCE: van den Oord et al. 2018.
"""

from typing import Protocol

import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor, nn

from index_builder.config import TrainConfig


class PairLoss(Protocol):
    """Scalar loss of unit vectors (2n, d); rows i and n+i are a pair.

    `labels` (2n,) are their concepts; `homonyms`, bool (2n, 2n), says whose concepts share a name.
    """

    def __call__(self, vectors: Tensor, labels: Tensor, homonyms: Tensor) -> Tensor: ...


class MultiSimilarity(nn.Module):
    """alpha 1, beta 60, base 0.5, over the triplets that violate a margin of 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MultiSimilarityLoss(alpha=1.0, beta=60.0, base=0.5)
        self.miner = TripletMarginMiner(margin=0.2, type_of_triplets="all")

    def forward(self, vectors: Tensor, labels: Tensor, homonyms: Tensor) -> Tensor:
        anchor, positive, negative = self.miner(vectors, labels)
        keep = ~(homonyms[anchor, negative] | homonyms[positive, negative])
        mined = (anchor[keep], positive[keep], negative[keep])
        return self.loss(vectors, labels, mined)  # type: ignore[no-any-return]


class InfoNCE(nn.Module):
    """Cross entropy of the pair against every other concept of the batch, both ways."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, vectors: Tensor, labels: Tensor, homonyms: Tensor) -> Tensor:
        n = len(vectors) // 2
        logits = vectors @ vectors.T / self.temperature
        related = (labels[:, None] == labels[None, :]) | homonyms
        partner = torch.arange(2 * n, device=vectors.device).roll(n)
        related[torch.arange(2 * n, device=vectors.device), partner] = False
        return nn.functional.cross_entropy(logits.masked_fill(related, float("-inf")), partner)


def make_loss(config: TrainConfig) -> PairLoss:
    return InfoNCE(config.temperature) if config.loss == "infonce" else MultiSimilarity()
