"""Build configurations: reading a build.toml, and the fingerprints of stages."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import UsageError
from index_builder import config as config_module
from index_builder.config import BuildConfig, SourceConfig, TrainConfig, fingerprint

MINIMAL = 'out = "index"\n[[sources]]\nkind = "table"\npath = "names.tsv"\n'


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "build.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_relative_paths_are_resolved_against_the_directory_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "models/base").mkdir(parents=True)
    text = f'encoder = "enc"\n{MINIMAL}[train]\nbase_model = "models/base"\n'
    config = BuildConfig.read(toml(tmp_path, text))
    assert config.out == tmp_path / "index"
    assert config.encoder == tmp_path / "enc"
    assert config.sources[0].path == tmp_path / "names.tsv"
    assert config.train.base_model == str(tmp_path / "models/base")
    assert config.layout.vectors == tmp_path / "index/build/vectors"


def test_absolute_paths_and_hub_names_stay(tmp_path: Path) -> None:
    text = MINIMAL.replace('"names.tsv"', '"/data/names.tsv"')
    config = BuildConfig.read(toml(tmp_path, f'{text}[train]\nbase_model = "made/model"\n'))
    assert config.sources[0].path == Path("/data/names.tsv")
    assert config.train.base_model == "made/model"


def test_overrides_replace_keys_of_the_file_and_none_leaves_them(tmp_path: Path) -> None:
    config = BuildConfig.read(toml(tmp_path, MINIMAL), out=tmp_path / "else", name=None)
    assert (config.out, config.name) == (tmp_path / "else", "index")


def test_given_sources_take_the_place_of_their_kind_or_go_first(tmp_path: Path) -> None:
    text = f'{MINIMAL}[[sources]]\nkind = "obo"\npath = "a.obo"\n[[sources]]\nkind = "table"\npath = "b"\n'
    given = [{"kind": "table", "path": "/mine.tsv"}, {"kind": "umls", "path": "/META"}]
    config = BuildConfig.read(toml(tmp_path, text), sources=given)
    assert [(source.kind, str(source.path)) for source in config.sources] == [
        ("umls", "/META"),
        ("table", "/mine.tsv"),
        ("obo", str(tmp_path / "a.obo")),
    ]
    text = f"{MINIMAL}[train]\nsteps = 5\nseed = 3\n"
    train = BuildConfig.read(toml(tmp_path, text), train={"steps": 7}).train
    assert (train.steps, train.seed) == (7, 3)


def test_a_preset_s_paths_are_resolved_against_the_directory_that_is_given(tmp_path: Path) -> None:
    config = BuildConfig.read(toml(tmp_path, MINIMAL), base=Path("/work"))
    assert (config.out, config.sources[0].path) == (Path("/work/index"), Path("/work/names.tsv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"colour = 1\n{MINIMAL}", "colour: Extra inputs"),
        (f"{MINIMAL}[train]\nsteps = 5\nstepz = 5\n", "train.stepz: Extra inputs"),
        (f"{MINIMAL}[index]\nshape = 1\n", "index.shape: Extra inputs"),
        (f'{MINIMAL}[merge]\nid_order = ["x\\u0027"]\n', "merge.id_order.0: String should match"),
        (f"{MINIMAL}[train]\nsteps = 0\n", "train.steps: "),
        (f"{MINIMAL}[train]\nsource_weights = {{ a = -1 }}\n", "train.source_weights.a: "),
        (f'{MINIMAL}[train]\nloss = "hinge"\n', "train.loss: "),
        (f'{MINIMAL}use = "never"\n', "sources.0.use: "),
        (
            MINIMAL.replace('path = "names.tsv"', ""),
            "sources.0: Value error, needs a path, or fetch",
        ),
        ('out = "x"\nsources = []\n', "sources: "),
        ('out = "x"\n[sources]\nkind = "table"\n', "sources"),
        ('out = "x"\nsources = "names.tsv"\n', "sources: "),
        ('out = "x"\nsources = [1]\ntrain = 2\n', "sources.0: "),
        (f'name = "a/b"\n{MINIMAL}', "name: String should match"),
        (f'name = "../b"\n{MINIMAL}', "name: String should match"),
        ("out = [\n", "build.toml: "),
    ],
)
def test_what_a_build_cannot_do_is_a_usage_error_that_names_key_and_file(
    tmp_path: Path, text: str, said: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        BuildConfig.read(path)
    assert str(caught.value).startswith(f"--config {path}: ")
    assert said in str(caught.value)


def test_a_missing_file_and_one_that_is_not_utf8_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml.*No such file"):
        BuildConfig.read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match=r"bad\.toml.*utf-8"):
        BuildConfig.read(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("given_keys", "learning_rate", "pooling"),
    [
        ({}, 1e-3, "mean"),
        ({"base_model": "scratch:mini"}, 1e-3, "mean"),
        ({"base_model": "scratch:tiny", "pooling": "cls", "learning_rate": 0.5}, 0.5, "cls"),
        ({"base_model": "some/checkpoint"}, 2e-5, "cls"),
        ({"base_model": "some/checkpoint", "pooling": "mean"}, 2e-5, "mean"),
    ],
)
def test_a_model_from_scratch_has_defaults_of_its_own(
    given_keys: dict[str, Any], learning_rate: float, pooling: str
) -> None:
    config = TrainConfig.model_validate(given_keys)
    assert (config.learning_rate, config.pooling) == (learning_rate, pooling)


def test_sources_are_chosen_by_their_use(tmp_path: Path) -> None:
    sources = [
        {"kind": "table", "path": name, "use": name} for name in ("both", "index", "training")
    ]
    config = BuildConfig.parse({"out": tmp_path, "sources": sources}, "options")
    assert [str(s.path) for s in config.sources_for("index")] == ["both", "index"]
    assert [str(s.path) for s in config.sources_for("training")] == ["both", "training"]


def source(path: Path, **options: Any) -> SourceConfig:
    return SourceConfig.model_validate({"kind": "table", "path": path, **options})


def test_the_fingerprint_of_a_source_sees_options_size_and_time_of_every_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "names.tsv"
    path.parent.mkdir()
    path.write_text("one")
    first = source(tmp_path).fingerprint()
    assert source(tmp_path).fingerprint() == first
    assert source(tmp_path, use="index").fingerprint() == first  # the use changes no row
    assert source(tmp_path, language="de").fingerprint() != first
    stat = path.stat()
    path.write_text("two!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = source(tmp_path).fingerprint()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    third = source(tmp_path).fingerprint()
    (path.parent / "more.tsv").write_text("")
    assert len({str(stamp) for stamp in (first, second, third)}) == 3
    assert source(tmp_path).fingerprint() != third


@given(st.lists(st.one_of(st.integers(), st.text(), st.none()), max_size=4), st.text())
def test_equal_parts_give_equal_fingerprints_and_another_part_another(
    parts: list[Any], more: str
) -> None:
    stamp = fingerprint(*parts)
    assert stamp == fingerprint(*list(parts))
    assert len(stamp) == 16
    assert int(stamp, 16) >= 0
    assert stamp != fingerprint(*parts, more)


@pytest.mark.parametrize("version", ["BUILDER_VERSION", "SCHEMA_VERSION", "TEXT_VERSION"])
def test_a_fingerprint_changes_with_the_version_of_builder_schema_and_text(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    before = fingerprint("tables")
    monkeypatch.setattr(config_module, version, 99)
    assert fingerprint("tables") != before


def test_a_published_base_model_has_a_short_name_and_its_own_pooling() -> None:
    config = TrainConfig.model_validate({"base_model": "bioelx"})
    assert (config.base_model, config.pooling) == ("bioelx-nlp/bioelx_retriever", "cls")
    assert config.learning_rate == 2e-5
    large = TrainConfig.model_validate({"base_model": "sapbert-xlmr-large", "pooling": "mean"})
    assert large.base_model.endswith("from-XLMR-large") and large.pooling == "mean"
