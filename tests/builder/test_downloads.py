import contextlib
import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from bioelx_mcp.errors import UsageError
from index_builder.downloads import Download, fetch, plan_downloads, read_catalog, render_plan
from index_builder.downloads import plan as downloads
from index_builder.downloads.cache import Record
from index_builder.downloads.transfer import open_client

OBO = b"".join(b"[Term]\nid: MADE:%d\nname: invented %d\n\n" % (n, n) for n in range(2000))
OTHER = OBO.replace(b"invented", b"imagined") + b"! a later edition\n"


@dataclass
class Served:
    """One file of the server, and how it misbehaves: what is listed is used up request by request."""

    data: bytes = b""
    etag: str = '"one"'
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # body bytes after which the connection drops
    statuses: list[int] = field(default_factory=list)  # answers in place of the file
    answer: Callable[[str], bytes] | None = None  # to a SPARQL query


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.serve(parse_qs(body)["query"][0])

    def do_GET(self) -> None:
        self.serve(parse_qs(urlsplit(self.path).query).get("query", [""])[0])

    def serve(self, query: str) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, dict(self.headers), query))
        served = self.server.files.get(path)
        if served is None or served.statuses:
            status = served.statuses.pop(0) if served else 404
            self.send_response(status)
            for name, value in served.headers.items() if served else ():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = served.answer(query) if served.answer else served.data
        known = self.headers.get("If-None-Match")
        if served.etag and known == served.etag:
            self.send_response(304)
            self.end_headers()
            return
        start, asked = 0, self.headers.get("Range", "")
        if served.ranges and asked and self.headers.get("If-Range") in (None, served.etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(data) and start:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        headers = {"Content-Length": str(len(data) - start), "ETag": served.etag, **served.headers}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        cut = served.cuts.pop(0) if served.cuts else len(data)
        with contextlib.suppress(OSError):  # the client has heard enough
            self.wfile.write(data[start : start + cut])
        self.close_connection = min(cut, len(data) - start) != int(headers["Content-Length"] or 0)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str, dict[str, str], str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, header: str) -> list[str | None]:
        return [headers.get(header) for _, _, headers, _ in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def catalog(server: Server, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the catalog be one entry, `made`."""
    told = {
        "name": "made",
        "kind": "obo",
        "url": f"{server.url}/made.obo",
        "file": "made.obo",
        "size": len(OBO),
        "license": "CC0-1.0",
        "license_url": "https://example.org/cc0",
        "homepage": "https://example.org",
    }
    entry = Download.model_validate({**told, **changes})
    monkeypatch.setattr(downloads, "read_catalog", lambda: {"made": entry})


Get = Callable[..., Path]


@pytest.fixture
def get(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Fetch the entry `made` into `tmp_path / "cache"`: where it lies."""

    def get(
        mirror: Path | None = None,
        refresh: bool = False,
        report: Callable[[int, int, str], None] = lambda done, total, text: None,
        **changes: Any,
    ) -> Path:
        catalog(server, monkeypatch, **changes)
        plan = plan_downloads(["made"], tmp_path / "cache", mirror, refresh=refresh)
        return fetch(plan, report, wait=0)["made"]

    return get


def refused(get: Get, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        get(**options)
    return str(caught.value)


def test_a_file_is_fetched_whole_with_a_record_of_what_it_is(
    server: Server, get: Get, tmp_path: Path
) -> None:
    server.files["/made.obo"] = Served(
        OBO, headers={"Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
    )
    assert get() == tmp_path / "cache" / "made.obo"
    assert (tmp_path / "cache" / "made.obo").read_bytes() == OBO
    record = Record.read(tmp_path / "cache" / ".downloads" / "made.obo.json")
    assert record is not None
    assert (record.url, record.etag, record.size) == (f"{server.url}/made.obo", '"one"', len(OBO))
    assert record.last_modified == "Sun, 22 Nov 2026 10:00:00 GMT"
    assert record.sha256 == hashlib.sha256(OBO).hexdigest()
    assert record.fetched.startswith("20")
    left = sorted(p.name for p in (tmp_path / "cache" / ".downloads").iterdir())
    assert left == [".lock", "made.obo.json"]
    assert server.asked("Accept-Encoding") == ["identity"]
    assert str(server.asked("User-Agent")[0]).startswith("bioelx-mcp/")


def test_a_cached_file_is_used_without_a_request(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO)
    get()
    get()
    assert len(server.requests) == 1


def test_a_cached_file_that_is_not_as_it_was_recorded_is_fetched_again(
    server: Server, get: Get
) -> None:
    server.files["/made.obo"] = Served(OBO)
    path = get()
    path.write_bytes(OBO[:100])
    assert get().read_bytes() == OBO
    server.files["/elsewhere.obo"] = Served(OTHER)
    assert get(url=f"{server.url}/elsewhere.obo").read_bytes() == OTHER


def test_a_refresh_asks_and_keeps_what_is_the_newest_already(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO)
    get()
    assert get(refresh=True).read_bytes() == OBO
    assert server.asked("If-None-Match") == [None, '"one"']
    server.files["/made.obo"] = Served(OTHER, etag='"two"')
    assert get(refresh=True).read_bytes() == OTHER


def test_a_dropped_connection_is_resumed_where_it_broke(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO, cuts=[1000, 5000, 0, 70])
    assert get().read_bytes() == OBO
    assert server.asked("Range") == [
        None,
        "bytes=1000-",
        "bytes=6000-",
        "bytes=6000-",
        "bytes=6070-",
    ]
    assert server.asked("If-Range") == [None, *['"one"'] * 4]


def test_a_killed_download_is_resumed_by_the_next_build(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/made.obo"] = Served(OBO, cuts=[1000])

    def killed(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("index_builder.downloads.transfer.time.sleep", killed)
        get()
    assert not (tmp_path / "cache" / "made.obo").exists()
    (planned,) = plan_downloads(["made"], tmp_path / "cache")
    assert planned.state == "resume"
    assert get().read_bytes() == OBO
    assert server.asked("Range") == [None, "bytes=1000-"]


def test_a_download_killed_after_its_last_byte_needs_no_further_request(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/made.obo"] = Served(OBO)

    def killed(path: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("index_builder.downloads.transfer.sha256_of", killed)
        get()
    assert get().read_bytes() == OBO
    assert len(server.requests) == 1


def test_a_file_that_changes_under_a_download_is_fetched_from_its_start(
    server: Server, get: Get
) -> None:
    served = server.files["/made.obo"] = Served(OBO, cuts=[1000])

    def change(done: int, total: int, text: str) -> None:
        if done == 1000:
            served.data, served.etag = OTHER, '"two"'

    assert get(report=change).read_bytes() == OTHER
    assert server.asked("Range") == [None, "bytes=1000-"]


def test_a_part_is_never_continued_with_another_edition(server: Server, get: Get) -> None:
    served = server.files["/made.obo"] = Served(OBO, cuts=[1000])

    def change(done: int, total: int, text: str) -> None:
        if done == 1000:  # by a server that does not heed If-Range
            served.data, served.etag, served.headers = OTHER, '"one"', {"ETag": '"two"'}

    assert get(report=change).read_bytes() == OTHER
    assert server.asked("Range") == [None, "bytes=1000-", None]


def test_a_shorter_file_under_a_download_is_fetched_from_its_start(
    server: Server, get: Get
) -> None:
    served = server.files["/made.obo"] = Served(OBO, cuts=[1000])

    def change(done: int, total: int, text: str) -> None:
        if done == 1000:
            served.data = OBO[:500]

    assert get(report=change).read_bytes() == OBO[:500]
    assert server.asked("Range") == [None, "bytes=1000-", None]


def test_a_server_without_ranges_or_validators_sends_it_all_again(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO, ranges=False, cuts=[1000])
    assert get().read_bytes() == OBO
    server.files["/bare.obo"] = Served(OTHER, etag="", cuts=[1000])
    assert get(url=f"{server.url}/bare.obo").read_bytes() == OTHER
    assert server.asked("Range") == [None, "bytes=1000-", None, None]


def test_a_server_that_never_gets_further_is_given_up(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO, ranges=False, cuts=[1000] * 99)
    told = refused(get)
    assert told.startswith(f"made: {server.url}/made.obo: ")
    assert "(tried 5 times in vain). Get made.obo another way" in told
    assert len(server.requests) == 5


def test_a_busy_server_is_asked_again(server: Server, get: Get) -> None:
    busy = Served(OBO, statuses=[503, 429, 500], headers={"Retry-After": "0"})
    server.files["/made.obo"] = busy
    assert get().read_bytes() == OBO
    assert len(server.requests) == 4


def test_what_is_not_there_names_the_entry_the_address_and_the_mend(
    server: Server, get: Get
) -> None:
    assert refused(get) == (
        f"made: {server.url}/made.obo answers 404. Get made.obo another way, lay it below a directory and name "
        "that with --mirror DIR; or give the source a path in place of fetch"
    )
    server.files["/made.obo"] = Served(OBO, statuses=[403])
    assert "made.obo answers 403" in refused(get)


def test_the_next_address_is_asked_where_one_does_not_give_the_file(
    server: Server, get: Get
) -> None:
    server.files["/page.obo"] = Served(b"<html>", headers={"Content-Type": "text/html; charset=x"})
    server.files["/moved.obo"] = Served(OBO)
    urls = [f"{server.url}/{name}.obo" for name in ("gone", "page", "moved")]
    assert get(url=urls).read_bytes() == OBO
    told = refused(get, url=urls[:2], file="again.obo")
    assert "gone.obo answers 404; " in told
    assert "page.obo answers with a web page." in told


def test_redirects_are_followed_but_never_out_of_encryption(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(statuses=[302], headers={"Location": "/real.obo"})
    server.files["/real.obo"] = Served(OBO)
    assert get().read_bytes() == OBO

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(302, headers={"Location": "http://example.org/made.obo"})

    with open_client() as client:
        hooks = client.event_hooks
    transport = httpx2.MockTransport(answer)  # a server with a certificate is not to be had here
    with httpx2.Client(transport=transport, follow_redirects=True, event_hooks=hooks) as client:
        with pytest.raises(Exception, match="which is not encrypted"):
            client.get("https://example.org/made.obo")


def test_a_body_shorter_than_announced_is_no_file(server: Server, get: Get) -> None:
    headers = {"Content-Length": str(len(OBO) + 10)}
    server.files["/made.obo"] = Served(OBO, ranges=False, headers=headers)
    assert "(tried 5 times in vain)" in refused(get)


def test_a_file_of_unannounced_length_is_fetched(server: Server, get: Get) -> None:
    server.files["/made.obo"] = Served(OBO, headers={"Content-Length": ""})
    assert get().read_bytes() == OBO


def test_a_file_far_larger_than_expected_is_stopped(
    server: Server, get: Get, tmp_path: Path
) -> None:
    server.files["/made.obo"] = Served(OBO)
    problem = f"{server.url}/made.obo gives more than 2,000 bytes: another file than is expected"
    assert problem in refused(get, size=100)
    server.files["/made.obo"] = Served(OBO, headers={"Content-Length": ""})
    assert problem in refused(get, size=100)
    assert not list((tmp_path / "cache" / ".downloads").glob("*.part*"))


def test_a_file_with_another_hash_than_the_catalog_states_is_refused(
    server: Server, get: Get, tmp_path: Path
) -> None:
    server.files["/made.obo"] = Served(OBO)
    right = hashlib.sha256(OBO).hexdigest()
    assert get(sha256=right).read_bytes() == OBO
    told = refused(get, sha256="0" * 64)
    assert f"has the SHA-256 {right}, not {'0' * 64}" in told
    assert not list((tmp_path / "cache" / ".downloads").glob("*.part*"))


def test_compression_on_the_way_leaves_the_file_as_it_is(server: Server, get: Get) -> None:
    packed = gzip.compress(OBO)
    headers = {"Content-Encoding": "gzip"}
    server.files["/made.obo"] = Served(packed, headers=headers, cuts=[700])
    assert get().read_bytes() == OBO
    server.files["/made.obo.gz"] = Served(
        packed, headers={"Content-Encoding": "x-gzip"}, cuts=[700]
    )
    assert get(url=f"{server.url}/made.obo.gz", file="made.obo.gz").read_bytes() == packed
    assert server.asked("Range") == [None, None, None, "bytes=700-"]


def test_an_unwritable_cache_is_told(server: Server, get: Get, tmp_path: Path) -> None:
    server.files["/made.obo"] = Served(OBO)
    (tmp_path / "cache").write_text("a file")
    told = refused(get)
    assert told.startswith(str(tmp_path / "cache" / ".downloads"))
    assert "cannot be written" in told


def test_a_full_disk_is_told(server: Server, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/made.obo"] = Served(OBO)

    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("index_builder.downloads.transfer._flush", full)
    told = refused(get)
    assert "made.obo cannot be written: [Errno 28] No space left on device" in told


def test_a_mirror_is_read_in_place_and_no_request_is_made(
    server: Server, get: Get, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "made.obo").write_bytes(OBO)
    assert get(mirror=mirror) == mirror / "made.obo"
    assert refused(get, mirror=mirror, file="other.obo") == (
        f"--mirror {mirror}: lacks 1 of 1 files (other.obo); with a mirror nothing is fetched"
    )
    assert server.requests == []
    assert not (tmp_path / "cache").exists()


def test_the_copy_of_a_cache_is_a_mirror_and_is_checked(
    server: Server, get: Get, tmp_path: Path
) -> None:
    server.files["/made.obo"] = Served(OBO)
    get()
    cache = tmp_path / "cache"
    assert get(mirror=cache).read_bytes() == OBO
    (cache / "made.obo").write_bytes(OTHER)
    assert "has not the SHA-256" in refused(get, mirror=cache)


def test_the_files_of_an_entry_lie_in_a_directory_of_its_name(
    server: Server, get: Get, tmp_path: Path
) -> None:
    for language in ("de", "fr"):
        server.files[f"/hp-{language}.tsv"] = Served(language.encode() + OBO)
    url, seen = f"{server.url}/hp-{{}}.tsv", []
    path = get(
        url=url,
        file="hp-{}.tsv",
        each=["de", "fr"],
        report=lambda done, total, text: seen.append((done, total, text)),
    )
    assert path == tmp_path / "cache" / "made"
    assert {p.name: p.read_bytes()[:2] for p in path.iterdir()} == {
        "hp-de.tsv": b"de",
        "hp-fr.tsv": b"fr",
    }
    whole = 2 * len(OBO) + 4
    assert seen[-1] == (whole, whole, "2 files")
    assert {text for _, _, text in seen[:-1]} == {"made/hp-de.tsv", "made/hp-fr.tsv"}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


ANSWER = b"?item\t?lang\t?name\t?cui\t?kind\n"


def names(query: str) -> bytes:
    language = "de" if '"de"' in query else "fr"
    row = f'<http://www.wikidata.org/entity/Q1>\t"{language}"\t"zolg"@{language}\t"C9000001"\t"preferred"\n'
    return ANSWER + row.encode() * 100


SPARQL = {"kind": "wikidata", "identifier": "P2892", "file": "{}.tsv", "each": ["de", "fr"]}


def test_a_sparql_endpoint_is_asked_for_each_language(server: Server, get: Get) -> None:
    server.files["/sparql"] = Served(answer=names)
    path = get(url=f"{server.url}/sparql", **SPARQL)
    assert sorted(p.name for p in path.iterdir()) == ["de.tsv", "fr.tsv"]
    assert (path / "de.tsv").read_bytes() == names('"de"')
    assert server.asked("Accept") == ["text/tab-separated-values"] * 2
    assert {method for method, *_ in server.requests} == {"GET"}
    assert all("wdt:P2892" in query for *_, query in server.requests)


def test_a_long_query_is_posted(server: Server, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index_builder.downloads.transfer._LONGEST_ADDRESS", 100)
    server.files["/sparql"] = Served(answer=names)
    get(url=f"{server.url}/sparql", **SPARQL)
    assert {method for method, *_ in server.requests} == {"POST"}
    assert all("wdt:P2892" in query for *_, query in server.requests)


TRACE = b"""SPARQL-QUERY: queryStr=SELECT ?item
java.util.concurrent.TimeoutException
\tat java.util.concurrent.FutureTask.get(FutureTask.java:205)
\tat java.lang.Thread.run(Thread.java:750)
"""


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (names('"de"') + TRACE, "the answer breaks off, it ends"),
        (names('"de"')[:-30], "the answer breaks off, it ends"),
        (names('"de"')[:-1], "the answer breaks off, it ends"),
        (TRACE, "the answer is no table, it begins 'SPARQL-QUERY"),
        (b"", "the answer is no table, it begins ''"),
    ],
)
def test_a_broken_answer_is_asked_for_again_then_refused(
    server: Server, get: Get, tmp_path: Path, broken: bytes, told: str
) -> None:
    answers = [broken, broken, names('"de"')]
    served = server.files["/sparql"] = Served(answer=lambda query: answers.pop(0))
    options = {**SPARQL, "each": ["de"]}
    assert (get(url=f"{server.url}/sparql", **options) / "de.tsv").read_bytes() == names('"de"')
    assert server.asked("Range") == [None] * 3
    served.answer = lambda query: broken
    assert told in refused(get, url=f"{server.url}/sparql", **{**options, "identifier": "P486"})
    assert (tmp_path / "cache" / "made" / "de.tsv").read_bytes() == names('"de"')


def test_a_web_page_is_no_answer(server: Server, get: Get) -> None:
    server.files["/sparql"] = Served(answer=names, headers={"Content-Type": "text/html"})
    assert "answers with a web page (tried 5 times" in refused(
        get, url=f"{server.url}/sparql", **SPARQL
    )


def test_answers_that_came_are_kept_when_a_later_one_does_not(server: Server, get: Get) -> None:
    served = server.files["/sparql"] = Served(
        answer=lambda query: names(query) if '"de"' in query else TRACE
    )
    refused(get, url=f"{server.url}/sparql", **SPARQL)
    served.answer = names
    server.requests.clear()
    get(url=f"{server.url}/sparql", **SPARQL)
    assert ['"fr"' in query for *_, query in server.requests] == [True]


def test_another_question_is_asked_anew(server: Server, get: Get) -> None:
    server.files["/sparql"] = Served(answer=names)
    get(url=f"{server.url}/sparql", **SPARQL)
    get(url=f"{server.url}/sparql", **{**SPARQL, "identifier": "P486"})
    assert len(server.requests) == 4


def test_the_plan_says_what_comes_from_where_and_under_which_licence(
    server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a.tsv"] = Served(OBO)
    options: dict[str, Any] = {"url": f"{server.url}/{{}}.tsv", "file": "{}.tsv", "size": 2_500_000}
    get(**options, each=["a"])
    catalog(server, monkeypatch, **options, each=["a", "b", "c"])
    plan = plan_downloads(["made", "made"], tmp_path / "cache")
    assert render_plan(plan) == (
        "source   size  licence\n"
        "made    ~2 MB  CC0-1.0  1 in the cache, 2 to be fetched from 127.0.0.1\n"
        "licences:\n"
        "  CC0-1.0: https://example.org/cc0\n"
        "to be fetched: about 2 MB\n"
    )
    catalog(server, monkeypatch, **options, each=["a"])
    text = render_plan(plan_downloads(["made"], tmp_path / "cache"))
    assert "in the cache\n" in text
    assert text.endswith("nothing is to be fetched\n")


def test_an_unknown_name_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fetch: unknown name 'hop'; known: hpo, hpo-trans"):
        plan_downloads(["hpo", "hop"], tmp_path)


def test_an_entry_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(
        '[made]\nkind = "obo"\nurl = "https://example.org/{}"\nfile = "x.obo"\neach = ["a"]\nsize = 1\n'
        'license = "x"\nlicense_url = "x"\nhomepage = "x"\n'
    )
    with pytest.raises(UsageError, match=r"made: .*`each` and `{}` in `file` belong together"):
        read_catalog(path)
