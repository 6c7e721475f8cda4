"""What an index directory holds and promises: paths, row schemas and the manifest that is written last.

DIR/manifest.json                   names the generation that is served; replaced atomically
DIR/generations/ID/manifest.json    the same text, kept for rollback; who reads a generation holds a lock on it
DIR/generations/ID/tables/          Lance tables `concepts` and `aliases`, the vectors and their index
DIR/generations/ID/rows/            what a reader needs of both tables at hand: Arrow files, memory-mapped
DIR/generations/ID/lexicon/         the inverted index of the aliases' character grams
DIR/generations/ID/encoder/         the query encoder that made the vectors
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError, problems
from bioelx_mcp.files import parse_json, read_bytes
from bioelx_mcp.text import TEXT_VERSION, visible_json

SCHEMA_VERSION = 3
CONCEPTS_TABLE = "concepts"
ALIASES_TABLE = "aliases"

CONCEPTS_SCHEMA = pa.schema(
    [
        pa.field("concept_id", pa.string(), nullable=False),  # a CURIE; rows are sorted by it
        pa.field("preferred_name", pa.string(), nullable=False),
        pa.field("semantic_types", pa.list_(pa.string()), nullable=False),
        pa.field("definition", pa.string(), nullable=False),
        pa.field("xrefs", pa.list_(pa.string()), nullable=False),
        pa.field("alt_ids", pa.list_(pa.string()), nullable=False),
        pa.field("parents", pa.list_(pa.string()), nullable=False),  # concepts of the same index
        pa.field(
            "popularity", pa.int32(), nullable=False
        ),  # Wikipedia pages and the like; 0: unknown
    ]
)
ALIASES_SCHEMA = pa.schema(
    [
        pa.field("concept", pa.int32(), nullable=False),  # row of the concepts table
        pa.field("text", pa.string(), nullable=False),
        pa.field("normalized", pa.string(), nullable=False),  # text.normalize_alias(text)
        pa.field("language", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of schema.ALIAS_KINDS
        pa.field("source", pa.string(), nullable=False),  # `|`-joined where several sources agree
        pa.field("license", pa.string(), nullable=False),
        pa.field(
            "disambiguation", pa.string(), nullable=False
        ),  # "element" of the title "Mercury (element)"
        pa.field(
            "homonyms", pa.int32(), nullable=False
        ),  # further concepts of the same normalised name
    ]
)
FACET_FIELD = pa.field("facet", pa.int32(), nullable=False)  # row of rows/facets.arrow
_NAMED = pa.dictionary(pa.int32(), pa.string())
# rows/aliases.arrow, in the order of the aliases but for the last two columns
ROWS_SCHEMA = pa.schema(
    [
        pa.field("concept", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("normalized", pa.string(), nullable=False),
        pa.field("language", _NAMED, nullable=False),
        pa.field("kind", _NAMED, nullable=False),
        pa.field("source", _NAMED, nullable=False),
        FACET_FIELD,
        pa.field("grams", pa.float32(), nullable=False),  # the weight of all its character grams
        pa.field("renown", pa.float32(), nullable=False),  # of its concept, in [0, 1]
        pa.field("row_id", pa.uint64(), nullable=False),  # Lance's, ascending
        pa.field("key", pa.int64(), nullable=False),  # alias_key(normalized), ascending,
        pa.field("key_row", pa.int32(), nullable=False),  # and the row that it is the key of
    ]
)
FACETS_SCHEMA = pa.schema(  # rows/facets.arrow: what filters ask about, each combination once
    [
        pa.field("language", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prefix", pa.string(), nullable=False),  # of the concept's id
        pa.field("semantic_types", pa.list_(pa.string()), nullable=False),
    ]
)
IDS_SCHEMA = pa.schema(  # rows/ids.arrow: ids and alternative ids of the concepts
    [
        pa.field("key", pa.int64(), nullable=False),  # alias_key(id), ascending
        pa.field("concept", pa.int32(), nullable=False),
    ]
)


def vector_field(dimension: int) -> pa.Field:
    """The alias table's vector column: float16, unit norm, `dimension` wide."""
    return pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False)


