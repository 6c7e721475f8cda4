"""Where an index is: directories and prefixes of buckets, and nothing else."""

from pathlib import Path

import pytest
from callers import Cli

from bioelx_mcp.errors import UsageError
from bioelx_mcp.linker import Linker
from bioelx_mcp.location import S3Url, parse_location
from bioelx_mcp.settings import load_settings


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://names", "names", ""),
        ("s3://names/", "names", ""),
        ("s3://names/open/kb", "names", "open/kb"),
        ("s3://names//open/./kb/", "names", "open/kb"),
        ("s3://names/ein Präfix", "names", "ein Präfix"),
        (Path("s3://names/open/kb"), "names", "open/kb"),
    ],
)
def test_a_url_names_a_bucket_and_a_prefix(text: str | Path, bucket: str, prefix: str) -> None:
    url = parse_location(text)
    assert url == S3Url(bucket, prefix)
    assert str(url) == f"s3://{bucket}/{prefix}".rstrip("/")
    assert parse_location(str(url)) == url
    assert load_settings(index=text).index == url == load_settings(index=url).index


@pytest.mark.parametrize("text", ["index", "/an/index", "./s3", "C:\\index", "ein Index/zwei"])
def test_anything_that_is_no_url_is_a_directory(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_location(text) == Path(text) == load_settings(index=text).index
    monkeypatch.setenv("BIOELX_INDEX", text)
    assert load_settings().index == Path(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3://Names/x",
        "s3://n",
        "s3://names/../others",
        "s3://names/x?versionId=1",
        "gs://names/x",
        "https://names.s3.example.org/x",
    ],
)
def test_another_url_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError, match="a directory or s3://BUCKET/PREFIX, not '") as refused:
        parse_location(text)
    assert text in str(refused.value) and "AWS_ACCESS_KEY_ID" in str(refused.value)
    with pytest.raises(UsageError):
        Linker.open(text)


def test_keys_in_a_url_are_refused_and_not_repeated(cli: Cli) -> None:
    result = cli("search", "fever", "--index", "s3://key:secret@names/x")
    assert result.code == 2 and "not this one" in result.err and "secret" not in result.err


@pytest.mark.parametrize("command", ["versions", "rollback"])
def test_generations_on_object_storage_are_left_to_the_directory_they_come_from(
    cli: Cli, command: str
) -> None:
    result = cli("index", command, "--index", "s3://names/x")
    assert result.code == 2 and "s3://names/x is read-only" in result.err


def test_an_index_is_published_to_object_storage_alone(cli: Cli, tmp_path: Path) -> None:
    result = cli("index", "publish", str(tmp_path))
    assert result.code == 2 and "published to s3://BUCKET/PREFIX" in result.err


def test_a_client_is_told_the_url_of_an_index(cli: Cli) -> None:
    assert '"s3://names/x"' in cli("mcp-config", "--index", "s3://names/x").out
