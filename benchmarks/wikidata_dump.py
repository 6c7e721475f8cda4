"""Read a Wikidata dump: megabytes a second and memory, against a reader that parses every line.

    python benchmarks/wikidata_dump.py --gigabytes 2 --out benchmarks/results/wikidata_dump.json

The dump is made first, in a temporary directory: 2% of its entities are real ones (../shared/data/sources/wikidata)
with new ids, the others are made up and look like what most of Wikidata is: papers and people, in many languages,
with statements, hashes and references. A megabyte is 10^6 bytes, uncompressed. Memory is what all processes together
hold, pages that they share counted once (PSS), and the plain sum of what each holds (RSS), which is more.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from memory import timed

from index_builder.sources.formats.entity import read_item
from index_builder.sources.formats.reading import read_blocks
from index_builder.sources.wikidata import PROPERTIES, WikidataSource
from index_builder.staging import stage_source

ENTITIES = Path("../shared/data/sources/wikidata/entities_dump_style.json")
INTERESTING = 0.02  # of the entities
POOL = 400  # made-up entities, before ids and hashes are put in
CODES = (
    "en de fr es it nl pt ru zh ja pl sv uk ca ar he fa ko tr cs fi hu da nb ro bg el sk sl sr hr eu gl et lv lt "
    "bn hi ta te ml th vi id ms tl cy ga gd br oc ast sq mk bs hy ka az kk uz ky tg mn ne si my km lo am sw zu af"
).split()


def made_up(rng: random.Random) -> tuple[str, int]:
    """An entity as a template of `%s`, and how many hexadecimal digits go into it (40 each; the id is the first)."""
    hashes = 0

    def words(least: int, most: int) -> str:
        syllables = ("ka", "lo", "mi", "ne", "ru", "sa", "ti", "vo", "про", "сти", "ün", "é", "的")
        return " ".join(
            "".join(rng.choices(syllables, k=rng.randint(1, 4)))
            for _ in range(rng.randint(least, most))
        )

    def texts(count: int, least: int, most: int) -> dict[str, Any]:
        codes = rng.sample(CODES, min(count, len(CODES)))
        return {code: {"language": code, "value": words(least, most)} for code in codes}

    def snak(name: str) -> dict[str, Any]:
        nonlocal hashes
        hashes += 1
        value: Any = words(1, 6)
        if rng.random() < 0.5:
            value = {"entity-type": "item", "numeric-id": 5, "id": f"Q{rng.randint(1, 10**8)}"}
        return {
            "snaktype": "value",
            "property": name,
            "hash": "%s",
            "datavalue": {"value": value, "type": "string"},
            "datatype": "external-id",
        }

    def statement(name: str) -> dict[str, Any]:
        nonlocal hashes
        one: dict[str, Any] = {"mainsnak": snak(name), "type": "statement", "rank": "normal"}
        if rng.random() < 0.6:
            hashes += 1
            source = {"P248": [snak("P248")], "P813": [snak("P813")]}
            one["references"] = [{"hash": "%s", "snaks": source, "snaks-order": list(source)}]
        return one

    count = max(1, int(rng.lognormvariate(2.0, 0.9)))
    names = [f"P{rng.choice((rng.randint(1, 999), rng.randint(1000, 12000)))}" for _ in range(12)]
    names = [name for name in names if name not in PROPERTIES]
    claims: dict[str, list[Any]] = {}
    for _ in range(count):
        name = rng.choice(names)
        claims.setdefault(name, []).append(statement(name))
    entity = {
        "type": "item",
        "id": "Q0",
        "labels": texts(int(rng.lognormvariate(1.8, 1.1)) + 1, 1, 8),
        "descriptions": texts(int(rng.lognormvariate(2.4, 0.9)), 2, 6),
        "aliases": {code: [{"language": code, "value": words(1, 5)}] for code in ("en", "de")},
        "claims": claims,
        "sitelinks": {f"{code}wiki": {"title": words(1, 3)} for code in rng.sample(CODES, 3)},
        "lastrevid": 2_000_000_000,
    }
    text = json.dumps(entity, ensure_ascii=False, separators=(",", ":"))
    return text.replace('"id":"Q0"', '"id":"Q%s"', 1), hashes


def real_entities(path: Path) -> list[tuple[bytes, list[bytes]]]:
    """Lines of the dump, and the values of their identifiers."""
    found = []
    for line in path.read_bytes().splitlines():
        line = line.strip(b"[], ")
        if line:
            claims = json.loads(line)["claims"]
            values = [
                statement["mainsnak"]["datavalue"]["value"].encode()
                for name in PROPERTIES
                for statement in claims.get(name, ())
            ]
            found.append((line, values))
    return found


def entities(size: int, real: list[tuple[bytes, list[bytes]]]) -> Iterator[bytes]:
    """Lines of a dump until they make up `size` bytes; the same for every run."""
    rng = random.Random(1)
    pool = [made_up(rng) for _ in range(POOL)]
    number = done = 0
    while done < size:
        number += 1
        if rng.random() < INTERESTING:
            line, values = rng.choice(real)
            for value in values:  # as many digits as before
                digits = sum(48 <= byte < 58 for byte in value)
                new = b"%0*d" % (digits, number % 10**digits)
                line = line.replace(b'"%b"' % value, b'"%b"' % (value[:-digits] + new))
            line = line.replace(b'"id":"Q', b'"id":"Q%d' % number, 1)
        else:
            text, hashes = rng.choice(pool)
            digits_of_all = rng.randbytes(20 * hashes).hex()
            cut = [digits_of_all[i : i + 40] for i in range(0, 40 * hashes, 40)]
            line = (text % (number, *cut)).encode()
        yield line
        done += len(line)


def write_dump(path: Path, size: int, real: list[tuple[bytes, list[bytes]]]) -> tuple[int, int]:
    """Write the dump; its entities and its uncompressed bytes."""
    count = done = 0
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        separator = b"[\n"
        for line in entities(size, real):
            out.write(separator + line)
            count, done, separator = count + 1, done + len(line) + 2, b",\n"
        out.write(b"\n]\n")
    return count, done + 3


def read_staged(path: Path, workers: int, directory: Path) -> int:
    """Names that the build's own stage reads into shards."""
    source = WikidataSource(path=path)
    staged = stage_source(
        source, directory, workers=workers, max_rejected=0.01, report=lambda *_: None
    )
    return sum(pq.read_metadata(shard).num_rows for shard in staged.files("aliases"))


