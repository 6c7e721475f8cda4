"""Training pairs: two names of one concept, balanced over languages and sources, the same under a seed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import ALIASES_SCHEMA
from bioelx_mcp.text import normalize_alias
from index_builder.pairs import (
    Names,
    PairSampler,
    cap_names,
    read_names,
    sample_texts,
    split_concepts,
)

Row = tuple[int, str, str]  # concept, text, language


def names(rows: Sequence[Row], weights: Sequence[float] = (), sources: Sequence[int] = ()) -> Names:
    """Names in the order of their concepts, as `read_names` gives them."""
    rows = sorted(rows, key=lambda row: row[0])
    texts = [text for _, text, _ in rows]
    languages = sorted({language for _, _, language in rows})
    keys = sorted({normalize_alias(text) for text in texts})
    return Names(
        pa.array(texts, pa.large_string()),
        np.array([concept for concept, _, _ in rows], dtype=np.int64),
        np.array([languages.index(language) for _, _, language in rows], dtype=np.int64),
        np.array(sources or [0] * len(rows), dtype=np.int64),
        np.array([keys.index(normalize_alias(text)) for text in texts], dtype=np.int64),
        np.array(weights or [1.0] * len(rows)),
    )


def sampler(of: Names, *, cross: float = 0.5, exponent: float = 0.5, seed: int = 0) -> PairSampler:
    return PairSampler(of, cross_lingual=cross, exponent=exponent, seed=seed)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["a", "A", "b", "c", "d"]), st.sampled_from("xyz")
    ),
    min_size=2,
    max_size=20,
)


@given(ROWS, st.integers(0, 3), st.integers(0, 9), st.floats(0, 1), st.floats(0, 1))
def test_pairs_are_two_different_names_of_one_concept_and_depend_on_seed_and_step_alone(
    rows: list[Row], seed: int, step: int, cross: float, exponent: float
) -> None:
    of = names(rows)
    try:
        first, second = sampler(of, cross=cross, exponent=exponent, seed=seed).sample_pairs(
            step, 40
        )
    except UsageError as error:
        assert str(error).startswith("nothing to train on")
        spelt = {concept: {of.key[of.concept == concept].min()} for concept in of.concept}
        assert all(of.key[i] in spelt[concept] for i, concept in enumerate(of.concept))
        return
    assert len(first) == len(second) > 0
    assert np.array_equal(of.concept[first], of.concept[second])
    assert np.all(of.key[first] != of.key[second])
    other = sampler(of, cross=cross, exponent=exponent, seed=seed)
    other.sample_pairs(step + 1, 7)  # what was drawn before does not matter
    again = other.sample_pairs(step, 40)
    assert np.array_equal(first, again[0])
    assert np.array_equal(second, again[1])


def test_another_seed_or_step_draws_other_pairs() -> None:
    of = names([(concept, f"n{concept}{i}", "en") for concept in range(50) for i in range(4)])
    draws = [
        sampler(of, seed=seed).sample_pairs(step, 64)[0].tolist()
        for seed, step in ((0, 0), (0, 1), (1, 0))
    ]
    assert draws[0] != draws[1] != draws[2] != draws[0]


@pytest.mark.parametrize(("asked", "share"), [(1.0, 1.0), (0.5, 5 / 6), (0.0, 2 / 3)])
def test_a_share_of_pairs_is_asked_to_join_two_languages(asked: float, share: float) -> None:
    """Two names in each of two languages: of a name's three partners, two are of the other language."""
    rows = [(i, f"{lang}{i}{n}", lang) for i in range(40) for lang in "xy" for n in "ab"]
    of = names(rows)
    first, second = sampler(of, cross=asked).sample_pairs(0, 8000)
    assert np.mean(of.language[first] != of.language[second]) == pytest.approx(share, abs=0.03)


def test_a_concept_of_one_language_gives_pairs_though_two_languages_are_asked_for() -> None:
    first, _ = sampler(
        names([(0, "a", "x"), (0, "b", "x"), (1, "c", "y")]), cross=1.0
    ).sample_pairs(0, 50)
    assert len(first) == 50


