"""An index on object storage: published from a directory, opened read-only through a cache.

Below the prefix it looks as in a directory (`manifest.py`). What a reader maps into memory is fetched into the cache
once and checked there; the tables are read by LanceDB where they are, and what a search has needed of them stays in
memory (benchmarks/LOG.md). Keys come from the environment, by the chains of the AWS SDKs; nothing of ours holds them.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSelector, FileType, S3FileSystem

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError, UsageError
from bioelx_mcp.generations import Generation, Lease, open_generation, remove_generations
from bioelx_mcp.location import Location, S3Url
from bioelx_mcp.manifest import (
    IndexLayout,
    Manifest,
    parse_manifest,
    read_manifest,
    render_manifest,
    write_atomically,
    write_manifest,
)
from bioelx_mcp.settings import load_settings

_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 16 << 20  # at most; those of millions of aliases have 20 KB
_TABLES, *_FETCHED = "tables", "rows", "lexicon", "encoder"
_BLOCK_BYTES = 8 << 20
_CONNECT_SECONDS, _TRIES = 5, 3
_STALL_SECONDS = 10  # without a byte of a file
_REQUEST_SECONDS = 30  # for a request of LanceDB, which asks for megabytes


def open_location(location: Location, cache: Path | None = None) -> Generation:
    """The generation in service of an index, wherever it is.

    Raises:
        MissingArtifactError: there is no index, or it cannot be reached.
        InvalidArtifactError: its manifest is broken, or files are missing or have other sizes.
        UsageError: the cache cannot be written to.
    """
    if isinstance(location, S3Url):
        return _open_published(Storage(location), cache or load_settings().cache)
    return open_generation(IndexLayout(location))


class Storage:
    """What lies below a prefix of a bucket."""

    def __init__(self, url: S3Url) -> None:
        self.url = url
        told = os.environ.get
        self._endpoint = told("AWS_ENDPOINT_URL_S3") or told("AWS_ENDPOINT_URL")
        # A server that is not Amazon's rarely has regions, yet they are part of a signature.
        region = told("AWS_REGION") or told("AWS_DEFAULT_REGION")
        self._region = region or ("us-east-1" if self._endpoint else None)
        self._files = S3FileSystem(
            endpoint_override=self._endpoint,
            region=self._region,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_STALL_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        )

    def options(self) -> dict[str, str]:
        """The same for LanceDB, which reads the keys itself."""
        options = {
            "connect_timeout": f"{_CONNECT_SECONDS}s",
            "timeout": f"{_REQUEST_SECONDS}s",
            "client_max_retries": f"{_TRIES}",
            "client_retry_timeout": f"{_REQUEST_SECONDS}",
            "download_retry_count": "1",
        }
        if self._endpoint:
            options["aws_endpoint"] = self._endpoint
            options["allow_http"] = str(self._endpoint.startswith("http://")).lower()
        if self._region:
            options["aws_region"] = self._region
        return options

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Errors of the storage as ours; those of local files, which have a number, pass."""
        try:
            yield
        except OSError as error:
            if error.errno is not None and not isinstance(error, FileNotFoundError):
                raise
            raise MissingArtifactError(
                f"{self.url} cannot be reached ({error}): check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_REGION, AWS_ENDPOINT_URL and the network"
            ) from error

    def manifest(self, *place: str) -> Manifest | None:
        """The manifest at the top or in a generation; None where there is none.

        Raises:
            MissingArtifactError: the storage cannot be reached.
            InvalidArtifactError: it cannot be used.
        """
        key = self.url.key(*place, _MANIFEST)
        with self.reaching():
            if self._files.get_file_info(key).type is not FileType.File:
                if self._files.get_file_info(self.url.bucket).type is FileType.NotFound:
                    raise MissingArtifactError(
                        f"no bucket {self.url.bucket}: make it, or check AWS_ENDPOINT_URL and AWS_REGION"
                    )
                return None
            with self._files.open_input_stream(key) as source:
                text = source.read(_MANIFEST_BYTES)
        manifest = parse_manifest(text, f"s3://{key}", self.mend)
        _check_names(manifest, f"s3://{key}")
        return manifest

    @property
    def mend(self) -> str:
        return f"publish an index with `bioelx-mcp index publish {self.url} --index DIRECTORY`"

    def sizes(self, index_id: str) -> dict[str, int]:
        """The files of a generation with their bytes."""
        top = self.url.key("generations", index_id)
        with self.reaching():
            found = self._files.get_file_info(
                FileSelector(top, allow_not_found=True, recursive=True)
            )
        return {
            str(PurePosixPath(info.path).relative_to(top)): info.size
            for info in found
            if info.type is FileType.File
        }

    def check(self, manifest: Manifest) -> None:
        """Raise InvalidArtifactError unless a generation has the files that its manifest lists, of their sizes."""
        sizes = self.sizes(manifest.index_id)
        for name, size in manifest.files.items():
            if sizes.get(name) != size:
                key = self.url.key("generations", manifest.index_id, name)
                found = f"has {sizes[name]} bytes" if name in sizes else "is not there"
                raise InvalidArtifactError(
                    f"s3://{key} {found}, its manifest promises {size}: remove it, then {self.mend}"
                )

    def fetch(self, manifest: Manifest, name: str, target: Path) -> None:
        """A file of a generation, written as a whole or not at all."""
        key = self.url.key("generations", manifest.index_id, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with self.reaching(), self._files.open_input_stream(key) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, _BLOCK_BYTES)
            out.flush()
            os.fsync(out.fileno())
        if part.stat().st_size != manifest.files[name]:  # replaced meanwhile
            raise InvalidArtifactError(f"s3://{key} changed while it was fetched: try again")
        part.replace(target)

    def send(self, source: Path, *name: str) -> None:
        """Put a file there."""
        with self.reaching(), source.open("rb") as text:
            with self._files.open_output_stream(self.url.key(*name)) as out:
                shutil.copyfileobj(text, out, _BLOCK_BYTES)


