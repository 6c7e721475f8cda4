"""A real agent's view: ten notes in ten languages, linked over stdio as an agent would, on the starter index.

Each transcript is what a model is told and what it asks, in its order: instructions, tools, one search for all
mentions of the note, a ranking of what is ambiguous, a check of one id. Ids must be right, tokens few.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from callers import SCRIPT, ask, compact, tokens
from mcp import Client, StdioServerParameters

pytestmark = pytest.mark.anyio


class Note(NamedTuple):
    """A text, and the label that each of its mentions means."""

    text: str
    mentions: dict[str, str]


NOTES = {
    "de": Note(
        "Z. n. Herzinfarkt 2019, bekannter Bluthochdruck, klagt über Atemnot und Fieber.",
        {"Herzinfarkt": "myocardial infarction", "Bluthochdruck": "hypertension", "Atemnot": "dyspnea", "Fieber": "fever"},
    ),
    "en": Note(
        "62 y/o with NIDDM and high blood pressure, on metformin and aspirin, presents with shortness of breath.",
        {"NIDDM": "type 2 diabetes mellitus", "high blood pressure": "hypertension", "metformin": "metformin", "aspirin": "aspirin", "shortness of breath": "dyspnea"},
    ),
    "es": Note(
        "Paciente con asma y neumonía; refiere dolor de cabeza y falta de aire.",
        {"asma": "asthma", "neumonía": "pneumonia", "dolor de cabeza": "headache", "falta de aire": "dyspnea"},
    ),
    "fr": Note(
        "Antécédents d'infarctus du myocarde et d'hypertension artérielle ; traité par aspirine.",
        {"infarctus du myocarde": "myocardial infarction", "hypertension artérielle": "hypertension", "aspirine": "aspirin"},
    ),
    "zh": Note(
        "患者有心梗和高血压病史，现发热、头痛。",
        {"心梗": "myocardial infarction", "高血压": "hypertension", "发热": "fever", "头痛": "headache"},
    ),
    "ja": Note(
        "喘息と肺炎の既往あり。アスピリンを内服中。発熱を認める。",
        {"喘息": "asthma", "肺炎": "pneumonia", "アスピリン": "aspirin", "発熱": "fever"},
    ),
    "th": Note(
        "ผู้ป่วยเป็นไซนัสอักเสบ มีไข้และปวดศีรษะ",
        {"ไซนัสอักเสบ": "sinusitis", "ไข้": "fever", "ปวดศีรษะ": "headache"},
    ),
    "ru": Note(
        "В анамнезе инфаркт миокарда, астма; жалобы на одышку и головную боль.",
        {"инфаркт миокарда": "myocardial infarction", "астма": "asthma", "одышку": "dyspnea", "головную боль": "headache"},
    ),
    "nl": Note(
        "Bekend met astma en hoge bloeddruk; nu koorts, hoofdpijn en verdenking op longontsteking.",
        {"astma": "asthma", "hoge bloeddruk": "hypertension", "koorts": "fever", "hoofdpijn": "headache", "longontsteking": "pneumonia"},
    ),
    "pt": Note(
        "Doente com pneumonia e asma; febre e cefaleia desde ontem, medicado com ácido acetilsalicílico.",
        {"pneumonia": "pneumonia", "asma": "asthma", "febre": "fever", "cefaleia": "headache", "ácido acetilsalicílico": "aspirin"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
async def agent(starter_index: Path) -> AsyncIterator[Client]:
    """A client of the installed command."""
    server = StdioServerParameters(
        command=SCRIPT, args=["serve"], env={"BIOELX_INDEX": str(starter_index)}
    )
    async with Client(server) as client:
        yield client


async def test_what_an_agent_is_told_at_first_costs_at_most_1000_tokens(agent: Client) -> None:
    """Tools as an API is given them: name, description, input schema."""
    assert agent.instructions is not None
    told = [agent.instructions]
    for tool in (await agent.list_tools()).tools:
        told += [tool.name, tool.description or "", compact(tool.input_schema)]
    assert tokens("\n".join(told)) <= 1000


@pytest.mark.parametrize("language", list(NOTES))
async def test_a_note_is_linked_in_three_calls_with_few_tokens(
    agent: Client, language: str
) -> None:
    note = NOTES[language]
    mentions = list(note.mentions)
    text, found = await ask(agent, "search_candidates", mentions=mentions, limit=3)
    spent = tokens(compact({"mentions": mentions, "limit": 3})) + tokens(text)
    candidates = {one["mention"]: one["candidates"] for one in found["results"]}
    labels = {mention: some[0]["label"] for mention, some in candidates.items()}
    assert labels == note.mentions

    close = [m for m, some in candidates.items() if some[0]["score"] - some[1]["score"] < 0.1]
    items: list[dict[str, Any]] = [
        {"mention": m, "context": note.text, "candidates": [c["id"] for c in candidates[m]]}
        for m in close or mentions[:1]
    ]
    text, ranked = await ask(agent, "rank_candidates", items=items)
    spent += tokens(compact({"items": items})) + tokens(text)
    best = [one["best"] for one in ranked["results"]]
    assert best == [candidates[item["mention"]][0]["id"] for item in items]

    ids = [some[0]["id"] for some in candidates.values()]
    text, checked = await ask(agent, "get_concepts", ids=ids[:1])
    spent += tokens(compact({"ids": ids[:1]})) + tokens(text)
    assert checked["concepts"][0]["label"] == labels[mentions[0]]
    assert {found["index"], ranked["index"], checked["index"]} == {found["index"]}
    assert spent <= 180 * len(mentions) + 300
