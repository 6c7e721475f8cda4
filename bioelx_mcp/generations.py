"""The generations of an index directory: which is served, which can be restored, which are being read.

A reader holds a shared lock (flock) on the manifest inside the generation it has open, so that a builder removes
none that is in use; a lock ends with its process, however that ends. Where there is no flock nothing is held.
"""

import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from bioelx_mcp.errors import BioelxError, InvalidArtifactError, UsageError
from bioelx_mcp.files import read_json
from bioelx_mcp.manifest import (
    IndexLayout,
    Manifest,
    NewerArtifactError,
    check_version,
    read_manifest,
    write_manifest,
)

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows, where an open file cannot be removed anyway)
    HAS_FLOCK = False
else:
    HAS_FLOCK = True


@contextmanager
def builder_lock(layout: IndexLayout) -> Iterator[None]:
    """The right to change an index directory, for one process at a time; it ends with the process.

    Raises:
        UsageError: another process has it, or the directory cannot be written to.
    """
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        held = FileLock(layout.lock).acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"another build is at work in {layout.root}; wait for it, or take another --out"
        ) from None
    except OSError as error:
        raise UsageError(f"{layout.root} cannot be written to: {error}") from error
    with held:
        yield


def refuse_newer(layout: IndexLayout) -> None:
    """Raise InvalidArtifactError where a newer program wrote a generation: not known to this one, it would be removed."""
    for path in (layout.manifest, *layout.generations.glob("[!.]*/manifest.json")):
        try:
            check_version(path, read_json(path))
        except NewerArtifactError as error:
            raise InvalidArtifactError(f"{error}, or build into another --out") from None
        except (OSError, ValueError, BioelxError):  # gone, broken or older: a build makes it anew
            continue


class Lease:
    """A shared lock on a generation, held for as long as the object lives."""

    def __init__(self, manifest: Path) -> None:
        descriptor = os.open(manifest, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        if HAS_FLOCK:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        self.gone = os.fstat(descriptor).st_nlink == 0  # removed while the lock was waited for


class Generation(NamedTuple):
    """A generation that is open; it stays on disk for as long as this does."""

    manifest: Manifest
    lease: Lease
    layout: IndexLayout  # of its files
    tables: str  # what LanceDB opens,
    storage: dict[str, str]  # and its options
    mend: str  # what to do should it be broken


def open_generation(layout: IndexLayout) -> Generation:
    """The generation in service.

    Raises:
        MissingArtifactError: there is no index.
        InvalidArtifactError: its manifest is broken, or its generation lacks files or has other ones.
    """
    while True:
        manifest = read_manifest(layout)
        with suppress(OSError):
            lease = Lease(layout.generation_manifest(manifest.index_id))
            if not lease.gone:
                check_files(layout, manifest)
                tables = str(layout.tables(manifest.index_id))
                return Generation(manifest, lease, layout, tables, {}, mend(layout))
        if read_manifest(layout).index_id == manifest.index_id:  # else swapped meanwhile
            raise InvalidArtifactError(
                f"{layout.root} lacks the generation {manifest.index_id} that its manifest names: {mend(layout)}"
            )


def check_files(layout: IndexLayout, manifest: Manifest) -> None:
    """Raise InvalidArtifactError unless a generation has the files that its manifest lists, of their sizes."""
    for name, size in manifest.files.items():
        if name.startswith("encoder/"):  # its checksum tells more
            continue
        path = layout.generation(manifest.index_id) / name
        try:
            found = path.stat().st_size
        except OSError as error:
            raise InvalidArtifactError(
                f"{path} cannot be read ({error}): {mend(layout)}"
            ) from error
        if found != size:
            raise InvalidArtifactError(
                f"{path} has {found} bytes, its manifest promises {size}: {mend(layout)}"
            )


def list_generations(layout: IndexLayout) -> list[Manifest]:
    """The generations that this program can serve, newest first."""
    found = []
    for path in layout.generations.glob("[!.]*"):
        try:
            found.append(read_manifest(layout, path.name))
        except BioelxError:  # of an older program, or broken
            continue
    return sorted(found, key=lambda manifest: (manifest.created, manifest.index_id), reverse=True)


def restore_generation(layout: IndexLayout, index_id: str | None = None) -> Manifest:
    """Put a generation back into service: this one, or the newest before the one that is served.

    Raises:
        UsageError: there is none such, or a build is at work.
        InvalidArtifactError: it is broken.
    """
    with builder_lock(layout):
        known = list_generations(layout)
        if index_id is None:
            served = read_manifest(layout)
            older = [one for one in known if one.created < served.created]
            if not older:
                raise UsageError(f"{layout.root} has no generation before {served.index_id}")
            chosen = older[0]
        else:
            named = [one for one in known if one.index_id == index_id]
            if not named:
                ids = ", ".join(one.index_id for one in known) or "none"
                raise UsageError(f"{layout.root} has no generation {index_id!r}; there is: {ids}")
            chosen = named[0]
        check_files(layout, chosen)
        write_manifest(layout, chosen)
        return chosen


def remove_generations(layout: IndexLayout, keep: int, before: str | None) -> None:
    """Remove all but the one in service, `keep` others, and what is being read.

    Kept are the one that was in service `before`, then the newest.
    """
    served = read_manifest(layout).index_id
    newest = [manifest.index_id for manifest in list_generations(layout)]
    others = [one for one in dict.fromkeys([before, *newest]) if one not in (None, served)]
    kept = {served, *others[:keep]}
    for path in layout.generations.iterdir():
        if path.name in kept:
            continue
        try:
            with (path / "manifest.json").open("rb") as lease:
                if HAS_FLOCK:
                    fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / "manifest.json").unlink()  # who waits for the lock finds it gone
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        except OSError:
            shutil.rmtree(path, ignore_errors=True)


def mend(layout: IndexLayout) -> str:
    """What to do about an index that is broken."""
    build = f"rebuild it with `bioelx-mcp build-index --out {layout.root}`"
    if len(list_generations(layout)) > 1:
        return f"{build}, or restore an older one with `bioelx-mcp index rollback --index {layout.root}`"
    return build
