"""Names inflected and misspelt."""

import numpy as np

from index_builder.respelling import respell_pairs

NAMES = ["myocardial infarction", "Lackschildläuse", "сердечный приступ", "acute sinusitis", "HIV"]
LANGUAGES = np.array([0, 1, 2, 0, 0] * 2)
OTHERS = ["heart attack", "Lackschildlaus", "инфаркт миокарда", "sinus infection", "AIDS virus"]


def respell(share: float, seed: int = 0) -> list[str]:
    return respell_pairs(NAMES + OTHERS, LANGUAGES, share, np.random.default_rng(seed))


def test_first_names_and_those_that_are_not_drawn_stay() -> None:
    assert respell(0.0) == NAMES + OTHERS
    kept = respell(0.5)
    assert kept[:5] == NAMES
    assert any(name in kept[5:] for name in OTHERS)


def test_a_respelt_name_stays_near_its_name_and_takes_endings_of_its_own_language() -> None:
    inflected = set()
    for seed in range(300):
        for name, other, respelt in zip(NAMES, OTHERS, respell(1.0, seed)[5:], strict=True):
            assert respelt != name
            if respelt == other:
                continue
            words, new = name.split(), respelt.split()
            assert len(words) == len(new)
            for word, made in zip(words, new, strict=True):
                assert abs(len(word) - len(made)) <= 3
                assert set(word[:2]) & set(made[:2])
                if name.isascii():
                    assert made.isascii()
            inflected.add(respelt)
    assert respell(1.0)[-1] == "AIDS virus"  # HIV is too short to be respelt
    assert len(inflected) > 500
    assert "Lackschildläus" in inflected  # an ending may be lost


def test_a_draw_repeats_under_its_seed() -> None:
    assert respell(0.7, 3) == respell(0.7, 3) != respell(0.7, 4)
