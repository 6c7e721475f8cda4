"""The model card of a trained encoder: data with licences, settings, metrics, use and limits.

A README.md with the front matter that the Hugging Face hub reads.
"""

import json
from pathlib import Path
from typing import Any

from bioelx_mcp.manifest import write_atomically
from index_builder.config import SCRATCH, TrainConfig
from index_builder.tables import REPORT_FILE
from index_builder.train import METRICS_FILE

_CURVE = 10  # points of the loss curve that are shown


def write_card(training: Path, tables: Path, config: TrainConfig, name: str) -> None:
    """Write the card beside the model that was trained in `training` on the names of `tables`."""
    report = json.loads((tables / REPORT_FILE).read_text(encoding="utf-8"))
    lines = (training / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    text = _render(report, [json.loads(line) for line in lines], config, name)
    write_atomically(training / "model" / "README.md", text)


def _render(
    report: dict[str, Any], metrics: list[dict[str, float]], config: TrainConfig, name: str
) -> str:
    languages = [language for language in report["languages"] if language]
    licences = sorted({one for of in report["source_licenses"].values() for one in of} - {""})
    base = config.base_model
    scratch = base.startswith(SCRATCH)
    front = [
        "library_name: transformers",
        "pipeline_tag: feature-extraction",
        "tags: [biomedical, entity-linking, sapbert]",
        "language: " + json.dumps(languages),
        *([] if scratch else ["base_model: " + json.dumps(base)]),
    ]
    made = "from scratch" if scratch else f"from `{base}`"
    counts = f"{report['aliases']:,} names of {report['concepts']:,} concepts in {len(languages)} languages"
    data = [
        [
            source,
            f"{rows:,}",
            str(config.source_weights.get(source, 1)),
            ", ".join(known) or "not stated",
        ]
        for source, rows in report["sources"].items()
        for known in [list(filter(None, report["source_licenses"].get(source, [])))]
    ]
    every = max(1, len(metrics) // _CURVE)
    shown = [*metrics[:-1:every], metrics[-1]]
    curve = [
        [f"{line['step']:,}", f"{line['loss']:.3f}", _recall(line.get("validation_recall@1"))]
        for line in shown
    ]
    settings = [[key, str(value)] for key, value in config.model_dump().items()]
    recalls = [line["validation_recall@1"] for line in metrics if "validation_recall@1" in line]
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {name}: a biomedical name encoder",
        f"Text to a unit vector, made {made} by SapBERT self-alignment (Liu et al., NAACL 2021) with "
        f"`bioelx-mcp build-index`: names of one concept lie near each other, whatever their language.",
        "## Data",
        f"{counts}. A name that several sources hold counts for each; a source of weight 0 was left out.",
        _table(["source", "names", "weight", "licence"], data),
        "Licences: "
        + ("; ".join(licences) or "not stated")
        + ". Whoever passes the model on sees to their terms.",
        "## Metrics",
        f"Loss {metrics[0]['loss']:.3f} at step {metrics[0]['step']:,}, {metrics[-1]['loss']:.3f} at step "
        f"{metrics[-1]['step']:,}. Validation recall@1 {_recall(recalls[-1] if recalls else None)}: a name of a "
        "held-out concept finds another name of it first, among names of the training.",
        _table(["step", "loss", "validation recall@1"], curve),
        "## Settings",
        _table(["setting", "value"], settings),
        "## Intended use and limits",
        "Finding candidate concepts for a biomedical mention by the cosine of name vectors, as one channel of a "
        f"retriever. Names of at most {config.max_length} tokens; what a sentence means is not seen. Languages and kinds of "
        "concept that the data hold few names of are served worse. A near vector is a candidate, no diagnosis: "
        "not a medical device.",
    ]
    return "\n\n".join(parts) + "\n"


def _recall(value: float | None) -> str:
    """Three digits; nothing where there was no held-out concept."""
    return "" if value is None or value != value else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
