"""What a build is told: sources, training, encoder; and where every artifact of it lies.

`build.toml` is read into a BuildConfig; unknown keys are errors. Relative paths are resolved against
the directory of the file. A stage's fingerprint is a hash of all that its output depends on.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from bioelx_mcp.errors import UsageError, problems
from bioelx_mcp.files import read_small
from bioelx_mcp.manifest import SCHEMA_VERSION
from bioelx_mcp.text import TEXT_VERSION

Report = Callable[[int, int, str], None]
"""How a stage tells its progress: done, total, what is to be seen."""

STARTER = "starter"
PRESETS = Path(__file__).parent / "presets"
STARTER_ENCODER = Path(__file__).parent / "starter" / "encoder"
BUILDER_VERSION = 2  # raised when a stage's output changes for equal inputs


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(BaseModel):
    """One source of names: a file or directory of the user's, or public files that are fetched.

    Further keys are the options of its kind and are checked by it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    path: Path | None = None
    fetch: tuple[str, ...] = ()  # entries of presets/catalog.toml; each is a source of its own
    use: Literal["both", "index", "training"] = "both"

    @field_validator("fetch", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _from_somewhere(self) -> Self:
        if (self.path is None) != bool(self.fetch):
            raise ValueError("needs a path, or fetch = the name of a public file; and not both")
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def fingerprint(self) -> list[Any]:
        """Kind, options, and name, size and time of every file below the path."""
        options = sorted((k, str(v)) for k, v in self.options.items())
        return ["source", self.kind, options, file_stats(self.path) if self.path else []]


def file_stats(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of every file below a directory."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


# Prefixes, best first: which of its ids a concept goes by.
ID_ORDER = ("UMLS", "MONDO", "DOID", "ORPHA", "MESH", "HP", "NCIT", "OMIM", "SNOMEDCT", "CHEBI")
SCRATCH = "scratch:"
# Short names of published base models: address on the hub, and the pooling they were trained with.
BASE_MODELS = {
    "sapbert-xlmr": ("cambridgeltl/SapBERT-UMLS-2020AB-all-lang-from-XLMR", "cls"),
    "sapbert-xlmr-large": ("cambridgeltl/SapBERT-UMLS-2020AB-all-lang-from-XLMR-large", "cls"),
    "bioelx": ("bioelx-nlp/bioelx_retriever", "cls"),
}


class TrainConfig(_Model):
    """SapBERT self-alignment. Defaults are the published ones (Liu et al., NAACL 2021, section 3).

    A model from scratch wants another learning rate and no [CLS]: there the defaults are 1e-3 and mean.
    """

    # a name of the hub, a short name (BASE_MODELS), a directory, or scratch:tiny | scratch:mini | scratch:small
    base_model: str = "scratch:tiny"
    loss: Literal["multi-similarity", "infonce"] = "multi-similarity"
    pooling: Literal["cls", "mean"] = "cls"
    steps: int = Field(default=2000, ge=1)
    batch_pairs: int = Field(default=256, ge=2)  # of all processes together
    processes: int = Field(
        default=1, ge=1
    )  # that train together, on a GPU each; the result is that of one
    # names that go through the model at once; 0: all of a batch. Fewer take less memory, and give the same gradient
    forward_names: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(default=0.01, ge=0)
    max_length: int = Field(default=25, ge=4)  # tokens
    temperature: float = Field(default=0.05, gt=0)  # InfoNCE only
    cross_lingual: float = Field(
        default=0.7, ge=0, le=1
    )  # share of pairs asked to join two languages
    # share of pairs asked to join two sources, as an ontology's name with Wikidata's
    cross_source: float = Field(default=0.0, ge=0, le=1)
    # share of pairs that are a name and itself, inflected or misspelt (respelling.py)
    respelt: float = Field(default=0.0, ge=0, le=1)
    # share of the tokenizer's pieces that second names are cut without (segmentation.py)
    piece_dropout: float = Field(default=0.0, ge=0, lt=1)
    language_exponent: float = Field(
        default=0.5, ge=0, le=1
    )  # a language of n names is drawn like n**exponent
    vocabulary: int = Field(default=24_000, ge=300)  # scratch only
    names_per_concept: int = Field(default=0, ge=0)  # that are trained on, at most; 0: all
    # how often names of a source are drawn, beside 1; of a source that weighs 0, none
    source_weights: dict[str, NonNegativeFloat] = {}
    # share of a batch that are neighbours of the others: concepts that the model takes for them
    hard_negatives: float = Field(default=0.0, ge=0, lt=1)
    mining_steps: int = Field(default=2000, ge=1)  # steps after which neighbours are sought anew
    validation_concepts: int = Field(default=1000, ge=0)
    checkpoint_steps: int = Field(default=500, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _model_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        base = data.get("base_model", SCRATCH)
        if base in BASE_MODELS:
            address, pooling = BASE_MODELS[base]
            return {"pooling": pooling, **data, "base_model": address}
        if str(base).startswith(SCRATCH):
            return {"learning_rate": 1e-3, "pooling": "mean", **data}
        return data


class IndexConfig(_Model):
    """How the index is laid out; what is not said follows from the number of aliases (`materialize.plan_dense`)."""

    dense_index: Literal["auto", "exact", "ivf_rq"] = "auto"
    exact_below: int = Field(
        default=100_000, ge=0
    )  # aliases; exact search is simpler and as fast there
    bits: int = Field(
        default=6, ge=1, le=8
    )  # of each number of a vector; ivf_rq only, like the rest
    partitions: int = Field(default=0, ge=0)
    nprobes: int = Field(default=0, ge=0)  # partitions that a search looks into
    keep: int = Field(
        default=1, ge=0
    )  # older generations that stay, for `bioelx-mcp index rollback`


class MergeConfig(_Model):
    """How ids of several sources become one concept, and how much may be wrong with a source."""

    # A concept takes the first of these that it has; of the first, the authority, it holds only one id.
    id_order: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9.]*$")], ...] = ID_ORDER
    join_authority: bool = (
        False  # join two ids of the authority that a third one connects; reported either way
    )
    max_rejected: float = Field(
        default=0.01, ge=0, le=1
    )  # share of a source's rows, or names, that may be bad
    memory_mb: int = Field(default=1500, ge=256)  # what the merge may take; beyond it works on disk
    workers: int = Field(default=0, ge=0)  # processes that read a large source; 0: one a core


class BuildConfig(_Model):
    """A whole build. Exactly one of `encoder` and `train` decides the vectors.

    `encoder` is the directory of a trained one, or `starter` for the one that ships.
    """

    name: str = Field(default="index", pattern=r"^[^./\\][^/\\]*$")  # part of a directory's name
    out: Path
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    encoder: Path | None = None
    quantize: bool = False
    # of the encoder that is trained: 0 takes its vectors as they are, 1 whitens them (whitening.py)
    whitening: float = Field(default=0.0, ge=0, le=1)
    dimensions: int = Field(default=0, ge=0, multiple_of=8)  # that its vectors keep; 0: all
    engine: Literal["local", "ray"] = "local"  # where is embedded and materialised; the same result
    downloads: Path | None = None  # where fetched files are kept; OUT/downloads if not given
    mirror: Path | None = None  # a directory that holds the public files: nothing is fetched then
    merge: MergeConfig = MergeConfig()
    train: TrainConfig = TrainConfig()
    index: IndexConfig = IndexConfig()

    @classmethod
    def read(cls, path: Path, base: Path | None = None, **overrides: Any) -> Self:
        """Read a `build.toml`; what the overrides say goes before it, unless they are None.

        Sources given replace those of their kind in the file, or go first; of `train` and `merge` single keys
        are replaced. Relative paths in the file are resolved against `base`, its own directory if not given.

        Raises:
            UsageError: the file is missing, is no TOML, or says something a build cannot do.
        """
        try:
            data: dict[str, Any] = tomllib.loads(read_small(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"--config {path}: {error}") from error
        base = path.parent if base is None else base
        sources = data.get("sources")
        for holder in (data, *(sources if isinstance(sources, list) else ())):
            for key in ("path", "out", "encoder", "downloads", "mirror"):
                value = holder.get(key) if isinstance(holder, dict) else None
                if isinstance(value, str) and value != STARTER:
                    holder[key] = base / value
        train = data.get("train")
        model = base / str(train.get("base_model", SCRATCH)) if isinstance(train, dict) else base
        if isinstance(train, dict) and model.is_dir():  # else a hub name
            train["base_model"] = str(model)
        told = {key: value for key, value in overrides.items() if value is not None}
        for part in ("train", "merge"):
            if part in told and isinstance(data.get(part), dict):
                told[part] = {**data[part], **told[part]}
        if isinstance(sources, list) and "sources" in told:
            told["sources"] = _replaced(sources, told["sources"])
        return cls.parse({**data, **told}, f"--config {path}")

    @field_validator("encoder")
    @classmethod
    def _starter_encoder(cls, encoder: Path | None) -> Path | None:
        return STARTER_ENCODER if encoder == Path(STARTER) else encoder

    @classmethod
    def parse(cls, data: dict[str, Any], origin: str) -> Self:
        """Validate; an error names the key and the file or options it came from."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            told = "; ".join(f"{where}: {what}" for where, what in problems(error))
            raise UsageError(f"{origin}: {told}") from error

    @property
    def layout(self) -> "BuildLayout":
        return BuildLayout(self.out / "build")

    def sources_for(self, use: Literal["index", "training"]) -> tuple[SourceConfig, ...]:
        return tuple(source for source in self.sources if source.use in ("both", use))


def preset_path(name: str) -> Path:
    """The `build.toml` of a preset.

    Raises:
        UsageError: there is none of that name.
    """
    presets = {path.stem: path for path in PRESETS.glob("*.toml") if path.stem != "catalog"}
    if name not in presets:
        raise UsageError(f"unknown preset {name!r}; there are: {', '.join(sorted(presets))}")
    return presets[name]


def _replaced(sources: list[dict[str, Any]], given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sources with the given ones in the place of the first of their kind; of a new kind: in front."""
    kinds = [source.get("kind") for source in sources]
    result = [source for source in given if source["kind"] not in kinds]
    for place, (kind, source) in enumerate(zip(kinds, sources, strict=True)):
        same = [one for one in given if one["kind"] == kind]
        if not same:
            result.append(source)
        elif kind not in kinds[:place]:  # its other options hold for the given ones
            options = {key: value for key, value in source.items() if key != "fetch"}
            result += [{**options, **one} for one in same]
    return result


@dataclass(frozen=True)
class BuildLayout:
    """Every path of a build's intermediate artifacts; one directory a stage."""

    root: Path

    @property
    def sources(self) -> Path:
        """Holds a directory for each source read, named by its fingerprint."""
        return self.root / "sources"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def training_tables(self) -> Path:
        return self.root / "training-tables"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def encoder(self) -> Path:
        return self.root / "encoder"

    @property
    def vectors(self) -> Path:
        return self.root / "vectors"


def fingerprint(*parts: Any) -> str:
    """SHA-256 (hex, 16 digits) of anything JSON can hold, with the versions of code and text mixed in."""
    versions = [BUILDER_VERSION, SCHEMA_VERSION, TEXT_VERSION]
    payload = json.dumps([versions, *parts], sort_keys=True, default=str)
    return hashlib.sha256(payload.encode()).hexdigest()[:16]
