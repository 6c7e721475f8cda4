"""The model card says what a model was made of and how, in the hub's form."""

import json
from pathlib import Path
from typing import Any

from index_builder.card import write_card
from index_builder.config import TrainConfig

REPORT: dict[str, Any] = {
    "concepts": 1200,
    "aliases": 34567,
    "languages": {"en": 30000, "th": 4000, "": 567},
    "sources": {"made": 34000, "mine": 1500},
    "source_licenses": {"made": ["CC0-1.0", "MIT"], "mine": [""]},
}


def card(directory: Path, metrics: list[dict[str, float]], **keys: Any) -> str:
    (directory / "model").mkdir()
    (directory / "report.json").write_text(json.dumps(REPORT))
    lines = "".join(json.dumps(line) + "\n" for line in metrics)
    (directory / "metrics.jsonl").write_text(lines)
    write_card(directory, directory, TrainConfig.model_validate(keys), "made-1234")
    return (directory / "model" / "README.md").read_text(encoding="utf-8")


def test_a_card_tells_data_licences_settings_and_the_ends_of_the_loss_curve(tmp_path: Path) -> None:
    metrics = [{"step": step, "loss": 5.0 - step / 1000} for step in range(20, 2020, 20)]
    metrics[49]["validation_recall@1"] = 0.5
    metrics[-1]["validation_recall@1"] = 0.8125
    text = card(tmp_path, metrics, source_weights={"made": 0.25})
    front, body = text.split("---\n")[1:3]
    assert 'language: ["en", "th"]' in front.splitlines()
    assert "base_model" not in front
    assert body.startswith("\n# made-1234: a biomedical name encoder")
    assert "made from scratch by SapBERT" in body
    assert "34,567 names of 1,200 concepts in 2 languages" in body
    assert "| made | 34,000 | 0.25 | CC0-1.0, MIT |" in body
    assert "| mine | 1,500 | 1 | not stated |" in body
    assert "Licences: CC0-1.0; MIT. " in body
    assert "Loss 4.980 at step 20, 3.000 at step 2,000." in body
    assert "Validation recall@1 0.812:" in body
    assert "| 2,000 | 3.000 | 0.812 |" in body
    assert 10 <= body.count(" | 4.") + body.count(" | 3.") <= 12  # ten points and the last
    assert "| temperature | 0.05 |" in body
    assert "## Intended use and limits" in body


def test_a_card_names_its_base_model_and_no_recall_that_was_not_measured(tmp_path: Path) -> None:
    metrics = [{"step": 3, "loss": 1.0, "validation_recall@1": float("nan")}]
    text = card(tmp_path, metrics, base_model="sapbert-xlmr")
    base = "cambridgeltl/SapBERT-UMLS-2020AB-all-lang-from-XLMR"
    assert f'base_model: "{base}"' in text
    assert f"made from `{base}` by" in text
    assert "nan" not in text
    assert "| 3 | 1.000 |  |" in text
