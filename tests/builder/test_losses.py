"""The two losses: published values, and no push between homonyms."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor

from index_builder.config import TrainConfig
from index_builder.losses import InfoNCE, MultiSimilarity, make_loss


def batch(pairs: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random unit vectors near their concept's direction, labels, and that none shares a name."""
    torch.manual_seed(seed)
    centre = torch.randn(pairs, width).repeat(2, 1)
    vectors = torch.nn.functional.normalize(centre + torch.randn(2 * pairs, width), dim=-1)
    return (
        vectors,
        torch.arange(pairs).repeat(2),
        torch.zeros(2 * pairs, 2 * pairs, dtype=torch.bool),
    )


def multi_similarity_by_hand(vectors: Tensor, labels: Tensor, homonyms: Tensor) -> float:
    """Liu et al. 2021, section 2: pairs of triplets whose Euclidean distances violate the margin of 0.2."""
    s = (vectors.double() @ vectors.double().T).numpy()
    d = np.sqrt(np.maximum(2 - 2 * s, 0))
    total = 0.0
    rows = range(len(s))
    for a in rows:
        mined = [
            (p, n)
            for p in rows
            for n in rows
            if p != a
            and labels[p] == labels[a] != labels[n]
            and not (homonyms[a, n] or homonyms[p, n])
            if d[a, n] - d[a, p] <= 0.2
        ]
        positives, negatives = {p for p, _ in mined}, {n for _, n in mined}
        total += np.log1p(sum(np.exp(-(s[a, p] - 0.5)) for p in positives))
        total += np.log1p(sum(np.exp(60 * (s[a, n] - 0.5)) for n in negatives)) / 60
    return float(total / len(s))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_multi_similarity_is_the_published_loss_over_the_mined_triplets(seed: int) -> None:
    vectors, labels, homonyms = batch(8, 4, seed)
    loss = MultiSimilarity()(vectors, labels, homonyms)
    mined = TripletMarginMiner(margin=0.2)(vectors, labels)
    peer = MultiSimilarityLoss(alpha=1, beta=60, base=0.5)(vectors, labels, mined)
    assert loss.item() == pytest.approx(peer.item(), rel=1e-6)
    assert loss.item() == pytest.approx(
        multi_similarity_by_hand(vectors, labels, homonyms), rel=1e-4
    )
    others = (vectors @ vectors.T).masked_fill(labels[:, None] == labels, -1.0)
    first, second = divmod(int(others.argmax()), len(others))
    homonyms[first, second] = homonyms[second, first] = True  # the hardest negative
    loss = MultiSimilarity()(vectors, labels, homonyms)
    assert loss.item() < peer.item()
    assert loss.item() == pytest.approx(
        multi_similarity_by_hand(vectors, labels, homonyms), rel=1e-4
    )


def test_infonce_is_the_cross_entropy_of_the_pair_against_other_concepts() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    similar = {(0, 1): 0.0, (0, 2): 0.6, (0, 3): 0.8, (1, 2): 0.8, (1, 3): 0.6, (2, 3): 0.96}

    def one(row: int, partner: int, others: tuple[int, ...]) -> float:
        def e(i: int) -> float:
            return float(np.exp(similar[min(row, i), max(row, i)] / 0.5))

        return float(-np.log(e(partner) / (e(partner) + sum(e(i) for i in others))))

    loss, labels, none = InfoNCE(0.5), torch.tensor([0, 1, 0, 1]), torch.zeros(4, 4).bool()
    every = [one(0, 2, (1, 3)), one(1, 3, (0, 2)), one(2, 0, (1, 3)), one(3, 1, (0, 2))]
    assert loss(vectors, labels, none).item() == pytest.approx(np.mean(every), rel=1e-5)
    homonyms = none.clone()
    homonyms[0, 3] = homonyms[3, 0] = True
    less = [one(0, 2, (1,)), every[1], every[2], one(3, 1, (2,))]
    assert loss(vectors, labels, homonyms).item() == pytest.approx(np.mean(less), rel=1e-5)
    same = torch.zeros(4, dtype=torch.int64)  # both pairs are of one concept: nothing to tell apart
    assert loss(vectors, same, none).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", ["multi-similarity", "infonce"])
def test_no_loss_pushes_homonyms_apart(loss: str) -> None:
    """Only rows 0 and 1 tell of axis 1: the gradient of row 0 there is the push between these two."""
    loss_of = make_loss(TrainConfig.model_validate({"loss": loss}))
    labels = torch.tensor([0, 1, 0, 1])
    pushes = []
    homonyms = torch.zeros(4, 4, dtype=torch.bool)
    for shared in (False, True):
        homonyms[0, 1] = homonyms[1, 0] = shared
        vectors = torch.cat([0.4**0.5 * torch.eye(4), torch.full((4, 1), 0.6**0.5)], dim=1)
        loss_of(vectors.requires_grad_(), labels, homonyms).backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
        pushes.append(vectors.grad[0, 1].item())
    assert pushes[0] > 1e-3
    assert pushes[1] == 0.0


def test_a_batch_without_a_violating_triplet_costs_nothing_and_still_has_a_gradient() -> None:
    vectors = torch.eye(2).repeat(2, 1).requires_grad_()
    loss = MultiSimilarity()(vectors, torch.tensor([0, 1, 0, 1]), torch.zeros(4, 4).bool())
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad is not None
    assert not vectors.grad.any()
