"""Hard negatives: for each concept those that the model, as it is now, takes for it.

A share of every batch is then made of such neighbours, so that the other pairs of a batch are worth telling
apart (Xiong et al., ICLR 2021, section 4, with in-batch negatives for the loss). Concepts that share a name are no
neighbours: they may be one that nobody has merged.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from index_builder.pairs import PairSampler

NEIGHBOURS = 8  # kept of each concept
TOO_NEAR = 0.95  # cosine above which two concepts are more likely one that nobody has merged
_CONCEPTS = 150_000  # looked at, the often drawn ones first
_TOP = 4 * NEIGHBOURS
_BATCH = 2048


def mine_neighbours(
    sampler: PairSampler,
    embed: Callable[[list[str]], torch.Tensor],
    seed: int,
    step: int,
    concepts: int = _CONCEPTS,
) -> NDArray[np.int32]:
    """Numbers (sampler.concepts, NEIGHBOURS) of confusable concepts, int32, nearest first; -1 where there is none.

    Args:
        sampler: whose concepts are meant.
        embed: texts to unit vectors, float32 (n, dimension).
        seed: with `step`, decides which names stand for a concept.
        step: of the training.
        concepts: how many of them, drawn by their share, are looked at.
    """
    rng = np.random.default_rng([seed, 4, step])
    chosen = np.unique(sampler.sample_concepts(2 * concepts, rng))
    chosen = np.sort(rng.permutation(chosen)[:concepts])
    queries = sampler.sample_names(chosen, rng)
    others = sampler.sample_names(chosen, rng)
    rows = np.unique(np.concatenate([queries, others]))  # the bank: two names of each
    owner = np.searchsorted(
        sampler.names.concept[sampler.starts[chosen]], sampler.names.concept[rows]
    )
    names, device = sampler.names, "cuda" if torch.cuda.is_available() else "cpu"
    bank = embed(names.text(rows)).to(device, torch.bfloat16)
    places = np.searchsorted(rows, queries)
    found = np.full((sampler.concepts, NEIGHBOURS), -1, dtype=np.int32)
    for start in range(0, len(chosen), _BATCH):
        part = slice(start, start + _BATCH)
        similarity = bank[torch.from_numpy(places[part]).to(device)] @ bank.T
        values, indices = (t.cpu() for t in similarity.topk(min(_TOP, len(rows)), dim=1))
        near = indices.numpy()
        mine = np.repeat(chosen[part], near.shape[1])
        homonyms = sampler.share_names(mine, chosen[owner[near]].ravel()).reshape(near.shape)
        usable = ~homonyms & (values.float().numpy() < TOO_NEAR)
        for number, (places_near, good) in enumerate(zip(near, usable, strict=True), start):
            concepts_near = list(dict.fromkeys(owner[places_near[good]].tolist()))[:NEIGHBOURS]
            found[chosen[number], : len(concepts_near)] = chosen[concepts_near]
    return found