def test_a_pair_joins_two_sources_where_it_is_asked_and_can() -> None:
    """Of ten names of a concept two are in source 1, those of concept 0 all in source 0."""
    rows = [(i, f"{n}{i}", "x") for i in range(20) for n in range(10)]
    of = names(rows, sources=[int(n < 2 and i > 0) for i in range(20) for n in range(10)])

    def joined(share: float) -> float:
        draws = PairSampler(of, cross_lingual=0.0, cross_source=share, exponent=0.5, seed=0)
        first, second = draws.sample_pairs(0, 4000)
        assert len(first) == 4000
        return float(np.mean((of.source[first] != of.source[second])[of.concept[first] > 0]))

    chance = 2 * 0.2 * 0.8 * 10 / 9
    assert joined(0.0) == pytest.approx(chance, abs=0.04)
    assert joined(1.0) > 0.9
    assert joined(0.5) == pytest.approx((joined(1.0) + chance) / 2, abs=0.04)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_cap_takes_of_every_concept_its_names_in_balanced_languages(exponent: float) -> None:
    """Each concept has 18 names in language x and 2 in y; concept 50 has three in all."""
    rows = [(i, f"{n}{i}", "y" if n < 2 else "x") for i in range(50) for n in range(20)]
    of = names([*rows, *((50, text, "x") for text in "abc")])
    few = cap_names(of, 4, exponent, seed=0)
    assert np.bincount(few.concept).tolist() == [4] * 50 + [3]
    assert np.all(np.diff(few.concept) >= 0)
    rare = float(np.mean(few.language[few.concept < 50] == 1))
    assert rare == pytest.approx(0.1, abs=0.05) if exponent else rare > 0.3
    again = cap_names(of, 4, exponent, seed=0)
    assert again.texts.to_pylist() == few.texts.to_pylist()
    assert set(few.texts.to_pylist()) != set(cap_names(of, 4, exponent, seed=1).texts.to_pylist())


def test_without_a_cap_or_below_it_every_name_stays() -> None:
    of = names([(0, "a", "x"), (0, "b", "x"), (1, "c", "x")])
    assert cap_names(of, 0, 0.5, seed=0) is of
    assert cap_names(of, 2, 0.5, seed=0) is of


@pytest.mark.parametrize(("exponent", "share"), [(1.0, 0.1), (0.5, 0.25), (0.0, 5 / 12)])
def test_a_rare_language_is_drawn_more_often_than_its_share(exponent: float, share: float) -> None:
    """Of a concept's ten names one is in the rare language y."""
    rows = [(i, f"{n}{i}", "y" if n == 0 else "x") for i in range(20) for n in range(10)]
    of = names(rows)
    first, _ = sampler(of, cross=0.0, exponent=exponent).sample_pairs(0, 8000)
    assert np.mean(of.language[first] == 1) == pytest.approx(share, abs=0.03)


def test_a_concept_is_drawn_by_the_greatest_weight_of_its_own_names_alone() -> None:
    rows = [(0, "a", "x"), (0, "b", "x"), (1, "c", "x"), (2, "d", "x"), (2, "e", "x")]
    of = names(rows, weights=[1, 1, 100, 1, 3])  # concept 1 has one name: no pair, no weight
    first, _ = sampler(of).sample_pairs(0, 8000)
    assert np.mean(of.concept[first] == 2) == pytest.approx(0.75, abs=0.03)


def test_a_concept_of_more_names_is_drawn_more_often_but_not_in_proportion() -> None:
    rows = [(0, "a", "x"), (0, "b", "x"), *((1, f"n{i}", "x") for i in range(20))]
    of = names(rows)
    first, _ = sampler(of).sample_pairs(0, 8000)
    expected = np.log(21) / (np.log(21) + np.log(3))
    assert np.mean(of.concept[first] == 1) == pytest.approx(expected, abs=0.03)


def test_without_two_names_of_a_concept_there_is_nothing_to_train_on() -> None:
    with pytest.raises(UsageError, match="no concept has two different names"):
        sampler(names([(0, "a", "x"), (0, "A", "y"), (1, "b", "x")]))


