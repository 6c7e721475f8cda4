"""One public file over HTTP into the cache: resumed where the server allows it, checked, put in place in one step.

A dropped connection, a busy server or an answer that breaks off is tried again, as long as something new comes.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import httpx2

from bioelx_mcp import __version__
from bioelx_mcp.errors import UsageError
from index_builder.downloads.cache import Record, Wanted, sha256_of, size_of

TRIES = 5  # in a row that bring nothing new
_LONGEST_WAIT = 120.0  # seconds, whatever a server asks for
_LONGEST_ADDRESS = 2000  # characters; a query that makes it longer goes into the body
_BUSY = (408, 425, 429, 500, 502, 503, 504)

Told = Callable[[int, int], None]
"""How a transfer tells its progress: bytes that are here, bytes in all (0: not known)."""


class _RefusedError(Exception):
    """An address does not give the file, however often it is asked."""


class _AgainError(Exception):
    """An answer that another try may better; not before `after` seconds, if the server says so."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def open_client() -> httpx2.Client:
    """A client that follows redirects, but not from https to http, and the proxies of the environment."""
    return httpx2.Client(
        follow_redirects=True,
        timeout=httpx2.Timeout(120.0, connect=30.0),
        # Compressed on the way, a file would have another size, and its parts other borders.
        headers={"Accept-Encoding": "identity", "User-Agent": f"bioelx-mcp/{__version__}"},
        event_hooks={"response": [_stay_encrypted]},
    )


def transfer(
    client: httpx2.Client, wanted: Wanted, told: Told, *, wait: float, refresh: bool = False
) -> Record:
    """Fetch a file from the first address that gives it; its record.

    After a failure the next try waits `wait` seconds, then twice as long, and so on. With `refresh` a file that
    is there stays if the server has no other one.

    Raises:
        UsageError: no address gives it, what they give is wrong, or it cannot be written.
    """
    refusals = []
    try:
        wanted.part.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        for url in wanted.urls:
            try:
                return _persist(client, url, wanted, told, wait, refresh)
            except _RefusedError as refusal:
                refusals.append(str(refusal))
    except OSError as error:
        raise UsageError(f"{wanted.name}: {wanted.path} cannot be written: {error}") from error
    raise UsageError(
        f"{wanted.name}: {'; '.join(refusals)}. Get {wanted.file} another way, lay it below a directory and name "
        "that with --mirror DIR; or give the source a path in place of fetch"
    )


def _stay_encrypted(response: httpx2.Response) -> None:
    if response.has_redirect_location and response.url.scheme == "https":
        target = response.url.join(response.headers["location"])
        if target.scheme != "https":
            raise _RefusedError(f"{response.url} leads to {target}, which is not encrypted")


def _persist(
    client: httpx2.Client, url: str, wanted: Wanted, told: Told, wait: float, refresh: bool
) -> Record:
    """Try until the file is here, or until nothing new comes."""
    furthest, tries = size_of(wanted.part), 0
    while True:
        try:
            return _try(client, url, wanted, told, refresh)
        except httpx2.InvalidURL as error:
            raise _RefusedError(f"{url} is no address: {error}") from error
        except (httpx2.RequestError, _AgainError) as error:
            here = size_of(wanted.part)
            tries = 1 if here > furthest else tries + 1
            furthest = max(here, furthest)
            if tries >= TRIES:
                what = str(error) or type(error).__name__
                raise _RefusedError(f"{url}: {what} (tried {tries} times in vain)") from error
            after = error.after if isinstance(error, _AgainError) else 0.0
            time.sleep(min(max(wait * 2 ** (tries - 1), after), _LONGEST_WAIT))


def _try(client: httpx2.Client, url: str, wanted: Wanted, told: Told, refresh: bool) -> Record:
    """Ask once, from where the part ends."""
    part = Record.read(wanted.part_record)
    offset = size_of(wanted.part) if part and part.url == url else 0
    if part and 0 < offset == part.size:  # killed between the last byte and the end
        return _finish(wanted, part)
    request = _request(client, url, wanted)
    known = wanted.kept() if refresh else None
    if part and offset:
        request.headers.update({"Range": f"bytes={offset}-", "If-Range": part.validator})
    elif known and known.url == url and known.etag:
        request.headers["If-None-Match"] = known.etag
    elif known and known.url == url and known.last_modified:
        request.headers["If-Modified-Since"] = known.last_modified
    response = client.send(request, stream=True)
    try:
        if known and response.status_code == 304:
            return known
        offset = _checked(response, url, wanted, part, offset)
        record = _receive(response, url, wanted, part if offset else None, offset, told)
    finally:
        response.close()
    return _finish(wanted, record)


