"""Benchmarks as an inspect-ai task: an agent links mentions with the MCP tools, or the Linker does it alone.

    pip install inspect-ai bioelx-mcp
    inspect eval examples/inspect_task.py -T format=xlbel -T path=xlbel/de_query.txt --model openai/gpt-5
    inspect eval examples/inspect_task.py -T format=xlbel -T path=xlbel/de_query.txt -T agent=false --model mockllm/model

The gold ids are mapped as `bioelx-mcp evaluate` maps them; what the index does not hold counts as missed.
"""

import re
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import mcp_server_stdio

from bioelx_mcp import Linker, Mention
from bioelx_mcp.evaluation.datasets import read_dataset
from bioelx_mcp.evaluation.gold import GoldMap

QUESTION = """Which concept does the mention mean? Use the tools, then answer with its id alone, or with NIL.
Mention: {mention}
Context: {context}"""


@task
def linking(path: str, format: str = "xlbel", index: str | None = None, agent: bool = True) -> Task:
    """One sample a mention; the target is any right id of the index, `NIL` where the corpus says so."""
    linker = Linker.open(index)
    queries = read_dataset(format, Path(path)).queries
    gold = GoldMap(linker.index, {one for query in queries for one in query.gold})
    samples = []
    for query in queries:
        mention = query.mention
        right = [linker.index.concept(row).concept_id for row in sorted(gold.right(query.gold))]
        samples.append(
            Sample(
                input=QUESTION.format(mention=mention.text, context=mention.context or "-"),
                target=right or ("NIL" if not query.gold else "not in the index"),
                metadata={
                    "mention": mention.text,
                    "context": mention.context,
                    "start": mention.start,
                },
            )
        )
    if agent:
        arguments = ["serve", *(["--index", index] if index else [])]
        server = mcp_server_stdio(name="bioelx", command="bioelx-mcp", args=arguments)
        steps = [use_tools(server), generate()]
    else:
        steps = [link(linker)]
    return Task(dataset=MemoryDataset(samples), solver=steps, scorer=any_right_id())


@solver
def link(linker: Linker) -> Solver:
    """The Linker's own answer, without a model that reads or writes."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        (ranking,) = linker.link([_mention(state)])
        best = ranking.best.candidate.concept_id if ranking.best else "NIL"
        state.output = ModelOutput.from_content("bioelx-mcp", best)
        return state

    return solve


def _mention(state: TaskState) -> Mention:
    told = state.metadata
    return Mention(told["mention"], told["context"], told["start"])


@scorer(metrics=[accuracy(), stderr()])
def any_right_id() -> Scorer:
    """Right where the last id of the answer is one of the targets."""

    async def score(state: TaskState, target: Target) -> Score:
        ids = re.findall(
            r"\b[A-Za-z][A-Za-z0-9.]*:[A-Za-z0-9.-]*\w|\bNIL\b", state.output.completion
        )
        answer = ids[-1] if ids else ""
        return Score(value=CORRECT if answer in target.target else INCORRECT, answer=answer)

    return score
