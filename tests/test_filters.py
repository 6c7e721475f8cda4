"""Filters: what a search is confined to, that nothing inside is missed, and what is said where nothing is left."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import build_small
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError
from bioelx_mcp.fusion import Evidence, fuse
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.language import speaks, wanted_languages
from bioelx_mcp.linker import Linker
from bioelx_mcp.retriever import Query, Retriever
from bioelx_mcp.schema import Filters, Mention
from bioelx_mcp.semantic_types import semantic_group, semantic_type
from index_builder.starter import CONCEPTS

MENTIONS = ("Herzinfarkt", "fever", "ปวดหัว", "aspirin", "心筋梗塞", "C0027051", "zz", "T2DM")


@pytest.fixture(scope="module")
def index(starter_index: Path) -> AliasIndex:
    return AliasIndex(starter_index, threads=1)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> AliasIndex:
    """Diseases and drugs of the starter behind an IVF_RQ index of several partitions."""
    root = tmp_path_factory.mktemp("quantized")
    sources = [
        {"kind": "starter", "path": CONCEPTS / f"{name}.jsonl", "name": name}
        for name in ("drugs", "anatomy_procedures")
    ]
    options = {"dense_index": "ivf_rq", "partitions": 4, "nprobes": 1}
    build_small(root, root / "index", sources=sources, index=options)
    return AliasIndex(root / "index", threads=1)


def passing(index: AliasIndex, filters: Filters) -> NDArray[np.bool_]:
    """The rows that a filter leaves, told row by row without the facets."""
    wanted = wanted_languages(filters.languages)
    types = {semantic_type(name) for name in filters.types}
    left = []
    for row, concept_row in enumerate(index.alias_concept.tolist()):
        concept = index.concept(concept_row)
        sources = index.alias_source[row].as_py().lower().split("|")
        left.append(
            (not wanted or speaks(index.alias_language[row].as_py(), wanted))
            and (
                not (filters.types or filters.groups)
                or any(
                    semantic_type(name) in types or semantic_group(name) in filters.groups
                    for name in concept.semantic_types
                )
            )
            and (not filters.vocabularies or bool({*filters.vocabularies} & {*sources}))
            and (not filters.prefixes or concept.concept_id.partition(":")[0] in filters.prefixes)
        )
    return np.array(left)


FILTERS = (
    Filters(languages=("de",)),
    Filters(languages=("th", "pt")),
    Filters(types=("Disease or Syndrome",)),
    Filters(types=("T121",), groups=("ANAT",)),
    Filters(groups=("PHYS",), languages=("ja", "fi")),
    Filters(prefixes=("UMLS",), vocabularies=("starter",)),
    Filters(languages=("tr",), types=("T184",)),
)


@pytest.fixture(scope="module")
def masks(index: AliasIndex) -> dict[Filters, NDArray[np.bool_]]:
    return {filters: passing(index, filters) for filters in FILTERS}


@pytest.mark.parametrize("filters", FILTERS)
def test_a_scope_holds_the_rows_that_pass_and_their_concepts(
    index: AliasIndex, masks: dict[Filters, NDArray[np.bool_]], filters: Filters
) -> None:
    scope, mask = index.scope(filters), masks[filters]
    assert 0 < mask.sum() < len(mask) or filters.prefixes
    np.testing.assert_array_equal(scope.mask, mask)
    np.testing.assert_array_equal(scope.rows, np.flatnonzero(mask))
    assert scope.size == mask.sum()
    assert set(np.flatnonzero(scope.concepts)) == set(index.alias_concept[mask])
    assert index.scope(filters) is scope  # it is remembered


@settings(max_examples=25)
@given(
    mention=st.sampled_from(MENTIONS) | st.text(min_size=1, max_size=20).filter(str.strip),
    filters=st.sampled_from(FILTERS),
)
def test_a_filtered_search_gives_what_an_exhaustive_one_gives_inside_the_filter(
    index: AliasIndex,
    masks: dict[Filters, NDArray[np.bool_]],
    mention: str,
    filters: Filters,
) -> None:
    retriever = Retriever(index)
    everything = len(masks[filters])
    query = Query((mention,), "")
    (found_without,) = retriever.search_channels([query], everything)
    evidence = retriever.gather(query, found_without)
    inside = masks[filters][evidence.rows]
    columns = {field.name: getattr(evidence, field.name)[inside] for field in fields(Evidence)}
    left = Evidence(**columns)
    expected = left.concept[fuse(left).places].tolist()
    found = retriever.search_candidates([Mention(mention)], 1000, filters)[0]
    rows = [index.find_concept(candidate.concept_id) for candidate in found]
    given = index.find_concept(mention)
    if given is not None and given in expected:
        expected = [given, *(row for row in expected if row != given)]
    # Names far away add a little to their concepts, and only an exhaustive search has them all.
    assert rows[:3] == expected[:3]
    assert set(rows) == set(expected)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("limit", [1, 7, 30])
def test_as_many_distinct_concepts_come_back_as_asked_where_the_filter_leaves_them(
    index: AliasIndex, filters: Filters, limit: int
) -> None:
    retriever = Retriever(index)
    scope = index.scope(filters)
    for candidates in retriever.search_candidates([Mention(m) for m in MENTIONS], limit, filters):
        ids = [candidate.concept_id for candidate in candidates]
        assert len(set(ids)) == len(ids) == min(limit, int(scope.concept_count))
        assert all(scope.concepts[index.find_concept(one) or 0] for one in ids)


def test_an_exact_name_is_found_inside_a_filter_that_no_neighbour_passes(linker: Linker) -> None:
    (found,) = linker.search(["心筋梗塞"], 1, Filters(languages=("ja",)))
    assert (found[0].preferred_name, found[0].hit.channel) == ("myocardial infarction", "exact")
    (found,) = linker.search(["心筋梗塞"], 1, Filters(languages=("de",)))
    assert found[0].hit.language == "de"
    (ranking,) = linker.link(["Herzinfarkt"], 2, Filters(groups=("chem",)))
    types = ranking.candidates[0].candidate.semantic_types
    assert any(semantic_group(name) == "CHEM" for name in types)


def test_a_concept_asked_for_by_its_id_must_pass_as_well(linker: Linker) -> None:
    (found,) = linker.search(["C0027051"], 3, Filters(types=("disease OR syndrome",)))
    assert (found[0].concept_id, found[0].hit.channel) == ("UMLS:C0027051", "id")
    (found,) = linker.search(["C0027051"], 3, Filters(groups=("Anatomy",)))
    assert "UMLS:C0027051" not in [candidate.concept_id for candidate in found]


def exhaustive(
    index: AliasIndex, mask: NDArray[np.bool_], vector: NDArray[np.float32], limit: int
) -> NDArray[np.float32]:
    similarity = np.where(mask, index.vectors.read() @ vector, -2.0)
    return np.sort(similarity)[::-1][: min(limit, int(mask.sum()))]


QUANTIZED = (
    Filters(languages=("en",)),
    Filters(languages=("ko", "th")),
    Filters(vocabularies=("anatomy_procedures",)),
    Filters(vocabularies=("drugs",), languages=("ja",)),
)


@pytest.mark.parametrize("filters", QUANTIZED)
def test_a_selective_filter_is_searched_exactly(quantized: AliasIndex, filters: Filters) -> None:
    assert quantized.manifest.dense_index == "ivf_rq"
    mask = passing(quantized, filters)
    vectors = quantized.encoder.encode(["heart", "インスリン"])
    for vector, (rows, similarity) in zip(
        vectors, quantized.search_dense(vectors, 20, quantized.scope(filters)), strict=True
    ):
        assert mask[rows].all()
        expected = exhaustive(quantized, mask, vector, 20)
        np.testing.assert_allclose(similarity, np.clip(expected, 0, 1), atol=1e-5)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("filters", [None, *QUANTIZED])
def test_where_all_are_far_as_many_candidates_come_as_are_asked_for(
    quantized: AliasIndex, filters: Filters | None, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far away: what the bound on the cosine leaves out counts where there is nothing else."""
    monkeypatch.setattr("bioelx_mcp.retriever._LEAST_COSINE", 0.999)
    if not blocks:
        monkeypatch.setattr("bioelx_mcp.vectors._BLOCK_BYTES", 0)
    mask = np.ones(len(quantized.alias_concept), np.bool_)
    if filters is not None:
        mask = passing(quantized, filters)
    concepts = len(set(quantized.alias_concept[mask].tolist()))
    for mention in ("zzqxj", "ยาก", "heart"):
        (found,) = Retriever(quantized).search_candidates([Mention(mention)], 10, filters)
        assert len({one.concept_id for one in found}) == len(found) == min(10, concepts)
        assert all(0 <= one.retrieval_score <= 1 for one in found)


