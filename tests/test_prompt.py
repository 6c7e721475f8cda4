"""Prompt files are checked when loaded; rendered prompts keep their structure whatever the texts hold."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError
from bioelx_mcp.prompt import (
    SHIPPED,
    Prompt,
    load_prompt,
    neutralize,
    render_document,
    render_query,
)
from bioelx_mcp.schema import Concept, Mention

# Qwen3-Reranker's own chat format, from its model card.
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
CONTROL = re.compile(r"<\|[^<>|]*\|>|</?think>|</?tool_(?:call|response)>|</?s>")

PROMPT = load_prompt("qwen3-reranker")
FEVER = Concept(
    "MADE:1", "red fever", ("Finding",), "A fever that is red, and no cough.", ("X:1",), ()
)


def query_of(mention: Mention, prompt: Prompt = PROMPT) -> str:
    """The rendered query without what stands before the mention's context."""
    head = f"{PREFIX}<Instruct>: {prompt.instruction}\n<Query>: "
    rendered = render_query(prompt, mention)
    assert rendered.startswith(head)
    assert rendered.endswith("\n")
    return rendered.removeprefix(head).removesuffix("\n")


def document_of(concept: Concept, *names: str, prompt: Prompt = PROMPT) -> str:
    rendered = render_document(prompt, concept, names)
    assert rendered.startswith("<Document>: ")
    assert rendered.endswith(SUFFIX)
    return rendered.removeprefix("<Document>: ").removesuffix(SUFFIX)


def test_the_shipped_prompt_has_the_format_that_qwen3_reranker_was_trained_with() -> None:
    assert (PROMPT.prefix, PROMPT.suffix) == (PREFIX, SUFFIX)
    assert PROMPT.query == "<Instruct>: {instruction}\n<Query>: {context}\n"
    assert PROMPT.label == "qwen3-reranker@1"
    assert load_prompt(str(SHIPPED / "qwen3-reranker.toml")) == PROMPT


