"""The whole way, from mention to answer, with a model that reads: does what the context says reach the ranking?

The mentions are real ones that stand for two concepts of the starter index; the contexts are written as in a
clinic. In place of a language model stands a script that says yes where definition and context share words.
"""

import math
import re
from collections.abc import Callable

import pytest
from model_server import ModelServer, Script, chat_server, rerank_server, vllm_reranker, vllm_writer

from bioelx_mcp.linker import Linker
from bioelx_mcp.schema import Mention
from bioelx_mcp.settings import load_settings

# Mention, context, the concept that is meant.
AMBIGUOUS = (
    ("AS", "Severe AS with a mean gradient of 45 mmHg across the aortic valve.", "C0003507"),
    ("AS", "AS since his twenties: stiff lower spine, sacroiliac pain, HLA-B27 positive.", "C0038013"),
    ("AD", "Her eczema flares every winter: itchy skin in the elbow creases, known AD.", "C0011615"),
    ("AD", "AD was suspected because his memory and thinking got worse over two years.", "C0002395"),
    ("HD", "The CAG repeat of HTT was expanded; HD with chorea was confirmed.", "C0020179"),
    ("HD", "HD three times a week, by a machine in the renal unit, through the left arm.", "C0019004"),
    ("AR", "AR every spring: sneezing and a runny nose when the pollen flies.", "C2607914"),
    ("AR", "Swollen joints of both hands and feet, rheumatoid factor high: AR.", "C0003873"),
    ("PTX", "Weekly PTX for breast cancer was stopped because of neuropathy.", "C0144576"),
    ("PTX", "Chest film: PTX on the left, the lung has come away from the chest wall.", "C0032326"),
    ("MR", "MR grade 3: the mitral valve leaks into a large left atrium.", "C0026266"),
    ("MR", "MR of the knee, in the magnetic tube for half an hour: imaging was normal.", "C0024485"),
    ("MM", "MM: plasma cells fill the marrow, and the bone of the skull has holes.", "C0026764"),
    ("MM", "A mole on the skin of her back turned out to be MM, a malignant one.", "C0025202"),
    ("PCI", "PCI of the right coronary artery with one stent.", "C1532338"),
    ("PCR", "PCR found the DNA of the virus after thirty cycles of copies.", "C0032520"),
    ("PCR", "PCR 180 mg/l in the blood, so a bacterial infection is likely.", "C0006560"),
    ("TN", "TN: stabbing pain in the left side of the face, in attacks, when she chews.", "C0040997"),
    ("TN", "TN I rose to 3 ng/ml after the heart attack, the cardiac muscle is damaged.", "C0041199"),
    ("HBP", "HBP: the pressure was 180 to 110 in spite of three drugs for the blood.", "C0020538"),
    ("HBP", "An old man with HBP: the prostate is large, he cannot pass urine.", "C1704272"),
    ("SAB", "SAB from a ruptured aneurysm, bleeding around the brain.", "C0038525"),
    ("SAB", "SAB in the tenth week of pregnancy, the second loss.", "C0000786"),
    ("rubeola", "Rubeola in early pregnancy harms the fetus.", "C0035920"),
)  # fmt: skip
SMALL = {"with", "from", "that", "this", "into", "both", "when", "after", "which", "through"}


def stems(text: str) -> set[str]:
    """The first five letters of its longer words."""
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in SMALL}


def read(query: str, document: str) -> float:
    """Log-odds: yes from two shared words on."""
    context = query.rpartition("<Query>: ")[2]
    definition = document.rpartition(" | definition: ")[2].partition("<|im_end|>")[0]
    return 2.0 * len(stems(context) & stems(definition)) - 3.0


def say(log_odds: float) -> tuple[float, float]:
    """The log-probabilities of yes and no."""
    return -math.log1p(math.exp(-log_odds)), -math.log1p(math.exp(log_odds))


def write(prompt: str, labels: object) -> tuple[float, float]:
    """The same, from the whole prompt."""
    query, _, document = prompt.partition("<Document>: ")
    return say(read(query, document))


def chat(said: str) -> dict[str, float]:
    """The same, from the messages."""
    yes, no = write(said, None)
    return {"yes": yes, "no": no}


SERVERS: dict[str, Script] = {
    "score": vllm_reranker(read),
    "completions": vllm_writer(write),
    "chat": chat_server(chat),
    "rerank": rerank_server(read, "jina"),
}


def recall(linker: Linker) -> float:
    """The share of the ambiguous mentions whose first candidate is the one that is meant."""
    mentions = [Mention(text, context) for text, context, _ in AMBIGUOUS]
    firsts = [ranking.candidates[0].candidate.concept_id for ranking in linker.link(mentions)]
    right = [
        first == f"UMLS:{meant}" for first, (_, _, meant) in zip(firsts, AMBIGUOUS, strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_model_that_reads_the_context_finds_what_is_meant_far_oftener(
    linker: Linker, model_server: Callable[[Script], ModelServer], kind: str
) -> None:
    server = model_server(SERVERS[kind])
    settings = load_settings(ranker_url=server.url)
    before, after = recall(linker), recall(Linker(linker._index, settings))
    assert before <= 0.6
    assert after >= before + 0.3
