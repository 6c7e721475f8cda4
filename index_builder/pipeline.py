"""The order of the stages: tables, training, encoder, vectors, index. Each is fresh, resumed or done anew.

A stage's directory holds `stage.json`: the fingerprint of all that its output depends on, and whether it is
done. With an equal fingerprint a done stage is skipped and an unfinished one resumed; else it starts empty.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import (
    IndexLayout,
    Manifest,
    encoder_checksum,
    write_atomically,
)
from index_builder.config import BuildConfig, Report, SourceConfig, file_stats, fingerprint
from index_builder.embed import embed_aliases
from index_builder.materialize import materialize_index, read_whole_manifest
from index_builder.sources import Source, open_source
from index_builder.tables import ALIASES_FILE, build_tables

STAGE_FILE = "stage.json"


def build_index(config: BuildConfig) -> Manifest:
    """Run every stage that is not fresh; the manifest of the index that is then in service.

    Raises:
        UsageError: a source or an option is wrong; what was there before is untouched.
        MissingExtraError: a needed extra is not installed.
        MissingArtifactError: `encoder` is no encoder directory.
    """
    sources = [open_source(source) for source in config.sources_for("index")]
    if not sources:
        raise UsageError('no source is used for the index: all say `use = "training"`')
    if config.encoder is not None:
        OnnxEncoder(config.encoder)  # a bad one is found before any work is done
    else:
        import_module("index_builder.export")  # a missing extra, too
        training = [open_source(source) for source in config.sources_for("training")]
    try:
        config.layout.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(config.layout.root / ".lock")
        held = lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"another build is at work in {config.out}; wait for it, or take another --out"
        ) from None
    except OSError as error:
        raise UsageError(f"--out {config.out}: {error}") from error
    with held, _progress() as show:
        tables = _tables(config.layout.tables, config.sources_for("index"), sources, show("tables"))
        if config.encoder is not None:
            encoder = config.encoder
        else:
            encoder = _train(config, training, tables, show)
        return _materialize(config, tables, encoder, show)


def _tables(
    directory: Path, configs: tuple[SourceConfig, ...], sources: list[Source], report: Report
) -> str:
    stamp = fingerprint("tables", [source.fingerprint() for source in configs])
    with _stage(directory, stamp) as work:
        if work:
            report(0, 1, "reading sources")
            build_tables(sources, directory)
    counts = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    rejected = sum(entry["rows"] for entry in counts["rejected"].values())
    report(
        1,
        1,
        f"{counts['aliases']:,} aliases of {counts['concepts']:,} concepts, {rejected:,} rows set aside",
    )
    return stamp


def _train(
    config: BuildConfig, sources: list[Source], tables: str, show: Callable[[str], Report]
) -> Path:
    """The trained and exported encoder's directory."""
    from index_builder.export import export_encoder  # torch: only where something is trained
    from index_builder.pairs import read_names
    from index_builder.train import train_encoder

    layout = config.layout
    directory, stamp = layout.tables, tables
    if config.sources_for("training") != config.sources_for("index"):
        directory = layout.training_tables
        stamp = _tables(directory, config.sources_for("training"), sources, show("training tables"))
    names = read_names(directory, config.train.source_weights)
    base = Path(config.train.base_model)
    base_files = file_stats(base) if base.is_dir() else []
    stamp = fingerprint("training", stamp, config.train.model_dump(), base_files)
    report = show("training")
    with _stage(layout.training, stamp) as work:
        if work:
            train_encoder(names, config.train, layout.training, report)
    report(1, 1, "trained")
    report = show("encoder")
    with _stage(layout.encoder, fingerprint("encoder", stamp, config.quantize)) as work:
        if work:
            report(0, 1, "exporting")
            export_encoder(
                layout.training / "model",
                layout.encoder / "onnx",
                name=f"{config.name}-{stamp[:8]}",
                pooling=config.train.pooling,
                max_length=config.train.max_length,
                quantize=config.quantize,
                samples=names.texts.slice(0, 512).to_pylist(),
            )
    report(1, 1, "exported, parity checked")
    return layout.encoder / "onnx"


def _materialize(
    config: BuildConfig, tables: str, encoder: Path, show: Callable[[str], Report]
) -> Manifest:
    layout, build = IndexLayout(config.out), config.layout
    stamp = fingerprint("vectors", tables, encoder_checksum(encoder))
    report = show("vectors")
    with _stage(build.vectors, stamp) as work:
        if work:
            embed_aliases(build.tables / ALIASES_FILE, OnnxEncoder(encoder), build.vectors, report)
    report(1, 1, "aliases embedded")
    report = show("index")
    index_id = (
        f"{config.name}-{fingerprint('index', stamp, config.index.model_dump(), config.name)[:12]}"
    )
    manifest = read_whole_manifest(layout)
    if manifest is None or manifest.index_id != index_id:
        report(0, 1, "materialising")
        manifest = materialize_index(
            build, encoder, layout, config.index, name=config.name, index_id=index_id
        )
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
    if state.get("fingerprint") != stamp:
        shutil.rmtree(directory, ignore_errors=True)
        write_atomically(path, json.dumps({"fingerprint": stamp, "done": False}))
        state = {}
    if state.get("done"):
        yield False
        return
    yield True
    write_atomically(path, json.dumps({"fingerprint": stamp, "done": True}))


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
            bars.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and done in (0, total) and text not in said:
                said.add(text)
                sys.stderr.write(f"{stage}: {text}\n")

        return report

    with bars:
        yield show