def test_a_whole_prompt_equals_its_golden_file(golden: Callable[[str, str], None]) -> None:
    mention = Mention("RF", "The child came with RF, an RF that no one had seen.", 27)
    document = render_document(PROMPT, FEVER, ["RF", "rotes Fieber", "red fever", "RF"])
    golden("qwen3-reranker.txt", render_query(PROMPT, mention) + document)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nil_threshold = 0.5", "", "nil_threshold: Field required"),
        ("nil_threshold = 0.5", "nil_threshold = 1.5", "nil_threshold: .*less than or equal"),
        ("version = 1", "version = 1\ncolour = 'red'", "colour: Extra inputs"),
        ('kind = "pointwise"', 'kind = "listwise"', "kind: .*pointwise"),
        ("temperature = 1.0", "temperature = 0.0", "temperature: .*greater than 0"),
        ('marks = ["[[", "]]"]', 'marks = ["[["]', "marks.1: Field required"),
        ("{context}", "{contxt}", r"query: unknown placeholder \{contxt\}"),
        ("{name}", "{label}", r"document: unknown placeholder \{label\}"),
        ("type: {types}", "type: {names}", r"types: unknown placeholder \{names\}"),
        ("version = 1", "version = ", "not a TOML file"),
    ],
)
def test_a_prompt_file_that_is_wrong_is_refused_by_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (SHIPPED / "qwen3-reranker.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidArtifactError, match=f"^{path}: {message}"):
        load_prompt(str(path))


@pytest.mark.parametrize("name", ["nope", "/nowhere/nope.toml"])
def test_a_prompt_that_is_not_there_is_missing_and_the_shipped_ones_are_named(name: str) -> None:
    with pytest.raises(MissingArtifactError, match=f"no prompt '{name}'; shipped: qwen3-reranker"):
        load_prompt(name)


@pytest.mark.parametrize(
    ("mention", "expected"),
    [
        (Mention("RF"), "[[RF]]"),
        (Mention("RF", "no such word"), "[[RF]] no such word"),
        (Mention("RF", "RF or RF"), "[[RF]] or RF"),
        (Mention("RF", "RF or RF", 6), "RF or [[RF]]"),
        (Mention("RF", "RF or RF", 1), "[[RF]] or RF"),
        (Mention("RF", "RF or RF", -7), "[[RF]] or RF"),
        (Mention("rf", "An RF."), "An [[RF]]."),
        (Mention("RF", "a\nb\r\n\tRF\u2028c"), "a b [[RF]] c"),
        (Mention("RF", "the [[RF]] of [[[x]]]"), "the [ [[[RF]]] ] of [ [ [x] ] ]"),
        (Mention("[18F]FDG", "a [18F]FDG scan"), "a [[[18F]FDG]] scan"),
        (Mention("{context}", "{name} {context} {}"), "{name} [[{context}]] {}"),
        (Mention("end", "the <|im_end|> end", 9), "the < |im_[[end]]|> end"),
        (Mention("RF", "\u202eRF\u202c \u2066x\u2069 RF\x00"), " [[RF]] x RF "),
    ],
)
def test_the_mention_is_marked_in_a_context_made_harmless(mention: Mention, expected: str) -> None:
    assert query_of(mention) == expected


@pytest.mark.parametrize("place", [0, 1, 1999, 5000, 9990])
def test_a_long_context_is_cut_around_its_mention(place: int) -> None:
    words = " ".join(f"w{i:04}" for i in range(1700))[:10_000]
    context = f"{words[:place]} RF {words[place:]}"
    shown = query_of(Mention("RF", context, place + 1))
    before, after = re.split(r"\[\[RF\]\]", shown)
    assert " ".join(f"{before}RF{after}".split()) in " ".join(context.split())
    assert PROMPT.max_context - 10 <= len(before + after) <= PROMPT.max_context
    if 1000 < place < 9000:
        assert abs(len(before) - len(after)) <= 2


def test_the_occurrence_at_the_offset_is_the_one_kept_of_a_long_context() -> None:
    context = f"first RF {'x ' * 3000}second RF here {'y ' * 3000}"
    shown = query_of(Mention("RF", context, context.rindex("RF")))
    assert "second [[RF]] here" in shown
    assert "first" not in shown


def test_a_mention_longer_than_the_context_window_is_marked_whole() -> None:
    prompt = PROMPT.model_copy(update={"max_context": 100})
    for length in (99, 100, 101, 150, 400):
        mention = "m" * length
        context = f"{'a ' * 300}{mention}{' b' * 300}"
        assert f"[[{mention}]]" in query_of(Mention(mention, context, 600), prompt)
        assert f"[[{mention}]]" in query_of(Mention(mention, context), prompt)


def test_a_long_context_without_the_mention_follows_it() -> None:
    shown = query_of(Mention("RF", "a" * 5000))
    assert shown == f"[[RF]] {'a' * PROMPT.max_context}"


@pytest.mark.parametrize(
    ("concept", "names", "expected"),
    [
        (Concept("MADE:1", "red fever"), (), "red fever"),
        (Concept("MADE:1", "red fever"), ("red fever",), "red fever"),
        (FEVER, (), "red fever | type: Finding | definition: A fever that is red, and no cough."),
        (
            Concept("MADE:1", "x", ("A", "B"), ""),
            ("RF", "x", "RF", "Fieber"),
            "x | type: A, B | names: RF; Fieber",
        ),
        (Concept("MADE:1", "{names}", (), "{types}\n"), ("{x}",), "{names} | names: {x} | definition: {types} "),
        (Concept("MADE:1", "a</think>b", (), "<s>[[x]]"), (), "a< /think>b | definition: < s>[ [x] ]"),
    ],
)  # fmt: skip
def test_a_candidate_is_told_with_the_parts_that_it_has(
    concept: Concept, names: tuple[str, ...], expected: str
) -> None:
    assert document_of(concept, *names) == expected


def test_names_and_definition_are_cut_to_what_the_prompt_allows() -> None:
    concept = Concept("MADE:1", "x", (), "word " * 200)
    document = document_of(concept, *(f"n{i}" for i in range(50)))
    names, definition = document.removeprefix("x | names: ").split(" | definition: ")
    assert names == "; ".join(f"n{i}" for i in range(PROMPT.max_names))
    assert definition.endswith("word ...")
    assert len(definition) <= PROMPT.max_definition + 4
    nothing = PROMPT.model_copy(update={"max_names": 0, "max_definition": 0})
    assert document_of(concept, "n1", prompt=nothing) == "x"


PIECES = (
    "<|im_end|> <|im_start|> </think> <think> </ <| |> < > | / think s [[ ]] [ ] {context} {name} { }"
    " \\1 \\g<0> RF MI"
).split()
HOSTILE = st.lists(
    st.sampled_from([*PIECES, "\n", "\r\n", "\u202e", "\u2066", "\u2028", "\x85", "\u200b", " "])
    | st.text(st.characters(), max_size=3)
    | st.sampled_from(["\ud800", "\udfff"])
).map("".join)


@given(HOSTILE, HOSTILE, st.none() | st.integers(-5, 40))
def test_any_mention_renders_and_adds_no_line_or_token_of_control(
    text: str, context: str, start: int | None
) -> None:
    rendered = render_query(PROMPT, Mention(text, context, start))
    plain = render_query(PROMPT, Mention("RF"))
    assert CONTROL.findall(rendered) == CONTROL.findall(plain)
    assert len(rendered.splitlines()) == len(plain.splitlines())
    assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069\x00]", rendered)
    assert rendered.encode()


@given(HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=3), HOSTILE)
def test_any_concept_renders_and_adds_no_line_or_token_of_control(
    name: str, definition: str, names: list[str], semantic_type: str
) -> None:
    rendered = render_document(PROMPT, Concept("MADE:1", name, (semantic_type,), definition), names)
    plain = render_document(PROMPT, Concept("MADE:1", "x"), ())
    assert CONTROL.findall(rendered) == CONTROL.findall(plain)
    assert len(rendered.splitlines()) == len(plain.splitlines())
    assert rendered.encode()


@given(HOSTILE, st.sampled_from([("[[", "]]"), ("«", "»"), ("<m>", "</m>"), ("**", "**")]))
def test_no_mark_is_left_in_a_text_made_harmless(text: str, marks: tuple[str, str]) -> None:
    clean = neutralize(f"{text}{marks[0] * 3}{text}{marks[1]}", marks)
    assert not any(mark in clean for mark in marks)
    assert neutralize(clean, marks) == clean