def _request(client: httpx2.Client, url: str, wanted: Wanted) -> httpx2.Request:
    if not wanted.query:
        return client.build_request("GET", url)
    asked, headers = {"query": wanted.query}, {"Accept": "text/tab-separated-values"}
    request = client.build_request("GET", url, params=asked, headers=headers)
    if len(str(request.url)) > _LONGEST_ADDRESS:
        request = client.build_request("POST", url, data=asked, headers=headers)
    return request


def _checked(
    response: httpx2.Response, url: str, wanted: Wanted, part: Record | None, offset: int
) -> int:
    """Where what the server sends belongs: at `offset`, or at the start of the file."""
    status = response.status_code
    if status in _BUSY:
        after = response.headers.get("retry-after", "")
        raise _AgainError(f"the server answers {status}", float(after) if after.isdigit() else 0.0)
    if status == 206 and part and offset:
        sent = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        if sent == str(offset) and response.headers.get("etag", part.etag) == part.etag:
            return offset
    if status in (206, 416):  # not the part that was asked for: from the start, then
        wanted.discard()
        raise _AgainError(f"the server cannot go on at byte {offset:,}")
    if status != 200:
        raise _RefusedError(f"{url} answers {status}")
    if response.headers.get("content-type", "").startswith("text/html"):
        problem = f"{url} answers with a web page"
        raise _AgainError(problem) if wanted.query else _RefusedError(problem)
    return 0


def _receive(
    response: httpx2.Response,
    url: str,
    wanted: Wanted,
    part: Record | None,
    offset: int,
    told: Told,
) -> Record:
    """Write what comes to the part, at `offset`."""
    coding = response.headers.get("content-encoding", "identity").lower()
    # Some servers call every .gz file compressed on the way; it is to stay as it is.
    plain = coding == "identity" or ("gzip" in coding and wanted.file.endswith(".gz"))
    length = response.headers.get("content-length", "")
    size = offset + int(length) if plain and length.isdigit() else 0
    problem = f"{url} gives more than {wanted.limit:,} bytes: another file than is expected"
    if size > wanted.limit:
        raise _RefusedError(problem)
    record = part or Record(
        url=url,
        query=wanted.query,
        etag=response.headers.get("etag", ""),
        last_modified=response.headers.get("last-modified", ""),
        size=size,
    )
    if part is None:
        wanted.discard()
        if plain and record.validator and not wanted.query:
            record.write(wanted.part_record)
    with wanted.part.open("ab" if offset else "wb") as file:
        here = offset
        told(here, size)
        for piece in response.iter_raw() if plain else response.iter_bytes():
            here += file.write(piece)
            if here > wanted.limit:
                break
            told(here, size)
        _flush(file)
    if here > wanted.limit:
        wanted.discard()
        raise _RefusedError(problem)
    if size and here != size:
        raise _AgainError(f"{here:,} bytes came of {size:,}")
    return record


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finish(wanted: Wanted, record: Record) -> Record:
    """Check the whole part and put it in place; the record is the last thing written."""
    if wanted.query and (problem := _answer_problem(wanted.part)):
        raise _AgainError(problem)
    found = sha256_of(wanted.part)
    if wanted.sha256 not in ("", found):
        wanted.discard()
        raise _RefusedError(
            f"{record.url} has the SHA-256 {found}, not {wanted.sha256}: it was changed or broken"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    size = size_of(wanted.part)
    record = record.model_copy(update={"size": size, "sha256": found, "fetched": now})
    wanted.record.unlink(missing_ok=True)
    wanted.part.replace(wanted.path)
    wanted.part_record.unlink(missing_ok=True)
    record.write(wanted.record)
    return record


def _answer_problem(path: Path) -> str:
    """What is wrong with the answer of a SPARQL endpoint; empty where it is a whole table.

    Endpoints that fail late have answered 200 already: they end the table with the trace of their error.
    """
    with path.open("rb") as file:
        header = file.readline(1 << 16)
        file.seek(max(0, size_of(path) - (1 << 16)))
        tail = file.read()
    if not header.startswith(b"?"):
        return f"the answer is no table, it begins {header[:60].decode(errors='replace')!r}"
    last = tail.rstrip(b"\r\n").rpartition(b"\n")[2]
    if not tail.endswith(b"\n") or last.count(b"\t") != header.count(b"\t"):
        return f"the answer breaks off, it ends {last[-60:].decode(errors='replace')!r}"
    return ""
