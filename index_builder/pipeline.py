"""The order of the stages: sources, tables, training, encoder, vectors, index. Each is fresh, resumed or done anew.

A stage's directory holds `stage.json`: the fingerprint of all that its output depends on, and once it is done
the sizes of its files. With an equal fingerprint a whole stage is skipped and an unfinished one resumed; else it
starts empty.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import BioelxError, InvalidArtifactError, UsageError
from bioelx_mcp.generations import builder_lock, refuse_newer
from bioelx_mcp.manifest import (
    IndexLayout,
    Manifest,
    encoder_checksum,
    write_atomically,
)
from bioelx_mcp.text import visible_line
from index_builder.config import BuildConfig, Report, SourceConfig, file_stats, fingerprint
from index_builder.downloads import Planned, fetch, plan_downloads, render_plan
from index_builder.embed import embed_aliases, read_known_vectors
from index_builder.engines import Engine, open_engine
from index_builder.materialize import materialize_index, read_whole_manifest, serve_generation
from index_builder.sources import make_source, open_source
from index_builder.sources.formats.reading import CUT_SHORT
from index_builder.staging import Staged, stage_source
from index_builder.tables import ALIASES_FILE, REPORT_FILE, build_tables

STAGE_FILE = "stage.json"
# How Arrow, DuckDB and JSON say that a file holds something else.
_BROKEN = (
    OSError,
    pa.ArrowInvalid,
    duckdb.InvalidInputException,
    UnicodeError,
    json.JSONDecodeError,
)
# What lancedb, DuckDB and tantivy say where the system refuses, each in a class of its own.
_REFUSED = re.compile(
    r"os error \d+|Errno \d+|No space left|File too large|Permission denied", re.I
)


def build_index(config: BuildConfig) -> Manifest:
    """Run every stage that is not fresh; the manifest of the index that is then in service.

    Raises:
        UsageError: a source or an option is wrong; what was there before is untouched.
        MissingExtraError: a needed extra is not installed.
        MissingArtifactError: `encoder` is no encoder directory.
        InvalidArtifactError: what an earlier run left is broken, or a newer version of this program made it.
    """
    if not config.sources_for("index"):
        raise UsageError('no source is used for the index: all say `use = "training"`')
    for source in config.sources:
        if source.path is not None:
            open_source(source)  # what is wrong with it is found before any work is done
    if config.encoder is not None:
        OnnxEncoder(config.encoder)
    else:
        import_module("index_builder.export")  # a missing extra, too
    with (
        open_engine(config.engine) as engine,
        builder_lock(IndexLayout(config.out)),
        _refusals(config),
        _progress() as show,
    ):
        refuse_newer(IndexLayout(config.out))
        config = _fetch(config, show)
        tables = _tables(config, config.sources_for("index"), config.layout.tables, show)
        encoder = config.encoder or _train(config, tables, show)
        manifest = _materialize(config, tables, encoder, engine, show)
        _forget_sources(config)
        return manifest


def render_downloads(config: BuildConfig) -> str:
    """What the build would fetch, as a table with sizes and licences; empty where it fetches nothing."""
    plan = _plan(config)
    return render_plan(plan) if plan else ""


def _plan(config: BuildConfig) -> list[Planned]:
    names = [name for source in config.sources for name in source.fetch]
    return plan_downloads(names, config.downloads or config.out / "downloads", config.mirror)


def _fetch(config: BuildConfig, show: Callable[[str], Report]) -> BuildConfig:
    """The configuration with a path for everything that it names by `fetch`, fetched by now.

    What is to come, and under which licences, is said before the first byte is asked for.
    """
    plan = _plan(config)
    if not plan:
        return config
    if any(planned.fetches for planned in plan):
        sys.stderr.write(render_plan(plan))
    paths = fetch(plan, show("downloads"))
    catalog = {planned.download.name: planned.download for planned in plan}
    sources: list[SourceConfig] = []
    for source in config.sources:
        told = source.model_dump(exclude={"fetch"}, exclude_none=True)
        for name in source.fetch:
            if source.kind != catalog[name].kind:
                raise UsageError(
                    f"fetch: {name} is read by kind {catalog[name].kind!r}, not {source.kind!r}"
                )
            usual = {"name": name, "license": catalog[name].license}
            fetched = SourceConfig.model_validate({**usual, **told, "path": paths[name]})
            open_source(fetched)
            sources.append(fetched)
        if not source.fetch:
            sources.append(source)
    return config.model_copy(update={"sources": tuple(sources)})


def _tables(
    config: BuildConfig,
    configs: tuple[SourceConfig, ...],
    directory: Path,
    show: Callable[[str], Report],
) -> str:
    """Read what is new among the sources, merge them all; the fingerprint of the tables."""
    sources = [make_source(source) for source in configs]  # each was checked before
    stamps = [fingerprint(source.fingerprint()) for source in configs]
    merge = config.merge.model_dump(include={"id_order", "join_authority"})
    stamp = fingerprint("tables", stamps, merge)
    what = directory.name.replace("-", " ")
    report = show("sources" if what == "tables" else "more sources")
    staged = []
    for one, source in zip(stamps, sources, strict=True):
        shards = config.layout.sources / one
        with _stage(shards, one) as work:
            if work:
                stage_source(
                    source,
                    shards,
                    workers=config.merge.workers,
                    max_rejected=config.merge.max_rejected,
                    report=report,
                )
        staged.append(Staged(source, shards))
    report(1, 1, f"{len(sources)} read")
    report = show(what)
    with _stage(directory, stamp) as work:
        if work:
            report(0, 1, "merging")
            build_tables(staged, directory, config.merge)
    report(1, 1, _summary(json.loads((directory / REPORT_FILE).read_text(encoding="utf-8"))))
    return stamp


def _summary(counts: dict[str, Any]) -> str:
    """A line about the tables, with what their reader should look into."""
    rejected = {reason: entry["rows"] for reason, entry in counts["rejected"].items()}
    told = f"{counts['aliases']:,} aliases of {counts['concepts']:,} concepts, {sum(rejected.values()):,} rows set aside"
    if conflicts := counts["conflicts"]["mappings"]:
        told += f", {conflicts:,} mappings refused (they would join two ids of one authority)"
    if CUT_SHORT in rejected:
        told += (
            f"; {rejected[CUT_SHORT]} input files end before their time, what follows there is lost"
        )
    return told


def _forget_sources(config: BuildConfig) -> None:
    """Remove the shards of sources that this build no longer reads."""
    used = {fingerprint(source.fingerprint()) for source in config.sources}
    for directory in config.layout.sources.iterdir():
        if directory.name not in used:
            _empty(directory)


def _train(config: BuildConfig, tables: str, show: Callable[[str], Report]) -> Path:
    """The trained and exported encoder's directory."""
    from index_builder.card import write_card  # torch: only where something is trained
    from index_builder.export import export_trained
    from index_builder.launch import launch_training
    from index_builder.pairs import read_names
    from index_builder.train import train_encoder

    layout = config.layout
    directory, stamp = layout.tables, tables
    if config.sources_for("training") != config.sources_for("index"):
        directory = layout.training_tables
        stamp = _tables(config, config.sources_for("training"), directory, show)
    names = read_names(directory, config.train.source_weights)
    base = Path(config.train.base_model)
    base_files = file_stats(base) if base.is_dir() else []
    settings = config.train.model_dump(exclude_defaults=True, exclude={"processes"})
    stamp = fingerprint("training", stamp, settings, base_files)
    name = f"{config.name}-{stamp[:8]}"
    report = show("training")
    with _stage(layout.training, stamp) as work:
        if work:
            if config.train.processes > 1:
                launch_training(directory, config.train, layout.training, report)
            else:
                train_encoder(names, config.train, layout.training, report)
            write_card(layout.training, directory, config.train, name)
    report(1, 1, "trained")
    report = show("encoder")
    # What is whitened depends on the names that are searched; else the encoder stays when only these change.
    whitened = (tables, config.whitening, config.dimensions)
    shape = whitened if config.whitening or config.dimensions else ()
    with _stage(layout.encoder, fingerprint("encoder", stamp, config.quantize, *shape)) as work:
        if work:
            report(0, 1, "exporting")
            searched = read_names(layout.tables, {}) if shape else names
            export_trained(
                config,
                layout.training / "model",
                layout.encoder / "onnx",
                name=name,
                names=searched,
            )
    report(1, 1, "exported, parity checked")
    return layout.encoder / "onnx"