@given(ROWS, st.integers(0, 9))
def test_validation_concepts_are_apart_from_training_and_at_most_one_in_ten(
    rows: list[Row], held_out: int
) -> None:
    rows = rows + [(10 + i, text, "x") for i in range(30) for text in "pq"]
    of = names(rows)
    training, validation = split_concepts(of, held_out, seed=1)
    assert set(training.concept).isdisjoint(validation.concept)
    assert len(training) + len(validation) == len(of)
    pairable = {c for c in of.concept if len(set(of.key[of.concept == c])) > 1}
    chosen = set(validation.concept.tolist())
    assert chosen <= pairable
    assert len(chosen) == min(held_out, len(pairable) // 10)
    again = split_concepts(of, held_out, seed=1)[1]
    assert again.texts.to_pylist() == validation.texts.to_pylist()


def test_a_tokenizer_sees_rare_languages_and_no_more_names_than_it_may() -> None:
    rows = [(i, f"x{i}", "x") for i in range(900)] + [(i, f"y{i}", "y") for i in range(900, 1000)]
    of = names(rows)
    assert len(sample_texts(of, 5000, 0.5, seed=0)) == 1000
    texts = sample_texts(of, 100, 0.0, seed=0)
    assert len(set(texts)) == 100
    assert texts == sample_texts(of, 100, 0.0, seed=0)
    assert 35 <= sum(text.startswith("y") for text in texts) <= 65


def test_names_of_a_table_in_many_row_groups_have_one_code_a_value_and_their_sources_weight(
    tmp_path: Path,
) -> None:
    rows = [
        (i // 2, text, normalize_alias(text), lang, "synonym", source, "", "", 0)
        for i, (text, lang, source) in enumerate(
            [("a", "x", "k"), ("B", "y", "l"), ("b", "x", "k|m"), ("c", "z", ""), ("A", "y", "m")]
        )
    ]
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    for place in (0, -1):
        columns[place] = columns[place].cast(pa.int32())
    pq.write_table(
        pa.table(columns, schema=ALIASES_SCHEMA), tmp_path / "aliases.parquet", row_group_size=1
    )
    of = read_names(tmp_path, {"k": 0.5, "m": 2.0})
    assert of.texts.to_pylist() == ["a", "B", "b", "c", "A"]
    assert of.concept.tolist() == [0, 0, 1, 1, 2]
    assert of.key.tolist() == [0, 1, 1, 2, 0]
    assert of.language.tolist() == [0, 1, 0, 2, 1]
    assert of.weight.tolist() == [0.5, 1.0, 2.0, 1.0, 2.0]
    assert of.source.tolist() == [0, 1, 2, 3, 4]
    assert len(of) == 5
    rest = read_names(tmp_path, {"k": 0.0, "l": 0.0})  # a name of k and of m stays
    assert rest.texts.to_pylist() == ["b", "c", "A"]
    assert rest.concept.tolist() == [1, 1, 2]
    assert rest.weight.tolist() == [1.0, 1.0, 1.0]


def test_a_share_of_the_pairs_is_of_neighbours_of_the_others() -> None:
    of = names([(concept, f"{n}{concept}", "en") for concept in range(100) for n in "ab"])
    neighbours = np.full((100, 2), -1, dtype=np.int32)
    neighbours[:50] = (np.arange(50) + 50)[:, None]  # of concept i: i + 50
    first, _ = sampler(of).sample_pairs(3, 200, neighbours, 0.4)
    drawn = of.concept[first]
    assert len(drawn) == 200
    easy, hard = drawn[:120], drawn[120:]
    plain, _ = sampler(of).sample_pairs(3, 200)
    assert np.array_equal(of.concept[plain][:120], easy)
    anchored = np.isin(hard - 50, easy)
    assert np.mean(hard >= 50) > 0.6  # a half are neighbours; where there is none, any concept
    assert np.all(anchored[hard >= 50] | np.isin(hard[hard >= 50], of.concept[plain][120:]))


@given(ROWS)
def test_concepts_are_homonyms_where_they_share_a_name(rows: list[Row]) -> None:
    of = names([*rows, (6, "b", "x"), (6, "e", "x")])
    sampling = sampler(of)
    drawn = np.concatenate(sampling.sample_pairs(0, 12))
    spelt = {concept: set(of.key[of.concept == concept]) for concept in of.concept.tolist()}
    concepts = of.concept[drawn].tolist()
    expected = [[bool(spelt[a] & spelt[b]) for b in concepts] for a in concepts]
    assert sampling.homonyms(drawn).tolist() == expected
    pairable = [concept for concept in sorted(spelt) if len(spelt[concept]) > 1]
    numbers = np.arange(len(pairable))
    shared = sampling.share_names(numbers, numbers[::-1])
    assert shared.tolist() == [
        bool(spelt[a] & spelt[b]) for a, b in zip(pairable, pairable[::-1], strict=True)
    ]
