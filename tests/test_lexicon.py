"""The lexicon: names by their character grams, the rarer a gram the more it says; read where nothing can be written."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.lexicon import Lexicon, write_lexicon
from bioelx_mcp.text import character_grams

NAMES = ["red fever", "red rash", "blue cough", "red fever", "心筋梗塞", "", "redness of the skin"]
FACETS = [0, 1, 0, 2, 0, 0, 1]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "lexicon"
    write_lexicon(NAMES, directory, FACETS)
    return directory


@pytest.fixture(scope="module")
def found(directory: Path) -> Lexicon:
    return Lexicon(directory)


def test_names_that_share_grams_come_best_first_and_equal_ones_in_their_order(
    directory: Path,
) -> None:
    found = Lexicon(directory)
    assert found.size == len(NAMES)
    assert found.search(character_grams("red fever"), 10).tolist()[:2] == [0, 3]
    assert set(found.search(character_grams("red fever"), 10).tolist()) == {0, 3}  # not by `red`
    every = found.search(character_grams("red fever"), 10, np.unique(FACETS))
    assert set(every.tolist()) == {0, 1, 3, 6}
    assert found.search(character_grams("梗塞"), 3).tolist() == [4]
    assert found.search(character_grams("cough"), 1).dtype.kind == "i"
    assert len(found.search(character_grams("red"), 2)) == 2


@given(st.text(alphabet="red fvbluco 梗塞x", max_size=40), st.lists(st.sampled_from(NAMES)))
def test_similarities_are_the_dice_coefficient_of_the_grams_by_their_weight(
    found: Lexicon, mention: str, names: list[str]
) -> None:
    grams = character_grams(" ".join(mention.split()))
    totals = np.array([sum(map(found.weight, character_grams(name))) for name in names])
    expected = [
        2 * sum(found.weight(gram) for gram in set(grams) & set(character_grams(name))) / both
        if (both := sum(map(found.weight, grams)) + total)
        else 0.0
        for name, total in zip(names, totals, strict=True)
    ]
    similarities = found.similarities(grams, names, totals.astype(np.float32))
    np.testing.assert_allclose(similarities, expected, rtol=1e-5, atol=1e-6)


def test_writing_tells_the_weight_of_the_grams_of_each_name(tmp_path: Path) -> None:
    totals = write_lexicon(NAMES, tmp_path / "lexicon", FACETS)
    found = Lexicon(tmp_path / "lexicon")
    expected = [sum(map(found.weight, character_grams(name))) for name in NAMES]
    np.testing.assert_allclose(totals, expected, rtol=1e-6)


def test_a_name_longer_than_its_grams_is_no_nearer_than_the_same_name(found: Lexicon) -> None:
    long = " ".join(f"word{i}" for i in range(40))
    grams = character_grams(long)
    total = np.array([sum(map(found.weight, grams))], dtype=np.float32)
    assert found.similarities(grams, [long], total).tolist() == [1.0]


def test_nothing_is_found_for_no_gram_or_strange_ones(directory: Path) -> None:
    found = Lexicon(directory)
    assert found.search([], 5).size == 0
    assert found.search(["жжж", "AND", "*", 'a"b', "-red"], 5).size == 0


def test_a_rare_gram_weighs_more_than_a_common_one_and_an_unknown_one_most(
    directory: Path,
) -> None:
    found = Lexicon(directory)
    assert 0 < found.weight("red") < found.weight("cou") < found.weight("жжж")


def test_a_lexicon_is_read_where_nothing_can_be_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in directory.iterdir())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert all(mode & 0o044 == 0o044 for mode in modes)  # another user may read it
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = Lexicon(directory)
    assert found.search(character_grams("blue cough"), 1).tolist() == [2]
    assert sorted(path.name for path in directory.iterdir()) == before


def test_a_broken_or_missing_lexicon_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        Lexicon(tmp_path / "none")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(ValueError):
        Lexicon(tmp_path)