def _materialize(
    config: BuildConfig,
    tables: str,
    encoder: Path,
    engine: Engine,
    show: Callable[[str], Report],
) -> Manifest:
    layout, build = IndexLayout(config.out), config.layout
    checksum = encoder_checksum(encoder)
    stamp = fingerprint("vectors", tables, checksum)
    report = show("vectors")
    with _stage(build.vectors, stamp) as work:
        if work:
            known = read_known_vectors(layout, checksum)
            aliases = build.tables / ALIASES_FILE
            embed_aliases(aliases, encoder, build.vectors, report, engine, known)
    report(1, 1, "aliases embedded")
    report = show("index")
    laid_out = config.index.model_dump(exclude={"keep"})
    index_id = f"{config.name}-{fingerprint('index', stamp, laid_out, config.name)[:12]}"
    manifest = read_whole_manifest(layout, index_id)
    if manifest is None:
        report(0, 1, "materialising")
        manifest = materialize_index(
            build,
            encoder,
            layout,
            config.index,
            name=config.name,
            index_id=index_id,
            engine=engine,
        )
    elif read_whole_manifest(layout) != manifest:  # an older generation, wanted again
        serve_generation(layout, manifest, config.index)
    report(1, 1, f"{index_id} in service")
    return manifest


@contextmanager
def _stage(directory: Path, stamp: str) -> Iterator[bool]:
    """Whether there is work to do; on a clean exit the stage is marked done."""
    path = directory / STAGE_FILE
    try:
        state: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    done = state.get("files") == _sizes(directory)
    if state.get("fingerprint") != stamp or ("files" in state and not done):
        _empty(directory)
        write_atomically(path, json.dumps({"fingerprint": stamp}))
        done = False
    if done:
        yield False
        return
    yield True
    write_atomically(path, json.dumps({"fingerprint": stamp, "files": _sizes(directory)}))


