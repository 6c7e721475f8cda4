"""Fusion: one order of distinct concepts, whatever the channels say; each kind of evidence sways as it is told to."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.fusion import WEIGHTS, Evidence, fuse, score_aliases

_SIMILARITY = st.floats(0, 1, width=32)
_ALIAS = st.tuples(st.integers(0, 5), _SIMILARITY, _SIMILARITY, st.booleans(), st.booleans())


def evidence(*aliases: tuple[int, float, float], **columns: list[float]) -> Evidence:
    """Aliases as (concept, cosine, lexical); further columns by name, all zero where they are left out."""
    concept, cosine, lexical = zip(*aliases, strict=True) if aliases else ((), (), ())
    nothing = [0.0] * len(aliases)
    return Evidence(
        rows=np.arange(len(aliases)),
        concept=np.array(concept, dtype=np.int32),
        cosine=np.array(cosine, dtype=np.float32),
        lexical=np.array(lexical, dtype=np.float32),
        exact=np.array(columns.get("exact", nothing), dtype=np.bool_),
        preferred=np.array(columns.get("preferred", nothing), dtype=np.bool_),
        spoken=np.array(columns.get("spoken", nothing), dtype=np.bool_),
        renown=np.array(columns.get("renown", nothing), dtype=np.float32),
    )


def order(found: Evidence) -> list[int]:
    return [int(found.concept[place]) for place in fuse(found).places]


@given(st.lists(_ALIAS))
def test_concepts_come_once_by_descending_score_and_only_exact_ones_have_a_score_of_one(
    aliases: list[tuple[int, float, float, bool, bool]],
) -> None:
    found = evidence(
        *((concept, cosine, lexical) for concept, cosine, lexical, _, _ in aliases),
        exact=[float(exact) for *_, exact, _ in aliases],
        preferred=[float(preferred) for *_, preferred in aliases],
    )
    fused = fuse(found)
    assert sorted(order(found)) == sorted(set(found.concept.tolist()))
    assert np.all(np.diff(fused.scores) <= 0)
    assert np.all((fused.scores >= 0) & (fused.scores <= 1))
    np.testing.assert_array_equal(fused.scores == 1.0, found.exact[fused.places])
    np.testing.assert_array_equal(score_aliases(found) == 1.0, found.exact)


@given(st.lists(_ALIAS, min_size=1), st.randoms())
def test_the_order_of_the_concepts_does_not_depend_on_that_of_the_evidence(
    aliases: list[tuple[int, float, float, bool, bool]], random: "np.random.Generator"
) -> None:
    found = evidence(*((concept, cosine, lexical) for concept, cosine, lexical, _, _ in aliases))
    shuffled = list(range(len(aliases)))
    random.shuffle(shuffled)
    again = Evidence(*(getattr(found, name)[shuffled] for name in found.__dataclass_fields__))
    assert order(found) == order(again)


def test_a_name_in_another_script_counts_by_its_cosine_alone() -> None:
    found = evidence((1, 0.9, 0.0), (2, 0.6, 0.5))
    scores = score_aliases(found)
    assert scores[0] == np.float32(0.9) * WEIGHTS.dense_alone
    assert np.isclose(scores[1], WEIGHTS.dense * 0.6 + (1 - WEIGHTS.dense) * 0.5)


def test_further_names_that_are_nearly_as_near_speak_for_a_concept() -> None:
    assert order(evidence((1, 0.8, 0.7), (2, 0.8, 0.69), (2, 0.79, 0.69), (2, 0.8, 0.68))) == [2, 1]
    assert order(evidence((1, 0.8, 0.7), (2, 0.8, 0.69), (2, 0.2, 0.1))) == [
        1,
        2,
    ]  # far ones do not


def test_a_better_known_concept_goes_before_its_equal_and_not_before_its_better() -> None:
    assert order(evidence((1, 0.8, 0.7), (2, 0.8, 0.7), renown=[0.1, 0.9])) == [2, 1]
    assert order(evidence((1, 0.8, 0.8), (2, 0.8, 0.7), renown=[0.1, 0.9])) == [1, 2]


def test_homonyms_are_ordered_by_preferred_name_then_by_the_mentions_language() -> None:
    both = [(1, 1.0, 1.0), (2, 1.0, 1.0)]
    exact = [1.0, 1.0]
    assert order(evidence(*both, exact=exact)) == [1, 2]
    assert order(evidence(*both, exact=exact, preferred=[0.0, 1.0])) == [2, 1]
    assert order(evidence(*both, exact=exact, spoken=[0.0, 1.0])) == [2, 1]
    swayed = evidence(*both, exact=exact, spoken=[1.0, 0.0], preferred=[0.0, 1.0])
    assert order(swayed) == [2, 1]


def test_an_exact_match_goes_before_whatever_many_names_say() -> None:
    many = [(1, 1.0, 0.999)] * 50
    found = evidence(*many, (2, 0.3, 1.0), exact=[*[0.0] * 50, 1.0], renown=[*[1.0] * 50, 0.0])
    assert order(found) == [2, 1]


def test_without_weights_for_concepts_the_best_alias_decides() -> None:
    found = evidence((1, 0.8, 0.7), (2, 0.8, 0.69), (2, 0.8, 0.69), renown=[0.0, 1.0, 1.0])
    plain = replace(WEIGHTS, further=0.0, renown=0.0)
    assert [int(found.concept[place]) for place in fuse(found, plain).places] == [1, 2]
