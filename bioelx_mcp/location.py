"""Where an index is: a directory, or a prefix in a bucket of object storage."""

import re
from dataclasses import dataclass
from pathlib import Path

from bioelx_mcp.errors import UsageError

# Path("s3://bucket") has lost a slash
_S3 = re.compile(r"s3:/{1,2}(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[^?#]*))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.I)


@dataclass(frozen=True)
class S3Url:
    """A prefix in a bucket; it has no slash at either end and may be empty."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.key()}"

    def key(self, *names: str) -> str:
        """Bucket and key of what is below the prefix, as pyarrow writes it."""
        return "/".join(name for name in (self.bucket, self.prefix, *names) if name)


Location = Path | S3Url


def parse_location(text: str | Path) -> Location:
    """The place that a setting or an argument names.

    Raises:
        UsageError: it is a URL, but none of a bucket.
    """
    found = _S3.fullmatch(str(text))
    if found is not None:
        parts = (found["prefix"] or "").split("/")
        if ".." not in parts:
            return S3Url(found["bucket"], "/".join(part for part in parts if part not in ("", ".")))
    elif _SCHEME.match(str(text)) is None:
        return Path(text)
    told = "this one" if "@" in str(text) else repr(str(text))  # who writes keys there, writes `@`
    raise UsageError(
        f"an index is a directory or s3://BUCKET/PREFIX, not {told}; keys and endpoint of object storage "
        "come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION)"
    )
