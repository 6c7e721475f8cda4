"""What an index on object storage costs against a directory: publishing, opening, one search, and a copy of its tables.

    python benchmarks/remote.py --index build/open-kb --url s3://names/open-kb [--out FILE]

The storage is that of the environment (AWS_ENDPOINT_URL ...); without AWS_ENDPOINT_URL a SeaweedFS is started on the
loopback address. Names of the index are searched for, from a directory and from the storage in turn, so that both
meet the same load. `cold`: the first searches of a process, `warm`: once it has met every name; wall milliseconds.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from results_file import tell

from bioelx_mcp.index import AliasIndex
from bioelx_mcp.location import S3Url, parse_location
from bioelx_mcp.manifest import IndexLayout
from bioelx_mcp.remote import Storage, publish_index
from bioelx_mcp.retriever import Retriever
from bioelx_mcp.schema import Mention

TESTS = Path(__file__).parents[1] / "tests"
COLD = 20
DEPTH = 64


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def compare(searches: dict[str, Callable[[int], Any]], count: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each search, cold and warm; each is asked in turn for the same."""
    spent: dict[str, list[list[float]]] = {name: [] for name in searches}
    for _ in range(2):
        for name in searches:
            spent[name].append([])
        for number in range(count):
            for name, search in searches.items():
                seconds, _ = timed(lambda search=search, number=number: search(number))
                spent[name][-1].append(1000 * seconds)
    return {
        name: {
            "first_ms": first[0],
            f"cold_{COLD}_mean_ms": float(np.mean(first[:COLD])),
            "warm_median_ms": float(np.median(second)),
            "warm_p95_ms": float(np.percentile(second, 95)),
        }
        for name, (first, second) in spent.items()
    }


def measure(directory: Path, url: S3Url, cache: Path, names: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    told["publish_s"], manifest = timed(lambda: publish_index(IndexLayout(directory), url))
    told["publish_again_s"], _ = timed(lambda: publish_index(IndexLayout(directory), url))
    tables = [name for name in manifest.files if name.startswith("tables/")]
    size = {name: sum(manifest.files[each] for each in part) / 1e6 for name, part in (
        ("tables_mb", tables), ("fetched_mb", [each for each in manifest.files if each not in tables])
    )}  # fmt: skip
    told |= {"index": manifest.index_id, "aliases": manifest.aliases, **size}
    told["open_directory_s"], here = timed(lambda: AliasIndex(directory))
    told["open_empty_cache_s"], there = timed(lambda: AliasIndex(url, cache=cache))
    told["open_full_cache_s"], there = timed(lambda: AliasIndex(url, cache=cache))
    storage, copy = Storage(url), cache / "copy"
    told["fetch_tables_s"], _ = timed(
        lambda: [storage.fetch(manifest, name, copy / name) for name in tables]
    )
    rows = np.random.default_rng(0).choice(manifest.aliases, names, replace=False).tolist()
    texts: Sequence[str] = [here.alias_text[row].as_py() for row in rows]
    vectors = here.encoder.encode(texts)
    places = {"directory": here, "storage": there}
    told["dense"] = compare(
        {
            name: lambda number, index=index: index.search_dense(
                vectors[number : number + 1], DEPTH
            )
            for name, index in places.items()
        },
        names,
    )
    retrievers = {name: Retriever(index) for name, index in places.items()}
    told["whole"] = compare(
        {
            name: lambda number, one=one: one.search_candidates([Mention(texts[number])], 10)
            for name, one in retrievers.items()
        },
        names,
    )
    found = [one.search_candidates([Mention(text) for text in texts], 10) for one in retrievers.values()]  # fmt: skip
    told["equal"] = found[0] == found[1]
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--url", default="s3://names/index")
    parser.add_argument("--names", type=int, default=300)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    url = parse_location(args.url)
    assert isinstance(url, S3Url)
    work = Path(tempfile.mkdtemp(prefix="bioelx-remote-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work)
        if "AWS_ENDPOINT_URL" not in os.environ:
            sys.path.insert(0, str(TESTS))
            from s3_server import find_weed, s3_server

            server = stack.enter_context(s3_server(find_weed() or "weed", work / "s3"))
            server.files().create_dir(url.bucket)
            os.environ.update(server.environment)
        told = measure(args.index, url, work / "cache", args.names)
    tell(told, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
