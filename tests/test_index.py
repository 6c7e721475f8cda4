"""An opened index: what it verifies, and what each of its searches finds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build_small, write_tsv
from numpy.typing import NDArray

from bioelx_mcp.errors import BioelxError, InvalidArtifactError, MissingArtifactError
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.manifest import IndexLayout, alias_key, read_manifest, write_atomically
from bioelx_mcp.schema import Concept
from bioelx_mcp.text import character_grams, normalize_alias
from index_builder.starter import CONCEPTS

ROWS = (
    ("concept_id", "name", "lang", "kind", "semantic_types", "definition", "xrefs", "alt_ids"),
    ("MADE:3", "green rash", "en", "preferred", "Sign|Finding", "It is green.", "X:1", "OLD:7|C0000009"),
    ("MADE:3", "ผื่นสีเขียว", "th", "translation", "", "", "", ""),
    ("MADE:3", "緑の発疹", "ja", "translation", "", "", "", ""),
    ("C0000001", "red fever", "en", "preferred", "", "", "", ""),
    ("C0000001", "rotes Fieber", "de", "translation", "", "", "", ""),
    ("C0000001", "RF", "en", "synonym", "", "", "", ""),
    ("C0000002", "rare failure", "en", "preferred", "", "", "", "MADE:3"),
    ("C0000002", "R.F.", "en", "synonym", "", "", "", ""),
)  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of ROWS; a test that spoils one takes a copy."""
    root = tmp_path_factory.mktemp("small")
    build_small(write_tsv(root / "rows.tsv", ROWS), root / "index")
    return root / "index"


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> IndexLayout:
    return IndexLayout(Path(shutil.copytree(small, tmp_path / "copy")))


@pytest.fixture(scope="module")
def index(small: Path) -> AliasIndex:
    return AliasIndex(small, threads=1)


@pytest.fixture(scope="module")
def starter(starter_index: Path) -> AliasIndex:
    return AliasIndex(starter_index, threads=1)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> AliasIndex:
    """Some hundred aliases behind an IVF_RQ index."""
    root = tmp_path_factory.mktemp("quantized")
    path = root / "drugs.jsonl"
    drugs = (CONCEPTS / "drugs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(drugs[:16]), encoding="utf-8")
    source = {"kind": "starter", "path": path}
    build_small(path, root / "index", sources=[source], index={"dense_index": "ivf_rq"})
    return AliasIndex(root / "index", threads=1)


def stored_vectors(index: AliasIndex) -> NDArray[np.float32]:
    """What lies in the table, as it lies there."""
    return index.vectors.read()


def texts(index: AliasIndex, rows: NDArray[np.int64]) -> list[str]:
    return [index.alias_text[row].as_py() for row in rows.tolist()]


def test_an_index_opens_with_all_that_its_manifest_promises(index: AliasIndex) -> None:
    assert (index.manifest.concepts, index.manifest.aliases) == (3, 8)
    assert index.manifest.dense_index == "exact"
    assert index.encoder.config.name == index.manifest.encoder.name
    assert np.bincount(index.alias_concept).tolist() == [3, 3, 2]


def test_a_concept_comes_back_with_all_its_fields(index: AliasIndex) -> None:
    row = index.find_concept("MADE:3")
    assert row is not None
    assert index.concept(row) == Concept(
        "MADE:3",
        "green rash",
        ("Finding", "Sign"),
        "It is green.",
        ("X:1",),
        ("OLD:7", "UMLS:C0000009"),
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("UMLS:C0000001", "UMLS:C0000001"),
        ("C0000001", "UMLS:C0000001"),
        (" umls_c0000001 ", "UMLS:C0000001"),
        ("made:3", "MADE:3"),
        ("http://example.org/obo/MADE_3", "MADE:3"),
        ("old:7", "MADE:3"),  # an alternative id
        ("C0000009", "MADE:3"),
        ("MADE:3", "MADE:3"),  # its own, though another concept calls it an alternative
        ("C0000003", None),
        ("red fever", None),
        ("", None),
    ],
)
def test_a_concept_is_found_by_any_id_in_any_spelling(
    index: AliasIndex, given: str, found: str | None
) -> None:
    row = index.find_concept(given)
    assert (None if row is None else index.concept(row).concept_id) == found


def test_names_of_a_concept_come_preferred_first_with_their_languages(index: AliasIndex) -> None:
    row = index.find_concept("C0000001")
    assert row is not None
    names = index.names(row)
    assert names[0] == ("red fever", "en")
    assert sorted(names) == [("RF", "en"), ("red fever", "en"), ("rotes Fieber", "de")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Red-Fever", {"red fever"}),
        ("rf", {"RF"}),
        ("R F", {"R.F."}),
        ("緑の発疹", {"緑の発疹"}),
        ("red", set()),
        ("red fevers", set()),
    ],
)
def test_exact_search_finds_equal_texts_only(index: AliasIndex, text: str, found: set[str]) -> None:
    assert set(texts(index, index.search_exact(normalize_alias(text)))) == found


