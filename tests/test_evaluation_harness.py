"""The examples for other harnesses run, and answer as the Linker does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = (
    {"mention": "Herzinfarkt", "gold": "UMLS:C0027051"},
    {"mention": "NIDDM", "gold": "C0011860", "context": "NIDDM is common."},
    {"mention": "aspirin", "gold": "UMLS:C0027051"},
    {"mention": "qwertz", "gold": None},
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES), encoding="utf-8")
    return path


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_functions_for_lm_eval_ask_answer_and_score(
    corpus: Path, starter_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOELX_INDEX", str(starter_index))
    module = load("lm_eval_callable")
    docs = module.load_docs("jsonl", str(corpus))
    assert module.doc_to_text(docs[1]).startswith("Context: NIDDM is common.\nMention: NIDDM\n")
    targets = [module.doc_to_target(doc) for doc in docs]
    assert targets == ["UMLS:C0027051", "UMLS:C0011860", "UMLS:C0027051", "NIL"]
    answers = module.answer(docs)
    told = [module.process_results(doc, [a])["acc"] for doc, a in zip(docs, answers, strict=True)]
    assert told == [1.0, 1.0, 0.0, 0.0], "retrieval alone never says NIL"
    assert module.process_results(docs[3], [" NIL\n"]) == {"acc": 1.0}


def test_the_inspect_task_runs(corpus: Path, starter_index: Path, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="needs inspect-ai: pip install inspect-ai")
    code = (
        "import inspect_ai, sys; sys.path.insert(0, sys.argv[1]); from inspect_task import linking;"
        "(log,) = inspect_ai.eval(linking(sys.argv[2], 'jsonl', sys.argv[3], agent=False),"
        "model='mockllm/model', display='none', log_dir=sys.argv[4]);"
        "print([s.scores['any_right_id'].value for s in log.samples], log.status)"
    )
    arguments = [str(EXAMPLES), str(corpus), str(starter_index), str(tmp_path / "log")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "['C', 'C', 'I', 'I'] success", done.stderr
