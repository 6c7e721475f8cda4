"""The small knowledge base and encoder that ship with the package, and the index made of them.

`concepts/*.jsonl` hold the knowledge base, `encoder/` the encoder; both are data of this package.
"""

from pathlib import Path

from filelock import FileLock

from bioelx_mcp.manifest import IndexLayout, encoder_checksum
from index_builder.config import STARTER_ENCODER, BuildConfig, SourceConfig, fingerprint
from index_builder.materialize import read_whole_manifest
from index_builder.pipeline import build_index

_HERE = Path(__file__).parent
CONCEPTS = _HERE / "concepts"
ENCODER = STARTER_ENCODER
LICENSE = "Apache-2.0"


def ensure_starter_index(cache: Path) -> Path:
    """The starter index of this version below `cache`, made now if it is not there or is broken."""
    concepts = [path.read_text(encoding="utf-8") for path in sorted(CONCEPTS.glob("*.jsonl"))]
    version = fingerprint(concepts, encoder_checksum(ENCODER))
    directory = cache / f"starter-{version}"
    if read_whole_manifest(IndexLayout(directory)) is None:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".starter-{version}.lock"):
            build_index(starter_config(directory))
    return directory


def starter_config(directory: Path, encoder: Path = ENCODER) -> BuildConfig:
    """The build of the starter index; nothing in it needs torch."""
    source = SourceConfig.model_validate(
        {"kind": "starter", "path": CONCEPTS, "name": "starter", "license": LICENSE}
    )
    return BuildConfig(name="starter", out=directory, sources=(source,), encoder=encoder)