def test_exact_search_finds_every_homonym(starter: AliasIndex) -> None:
    rows = starter.search_exact(normalize_alias("AS"))
    named = {starter.concept(int(starter.alias_concept[row])).preferred_name for row in rows}
    assert {"ankylosing spondylitis", "aortic stenosis"} <= named
    assert {normalize_alias(text) for text in texts(starter, rows)} == {normalize_alias("AS")}


def test_exact_search_survives_two_texts_of_one_key(
    index: AliasIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    collision = alias_key("red fever")
    monkeypatch.setattr("bioelx_mcp.index.alias_key", lambda text: collision)
    assert index.find_concept("C0000001") is None
    assert texts(index, index.search_exact("red fever")) == ["red fever"]
    assert texts(index, index.search_exact("green rash")) == []


@pytest.mark.parametrize("mention", ["ไซนัสอักเสบ", "心筋梗塞", "고혈압", "aspirin"])
def test_lexical_search_finds_a_name_of_any_script(starter: AliasIndex, mention: str) -> None:
    normalized = normalize_alias(mention)
    found = texts(starter, starter.search_lexical(character_grams(normalized), 20))
    assert 0 < len(found) <= 20
    assert normalized in [normalize_alias(text) for text in found]


@pytest.mark.parametrize(
    ("fragment", "name"), [("ผื่นเขียว", "ผื่นสีเขียว"), ("発疹", "緑の発疹"), ("rde fever", "red fever")]
)
def test_lexical_search_finds_a_name_by_a_part_of_it(
    index: AliasIndex, fragment: str, name: str
) -> None:
    assert texts(index, index.search_lexical(character_grams(normalize_alias(fragment)), 1)) == [
        name
    ]


def test_lexical_search_finds_nothing_where_no_gram_is_shared(index: AliasIndex) -> None:
    assert index.search_lexical([], 5).size == 0
    assert index.search_lexical(character_grams("жжжж"), 5).size == 0


def test_dense_search_equals_numpy_on_the_stored_vectors(starter: AliasIndex) -> None:
    stored = stored_vectors(starter)
    queries = starter.encoder.encode(["heart attack", "ปวดหัว", "zzz"])
    for query, (rows, similarity) in zip(queries, starter.search_dense(queries, 50), strict=True):
        expected = stored @ query
        nearest = np.sort(expected)[::-1][:50]
        np.testing.assert_allclose(similarity, np.clip(expected[rows], 0, 1), atol=1e-5)
        np.testing.assert_allclose(similarity, np.clip(nearest, 0, 1), atol=1e-5)
        assert len(set(rows.tolist())) == 50


def test_dense_search_finds_all_aliases_when_asked_for_more(index: AliasIndex) -> None:
    rows, similarity = index.search_dense(index.encoder.encode(["red fever"]), 100)[0]
    assert sorted(rows.tolist()) == list(range(8))
    assert texts(index, rows[:1]) == ["red fever"]
    assert np.all(np.diff(similarity) <= 0)
    assert similarity[0] == pytest.approx(1.0, abs=0.01)
    assert similarity[-1] >= 0


QUERIES = ("aspirin", "ibuprofeno", "парацетамол", "อะม็อกซีซิลลิน", "インスリン", "fever pills")


def test_a_quantized_index_returns_nearly_the_exact_neighbours_and_similarities(
    quantized: AliasIndex,
) -> None:
    assert quantized.manifest.dense_index == "ivf_rq"
    queries = quantized.encoder.encode(QUERIES)
    stored = stored_vectors(quantized)
    found = []
    for query, (rows, similarity) in zip(queries, quantized.search_dense(queries, 30), strict=True):
        cosine = stored @ query
        nearest = np.sort(cosine)[::-1][:30]
        np.testing.assert_allclose(similarity, np.clip(cosine[rows], 0, 1), atol=0.02)
        found.append(np.mean(cosine[rows] >= nearest[-1] - 1e-6))
        assert np.all(np.diff(similarity) <= 0)
    assert np.mean(found) >= 0.8  # of a text that is like none all are as far


def test_a_quantized_index_gives_a_batch_the_results_of_its_members(quantized: AliasIndex) -> None:
    queries = quantized.encoder.encode(QUERIES)
    together = quantized.search_dense(queries, 20)
    for query, (rows, similarity) in zip(queries, together, strict=True):
        alone = quantized.search_dense(query[None], 20)[0]
        np.testing.assert_array_equal(rows, alone[0])
        np.testing.assert_allclose(similarity, alone[1], atol=1e-6)
    assert quantized.search_dense(queries[:0], 20) == []


def test_a_quantized_index_leaves_out_what_is_too_far_and_nothing_else(
    quantized: AliasIndex,
) -> None:
    queries = quantized.encoder.encode(QUERIES)
    everything = quantized.search_dense(queries, 40)
    least = float(np.median([similarity[20] for _, similarity in everything]))
    within = quantized.search_dense(queries, 40, least=least)
    assert len({len(rows) for rows, _ in within}) > 2
    for (rows, similarity), (all_rows, all_similarities) in zip(within, everything, strict=True):
        expected = set(all_rows[all_similarities >= least].tolist())
        assert len(expected.intersection(rows.tolist())) >= 0.8 * len(expected)  # it estimates
        assert np.all(similarity >= least - 1e-6)


def edit_manifest(layout: IndexLayout, **changes: Any) -> None:
    raw = json.loads(layout.manifest.read_text())
    write_atomically(layout.manifest, json.dumps({**raw, **changes}))


def shuffle_probes(layout: IndexLayout) -> None:
    probes = json.loads(layout.manifest.read_text())["probes"]
    for probe, other in zip(probes, [*probes[1:], probes[0]], strict=True):
        probe["text"] = f"not {other['text']}"
    edit_manifest(layout, probes=probes)


def change(pattern: str, to: Callable[[bytes], bytes]) -> Callable[[IndexLayout], None]:
    def spoil(layout: IndexLayout) -> None:
        paths = list(layout.generations.glob(f"*/{pattern}"))
        assert paths
        for path in paths:
            path.write_bytes(to(path.read_bytes()))

    return spoil


def truncate(pattern: str) -> Callable[[IndexLayout], None]:
    return change(pattern, lambda content: content[: len(content) // 2])


def overwrite(pattern: str) -> Callable[[IndexLayout], None]:
    """Other bytes, as many as before."""
    return change(pattern, lambda content: b"\xff" * len(content))


def remove(pattern: str) -> Callable[[IndexLayout], None]:
    def spoil(layout: IndexLayout) -> None:
        for path in list(layout.root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def swap_encoder(layout: IndexLayout) -> None:
    path = layout.encoder(read_manifest(layout).index_id) / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")  # loads as before


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (swap_encoder, InvalidArtifactError, "is not the one that made the index"),
        (shuffle_probes, InvalidArtifactError, "does not reproduce the stored probe vectors"),
        (
            lambda layout: edit_manifest(layout, probes=[{"text": "x", "vector": [1.0]}]),
            InvalidArtifactError,
            "another width",
        ),
        (
            lambda layout: edit_manifest(layout, aliases=9),
            InvalidArtifactError,
            "holds 8 aliases .8 in the lexicon, 8 with a vector. of 3 concepts, its manifest promises 9 of 3",
        ),
        (
            lambda layout: edit_manifest(layout, index_id="gone-1"),
            InvalidArtifactError,
            "lacks the generation gone-1",
        ),
        (remove("generations/*"), InvalidArtifactError, "lacks the generation small-"),
        (remove("generations/*/tables"), InvalidArtifactError, "lance.* cannot be read"),
        (remove("**/aliases.lance"), InvalidArtifactError, "aliases.lance.* cannot be read"),
        (
            remove("**/concepts.lance/data/*"),
            InvalidArtifactError,
            "concepts.lance.* cannot be read",
        ),
        (remove("**/rows/ids.arrow"), InvalidArtifactError, "ids.arrow cannot be read"),
        (remove("**/lexicon/*.term"), InvalidArtifactError, "term cannot be read"),
        (
            truncate("tables/aliases.lance/data/*"),
            InvalidArtifactError,
            "bytes, its manifest promises",
        ),
        (truncate("rows/aliases.arrow"), InvalidArtifactError, "bytes, its manifest promises"),
        (truncate("lexicon/*.store"), InvalidArtifactError, "bytes, its manifest promises"),
        (
            overwrite("tables/aliases.lance/_versions/*"),
            InvalidArtifactError,
            "tables of .* cannot be read",
        ),
        (overwrite("rows/concepts.arrow"), InvalidArtifactError, "tables of .* cannot be read"),
        (overwrite("lexicon/meta.json"), InvalidArtifactError, "tables of .* cannot be read"),
        (remove("**/model.onnx"), MissingArtifactError, "lacks model.onnx"),
        (remove("manifest.json"), MissingArtifactError, "no index in .*build-index --out"),
    ],
)
def test_a_spoilt_index_is_refused_when_it_is_opened(
    copy: IndexLayout,
    spoil: Callable[[IndexLayout], None],
    error: type[BioelxError],
    message: str,
) -> None:
    spoil(copy)
    with pytest.raises(error, match=message) as caught:
        AliasIndex(copy.root)
    if error is InvalidArtifactError:
        assert f"build-index --out {copy.root}" in str(caught.value)