def alias_key(normalized: str) -> int:
    """64 bits of BLAKE2b of a normalised name or an id, signed: what the exact channel compares."""
    digest = hashlib.blake2b(normalized.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceCard(_Model):
    """One source of aliases: how many rows it gave (shared ones counted once for each), and its licences."""

    name: str
    aliases: int
    licenses: tuple[str, ...]


class EncoderCard(_Model):
    """Which encoder made the vectors; `checksum` is SHA-256 over its files."""

    name: str
    dimension: int
    checksum: str


class Probe(_Model):
    """A text and the vector its encoder gave at build time: float32, unit norm."""

    text: str
    vector: tuple[float, ...]


class Manifest(_Model):
    """The promise of one generation of an index."""

    schema_version: int = SCHEMA_VERSION
    text_version: int = TEXT_VERSION
    index_id: str
    name: str
    created: str
    builder: str
    concepts: int
    aliases: int
    languages: dict[str, int]
    sources: tuple[SourceCard, ...]
    encoder: EncoderCard
    dense_index: str  # `exact`, or the Lance index that serves the vectors; of that:
    bits: int = 0  # of each number of a vector
    partitions: int = 0
    nprobes: int = 0  # partitions it looks into for one mention
    # The generation's files with their bytes, the manifest itself left out.
    files: dict[str, int] = {}
    probes: tuple[Probe, ...]

    def card(self) -> dict[str, Any]:
        """What it tells people, as JSON values."""
        return self.model_dump(mode="json", exclude={"probes", "files"})


@dataclass(frozen=True)
class IndexLayout:
    """Every path of an index directory."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the directory."""
        return self.root / ".lock"

    @property
    def generations(self) -> Path:
        return self.root / "generations"

    def generation(self, index_id: str) -> Path:
        return self.generations / index_id

    def generation_manifest(self, index_id: str) -> Path:
        return self.generation(index_id) / "manifest.json"

    def rows(self, index_id: str) -> Path:
        return self.generation(index_id) / "rows"

    def tables(self, index_id: str) -> Path:
        return self.generation(index_id) / "tables"

    def lexicon(self, index_id: str) -> Path:
        return self.generation(index_id) / "lexicon"

    def encoder(self, index_id: str) -> Path:
        return self.generation(index_id) / "encoder"


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_manifest(layout: IndexLayout, manifest: Manifest) -> None:
    """Put a generation into service. The last write of a build."""
    write_atomically(layout.manifest, render_manifest(manifest))


def render_manifest(manifest: Manifest) -> str:
    """The manifest as it stands in its file."""
    return visible_json(manifest.model_dump(mode="json"), indent=1) + "\n"


class NewerArtifactError(InvalidArtifactError):
    """An index that a newer version of this program wrote."""


def check_version(path: object, raw: Any) -> None:
    """Raise InvalidArtifactError unless this program reads what a manifest says it is."""
    for field, ours in (("schema_version", SCHEMA_VERSION), ("text_version", TEXT_VERSION)):
        theirs = raw.get(field) if isinstance(raw, dict) else None
        told = f"{path}: {field} is {theirs}, this program reads {ours}"
        if isinstance(theirs, int) and theirs > ours:
            raise NewerArtifactError(f"{told}: upgrade bioelx-mcp")
        if theirs != ours:
            raise InvalidArtifactError(f"{told}: rebuild the index with `bioelx-mcp build-index`")


def read_manifest(layout: IndexLayout, index_id: str | None = None) -> Manifest:
    """The manifest of the index in service, or of one of its generations.

    Raises:
        MissingArtifactError: there is no index.
        InvalidArtifactError: the manifest is broken, or written for another version of this program.
    """
    build = f"build one with `bioelx-mcp build-index --out {layout.root}`"
    path = layout.manifest if index_id is None else layout.generation_manifest(index_id)
    try:
        return parse_manifest(read_bytes(path), path, build)
    except FileNotFoundError:
        raise MissingArtifactError(
            f"no index in {layout.root} (no manifest.json): {build}"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidArtifactError(f"{path} cannot be read ({error}): {build}") from error


def parse_manifest(text: bytes, path: object, build: str) -> Manifest:
    """The manifest that stands in a file of this path; `build` says how to make one.

    Raises:
        InvalidArtifactError: it is broken, or written for another version of this program.
    """
    try:
        raw = parse_json(text.decode())
    except ValueError as error:
        raise InvalidArtifactError(f"{path} cannot be read ({error}): {build}") from error
    check_version(path, raw)
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise InvalidArtifactError(f"{path}: {where}: {what}: {build}") from error


def encoder_checksum(directory: Path) -> str:
    """SHA-256 over the names and bytes of an encoder's files, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.suffix in {".json", ".onnx"}:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
