"""Ids under exact mappings: connected sets, the best id of each, and what must not be joined."""

from hypothesis import given
from hypothesis import strategies as st

from index_builder.identity import merge_ids

ORDER = ("UMLS", "MONDO")


def test_connected_ids_go_by_the_best_of_them() -> None:
    chain = [("X:3", "X:1"), ("X:1", "MONDO:2"), ("X:9", "X:8"), ("MONDO:2", "UMLS:C0000001")]
    assert merge_ids(chain[:1], ORDER).canonical == {"X:3": "X:1", "X:1": "X:1"}
    canonical = merge_ids(chain, ORDER).canonical
    assert {one for one, other in canonical.items() if other == "UMLS:C0000001"} == {
        *("X:1", "X:3", "MONDO:2", "UMLS:C0000001")
    }
    assert canonical["X:9"] == "X:8"


def test_the_mapping_that_would_join_two_ids_of_the_authority_is_left_out_and_told() -> None:
    mappings = [("X:1", "UMLS:1"), ("X:2", "UMLS:2"), ("X:1", "X:2"), ("UMLS:1", "UMLS:2")]
    found = merge_ids(mappings, ORDER)
    assert found.canonical["X:2"] == "UMLS:2"
    assert found.conflicts == [
        ("X:1", "X:2", "UMLS:1", "UMLS:2"),
        ("UMLS:1", "UMLS:2", "UMLS:1", "UMLS:2"),
    ]
    joined = merge_ids(mappings, ORDER, join_authority=True)
    assert set(joined.canonical.values()) == {"UMLS:1"}
    assert joined.conflicts == found.conflicts[:1]
    assert merge_ids(mappings, ()).conflicts == []


IDS = st.sampled_from([f"{p}:{n}" for p in ("UMLS", "MONDO", "X") for n in range(4)])


@given(st.lists(st.tuples(IDS, IDS), max_size=20))
def test_a_set_holds_one_id_of_the_authority_and_goes_by_it(
    mappings: list[tuple[str, str]],
) -> None:
    found = merge_ids(mappings, ORDER)
    sets: dict[str, set[str]] = {}
    for one, other in found.canonical.items():
        sets.setdefault(other, set()).add(one)
    for canonical, members in sets.items():
        authority = {one for one in members if one.startswith("UMLS:")}
        assert canonical in members
        assert authority in (set(), {canonical})
    refused = {pair[:2] for pair in found.conflicts}
    for one, other in mappings:
        assert found.canonical[one] == found.canonical[other] or (one, other) in refused
