"""The semantic network's types and groups."""

from collections import Counter

import pytest

from bioelx_mcp.errors import UsageError
from bioelx_mcp.semantic_types import semantic_group, semantic_type, semantic_types, types_of


def test_there_are_127_types_in_15_groups() -> None:
    types = semantic_types()
    assert len({one.tui for one in types}) == len({one.name for one in types}) == len(types) == 127
    assert [one.tui for one in types] == sorted(one.tui for one in types)
    assert Counter(one.group for one in types) == {
        **{"ACTI": 9, "ANAT": 11, "CHEM": 20, "CONC": 12, "DEVI": 3, "DISO": 12, "GENE": 5},
        **{"GEOG": 1, "LIVB": 21, "OBJC": 5, "OCCU": 2, "ORGA": 4, "PHEN": 6, "PHYS": 9, "PROC": 7},
    }
    assert len({(one.group, one.group_name) for one in types}) == 15


@pytest.mark.parametrize("told", ["T047", "t047", "Disease or Syndrome", " disease  or SYNDROME"])
def test_a_type_is_found_by_name_and_by_tui(told: str) -> None:
    found = semantic_type(told)
    assert found is not None
    assert (found.tui, found.name) == ("T047", "Disease or Syndrome")
    assert (found.group, found.group_name) == ("DISO", "Disorders")
    assert semantic_group(told) == "DISO"


def test_what_is_no_type_has_no_group() -> None:
    assert semantic_type("Disorders") is None
    assert semantic_group("T999") is None


def test_groups_and_types_together_choose_types_in_order() -> None:
    assert [one.tui for one in types_of(["devi"])] == ["T074", "T075", "T203"]
    assert types_of(["Devices"]) == types_of(["DEVI", "devices"])
    chosen = types_of(["GEOG", "OCCU"], ["T047", "Virus"])
    assert [one.tui for one in chosen] == ["T005", "T047", "T083", "T090", "T091"]
    assert types_of() == ()


def test_unknown_ones_are_refused_with_what_is_known() -> None:
    with pytest.raises(UsageError, match=r"no semantic group 'DISEASE'.*ACTI.*DISO \(Disorders\)"):
        types_of(["DISEASE"])
    with pytest.raises(UsageError, match=r"no semantic type 'Disease'; near it: .*Disease or Syn"):
        types_of(types=["Disease"])