def read_plainly(path: Path, most: int) -> tuple[int, int]:
    """Names and bytes that a reader gets that parses every line, in one process, up to `most` bytes."""
    names = done = 0
    for block in read_blocks(path):
        for line in block.data.split(b"\n"):
            if (entity := line.strip(b"[], ")) and (
                item := read_item(json.loads(entity), PROPERTIES, (), lambda name, value: None)
            ):
                names += len(item.names) * len(item.ids[0])
        done += len(block.data)
        if done >= most:
            break
    return names, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="uncompressed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--plain", type=float, default=0.1, help="share that the plain reader reads"
    )
    parser.add_argument("--entities", type=Path, default=ENTITIES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not args.entities.is_file():
        sys.stderr.write(f"no {args.entities}: the real entities are not here\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="wikidata-") as directory:
        path = Path(directory) / "dump.json.zst"
        count, size = write_dump(path, int(args.gigabytes * 1e9), real_entities(args.entities))
        packed = path.stat().st_size
        shards = Path(directory)
        names, seconds, memory = timed(lambda: read_staged(path, args.workers, shards / "several"))
        same, alone, _ = timed(lambda: read_staged(path, 1, shards / "one"))
        (parsed, part), plain, _ = timed(lambda: read_plainly(path, int(args.plain * size)))
    if names != same or (part == size and names > parsed):  # the stage sets a few aside
        raise SystemExit(
            f"readers differ: {names} names in parallel, {same} alone, {parsed} plainly"
        )
    result = {
        "dump": {"entities": count, "bytes": size, "compressed": packed, "names": names},
        "workers": args.workers,
        "mb_per_second": round(size / seconds / 1e6, 1),
        "one_process_mb_per_second": round(size / alone / 1e6, 1),
        "plain_mb_per_second": round(part / plain / 1e6, 1),
        "plain_read_bytes": part,
        "ratio": round(size / seconds * plain / part, 2),
        "ratio_one_process": round(size / alone * plain / part, 2),
        "peak_memory_mb": round(memory.shared / 1e6, 1),
        "peak_resident_mb": round(memory.resident / 1e6, 1),
    }
    told = json.dumps(result, indent=1)
    if args.out:
        args.out.write_text(told + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{told}\n{size / 1e9:.2f} GB in {seconds:.1f} s: {result['mb_per_second']} MB/s with {args.workers} workers, "
        f"{result['peak_memory_mb']} MB of memory ({result['peak_resident_mb']} MB resident); every line parsed: {result['plain_mb_per_second']} MB/s "
        f"(measured on {part / size:.0%} of it); {result['ratio']} times as fast, "
        f"{result['ratio_one_process']} times in one process\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