def _check_names(manifest: Manifest, where: str) -> None:
    """Raise InvalidArtifactError unless the manifest names files of a generation alone: they are written here."""
    names = [f"rows/{manifest.index_id}", *manifest.files]
    for name in names:
        parts = name.split("/")
        hidden = any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)
        if hidden or parts[0] not in (_TABLES, *_FETCHED) or len(names[0].split("/")) != 2:
            raise InvalidArtifactError(f"{where} names {name!r}, which is no file of an index")


def publish_index(layout: IndexLayout, url: S3Url) -> Manifest:
    """Copy the generation in service below a prefix of a bucket, and put it into service there; its manifest.

    The manifest at the top is the last write, so that a reader sees the old index or the new one. Files that an
    earlier call has left there are not sent again.

    Raises:
        MissingArtifactError: there is no index or bucket, or it cannot be reached.
        InvalidArtifactError: the index is broken.
        UsageError: another build of this generation is there.
    """
    generation, storage = open_generation(layout), Storage(url)
    manifest, index_id = generation.manifest, generation.manifest.index_id
    place = ("generations", index_id)
    there = storage.manifest(*place)
    if there not in (None, manifest):
        raise UsageError(
            f"{url} holds another build of {index_id}, which may be in use: publish below another prefix, "
            f"or remove s3://{url.key(*place)} first"
        )
    sizes = {} if there is None else storage.sizes(index_id)
    local = layout.generation_manifest(index_id)
    if there is None:
        storage.send(local, *place, _MANIFEST)  # says whose the files are that a killed call leaves
    for name, size in manifest.files.items():
        if sizes.get(name) != size:
            storage.send(layout.generation(index_id) / name, *place, name)
    storage.check(manifest)
    storage.send(local, _MANIFEST)
    return manifest


def _open_published(storage: Storage, cache: Path) -> Generation:
    url = storage.url
    whose = hashlib.sha256(f"{storage.options().get('aws_endpoint')} {url}".encode()).hexdigest()
    layout = IndexLayout(cache / "remote" / f"{url.bucket}-{whose[:16]}")
    try:
        layout.generations.mkdir(parents=True, exist_ok=True)
        with FileLock(layout.lock):  # who comes second finds what the first has fetched
            manifest = storage.manifest()
            if manifest is None:
                raise MissingArtifactError(f"no index at {url} (no {_MANIFEST}): {storage.mend}")
            storage.check(manifest)
            _fetch(storage, manifest, layout)
            lease = Lease(layout.generation_manifest(manifest.index_id))
            remove_generations(layout, 0, None)
    except OSError as error:
        raise UsageError(
            f"the cache {layout.root} cannot be written to ({error}): make room, or set BIOELX_CACHE to another directory"
        ) from error
    tables = f"s3://{url.key('generations', manifest.index_id, _TABLES)}"
    mend = f"remove {layout.root}, which is only a cache, or {storage.mend}"
    return Generation(manifest, lease, layout, tables, storage.options(), mend)


def _fetch(storage: Storage, manifest: Manifest, layout: IndexLayout) -> None:
    """What the cache lacks of a generation, all but its tables; then it is the one in service there."""
    generation = layout.generation(manifest.index_id)
    if _cached(layout, manifest.index_id) != manifest:  # else readers hold locks on that very file
        shutil.rmtree(generation, ignore_errors=True)  # another build of the same name
        write_atomically(layout.generation_manifest(manifest.index_id), render_manifest(manifest))
    for name, size in manifest.files.items():
        target = generation / name
        if name.split("/")[0] in _FETCHED and not (
            target.is_file() and target.stat().st_size == size
        ):
            storage.fetch(manifest, name, target)
    write_manifest(layout, manifest)


def _cached(layout: IndexLayout, index_id: str) -> Manifest | None:
    try:
        return read_manifest(layout, index_id)
    except (MissingArtifactError, InvalidArtifactError):
        return None
