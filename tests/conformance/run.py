"""The server as other people's programs see it; needs npm, and a package index the first time.

    python tests/conformance/run.py [--work build/conformance]

Runs the official conformance suite for both revisions (server and fixtures, over HTTP), the inspector (an
independent client: strict lint of the tools and one call in each era, over stdio) and the validator of Claude
Desktop bundles. What may fail stands in expected-REVISION.yml, with a reason each.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REVISIONS = ("2025-11-25", "2026-07-28")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "conformance")
    work: Path = parser.parse_args().work.resolve()
    bin = install(work)
    os.environ["BIOELX_CACHE"] = str(work / "cache")
    index = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom bioelx_mcp.builder import ensure_starter_index\n"
         "sys.stdout.write(str(ensure_starter_index(Path(sys.argv[1]))))", work / "cache"],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    inspect(bin, index)
    validate_bundle(bin, work)
    conform(bin, index, work)
    say("all as expected")


def install(work: Path) -> Path:
    """The directory of the pinned programs, with a Node that is new enough for them; installed if need be."""
    work.mkdir(parents=True, exist_ok=True)
    bin = work / "node_modules" / ".bin"
    wanted = (HERE / "package.json").read_bytes()
    if not (bin / "node").exists() or (work / "package.json").read_bytes() != wanted:
        shutil.rmtree(work / "node_modules", ignore_errors=True)
        (work / "package.json").write_bytes(wanted)
        run("npm", "install", "--no-fund", "--no-audit", "--no-package-lock", cwd=work)
    os.environ["PATH"] = os.pathsep.join([str(bin), os.environ["PATH"]])
    run("node", "--version")
    return bin


def inspect(bin: Path, index: str) -> None:
    inspector: list[str | Path] = [
        bin / "mcp-inspector",
        "--cli",
        Path(sys.executable).with_name("bioelx-mcp"),
        "serve",
        "--index",
        index,
    ]
    say("inspector: tools/list --strict")
    run(*inspector, "--method", "tools/list", "--strict", quiet=True)
    arguments = json.dumps({"mentions": ["NIDDM", "Herzinfarkt"], "limit": 1})
    for era in ("legacy", "modern"):
        say(f"inspector: a call, {era} era")
        call = [
            "--method",
            "tools/call",
            "--tool-name",
            "search_candidates",
            "--tool-args-json",
            arguments,
        ]
        told = run(*inspector, *call, "--protocol-era", era, "-q", "--format", "json", quiet=True)
        results = json.loads(told)["result"]["structuredContent"]["results"]
        ids = [result["candidates"][0]["id"] for result in results]
        if ids != ["UMLS:C0011860", "UMLS:C0027051"]:
            sys.exit(f"the inspector got {ids}")


def validate_bundle(bin: Path, work: Path) -> None:
    say("bundle: validate and pack")
    run(sys.executable, ROOT / "mcpb" / "make_bundle.py", work / "bundle")
    run(bin / "mcpb", "validate", work / "bundle" / "manifest.json")
    run(bin / "mcpb", "pack", work / "bundle", work / "bioelx-mcp.mcpb", quiet=True)


def conform(bin: Path, index: str, work: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (work / "server.log").open("w") as log:
        command = [sys.executable, str(HERE / "fixtures.py"), index, str(port)]
        server = subprocess.Popen(command, stderr=log)
        try:
            wait_ready(port)
            for revision in REVISIONS:
                suite(bin, work, f"http://127.0.0.1:{port}/mcp", revision)
        finally:
            server.terminate()
            server.wait(60)


def suite(bin: Path, work: Path, url: str, revision: str) -> None:
    """Fails on an unexpected failure and on an expected one that passes."""
    say(f"conformance, {revision}")
    expected = HERE / f"expected-{revision}.yml"
    told = run(
        bin / "conformance", "server", "--url", url, "--suite", "all", "--spec-version", revision,
        "--expected-failures", expected, "-o", work / f"results-{revision}", quiet=True,
    )  # fmt: skip
    say(next(iter(re.findall(r"^Total: .*$", told, re.MULTILINE)), "no total"))


def wait_ready(port: int) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("the server did not get ready")


def run(*command: str | Path, cwd: Path | None = None, quiet: bool = False) -> str:
    """What the command printed; ends this program if it failed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE if quiet else None,
    )
    if done.returncode:
        sys.stderr.write(done.stdout or "")
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command[:8]))}")
    return done.stdout or ""


def say(text: str) -> None:
    sys.stderr.write(f"--- {text}\n")


if __name__ == "__main__":
    main()