@pytest.mark.parametrize("filters", QUANTIZED)
def test_a_broad_filter_loses_no_recall_to_the_few_partitions_of_a_search(
    quantized: AliasIndex, filters: Filters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bioelx_mcp.vectors._BLOCK_BYTES", 0)
    mask = passing(quantized, filters)
    vectors = quantized.encoder.encode(["heart", "インスリン"])
    for vector, (rows, _) in zip(
        vectors, quantized.search_dense(vectors, 20, quantized.scope(filters)), strict=True
    ):
        assert mask[rows].all()
        expected = exhaustive(quantized, mask, vector, 20)
        assert len(rows) == len(set(rows.tolist())) == len(expected)
        assert np.mean(quantized.vectors.read()[rows] @ vector >= expected[-1] - 1e-6) >= 0.9


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(languages=("xh",)), r"languages: .* none of 'xh'; it has .*en"),
        (Filters(languages=("german",)), "'german' is no BCP-47 tag"),
        (Filters(types=("Diseese or Syndrome",)), "types: .* mean Disease or Syndrome"),
        (Filters(types=("T075",)), "types: .* none of 'T075'; it has .* more"),
        (Filters(groups=("GEOG",)), "groups: the index has none of 'GEOG'"),
        (Filters(groups=("nothing",)), "no semantic group 'nothing'; there are"),
        (Filters(vocabularies=("stater",)), r"vocabularies: .* did you mean starter\?"),
        (Filters(prefixes=("MONDO",)), "prefixes: the index has none of 'MONDO'; it has"),
        (
            Filters(
                groups=("DISO",), types=("T047",), vocabularies=("starter",), prefixes=("umls:",)
            ),
            None,
        ),
    ],
)
def test_a_filter_that_leaves_nothing_says_what_the_index_has(
    linker: Linker, filters: Filters, message: str | None
) -> None:
    if message is None:
        assert linker.search(["fever"], 1, filters)[0]
        return
    with pytest.raises(UsageError, match=message):
        linker.search(["fever"], 1, filters)


def test_filters_that_only_together_leave_nothing_are_all_named(
    quantized: AliasIndex,
) -> None:
    both = Filters(vocabularies=("anatomy_procedures",), groups=("CHEM",))
    with pytest.raises(
        UsageError, match=r"at once \(groups CHEM; vocabularies anatomy_procedures\)"
    ):
        Retriever(quantized).search_candidates([Mention("heart")], 5, both)


def test_no_filter_is_no_filter(linker: Linker) -> None:
    assert not Filters()
    assert linker.search(["fever"], 5, Filters()) == linker.search(["fever"], 5)