def _empty(directory: Path) -> None:
    """Remove a stage, what says that it is one first: killed meanwhile, it is none."""
    (directory / STAGE_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _sizes(directory: Path) -> dict[str, int]:
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != STAGE_FILE
    }


@contextmanager
def _refusals(config: BuildConfig) -> Iterator[None]:
    """One kind of error for a full disk or a missing right, whoever meets it; and one for broken leftovers."""
    kept = "what was in service before still is"
    try:
        yield
    except (BioelxError, ModuleNotFoundError):
        raise
    except Exception as error:
        told = str(error)
        if (
            "Traceback" in told
        ):  # lancedb tells what its reader of rows raised: the last line says it
            told = told.strip().splitlines()[-1]
        if getattr(error, "errno", None) or _REFUSED.search(told):
            raise UsageError(
                f"the build of {config.out} stopped ({told}): make room, or give it the right; "
                f"run again, it resumes where it stopped, and {kept}"
            ) from error
        if isinstance(error, _BROKEN) or "ArrowInvalid" in told:
            raise InvalidArtifactError(
                f"a file of an earlier run in {config.layout.root} is broken ({told}): "
                f"remove {config.layout.root} and build again; {kept}"
            ) from error
        raise


@contextmanager
def _progress() -> Iterator[Callable[[str], Report]]:
    """Bars on a terminal's stderr, one a stage; a line a stage elsewhere."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.fields[stage]:<15}"),
        BarColumn(24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )

    def show(stage: str) -> Report:
        task = bars.add_task("", stage=stage, total=1)
        said: set[str] = set()

        def report(done: int, total: int, text: str) -> None:
            text = visible_line(text)  # names of files and sources stand in it
            bars.update(task, completed=done, total=total, description=escape(text))
            if not console.is_terminal and done in (0, total) and text not in said:
                said.add(text)
                sys.stderr.write(f"{stage}: {text}\n")

        return report

    with bars:
        yield show
