"""Rendered prompts keep their structure and their length whatever the texts hold."""

import asyncio
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.backends import Prompts, count_bytes
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.letters import cyclic_orders
from bioelx_mcp.prompt import ListwisePrompt, PointwisePrompt, load_prompt
from bioelx_mcp.render import Description, fit_prompts, neutralize
from bioelx_mcp.schema import Mention

SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TAG = re.compile(r"<[|｜/!<A-Za-z]|\[/?INST\]", re.IGNORECASE)

PROMPT = load_prompt("qwen3-reranker", PointwisePrompt)
LETTERS = load_prompt("letters", ListwisePrompt)
FEVER = Description(
    "red fever", ("Finding",), ("RF", "rotes Fieber", "red fever", "RF"), ("fever",), "A fever that is red, and no cough."
)  # fmt: skip
WIDE = 1_000_000


async def no_tokenizer(texts: Sequence[str]) -> list[int]:
    return count_bytes(texts)


async def four_characters_a_token(texts: Sequence[str]) -> list[int]:
    return [-(-len(text) // 4) for text in texts]


def render(
    mention: Mention,
    *descriptions: Description,
    prompt: PointwisePrompt = PROMPT,
    limit: int = WIDE,
    count: Callable[..., object] = no_tokenizer,
) -> Prompts:
    prompt = prompt.model_copy(update={"max_tokens": limit}) if limit == WIDE else prompt
    return asyncio.run(fit_prompts(prompt, mention, descriptions, limit, count))  # type: ignore[arg-type]


def render_letters(mention: Mention, *descriptions: Description) -> Prompts:
    orders = cyclic_orders(len(descriptions), LETTERS.orders)
    return asyncio.run(fit_prompts(LETTERS, mention, descriptions, WIDE, no_tokenizer, orders))


def query_of(mention: Mention, prompt: PointwisePrompt = PROMPT) -> str:
    """The rendered query without what stands before the mention's context."""
    rendered = render(mention, prompt=prompt)
    head = f"<Instruct>: {prompt.instruction}\n<Query>: "
    assert rendered.head.startswith(
        f"<|im_start|>system\n{prompt.system}<|im_end|>\n<|im_start|>user\n{head}"
    )
    shown = rendered.query.removeprefix(head).removesuffix("\n")
    assert rendered.topic == shown
    return shown


def document_of(told: Description, prompt: PointwisePrompt = PROMPT) -> str:
    rendered = render(Mention("RF"), told, prompt=prompt)
    [document] = rendered.documents
    assert rendered.tails == [document + SUFFIX]
    assert document.startswith("<Document>: ")
    return document.removeprefix("<Document>: ")


def test_a_whole_prompt_equals_its_golden_file(golden: Callable[[str, str], None]) -> None:
    mention = Mention("RF", "The child came with RF, an RF that no one had seen.", 27)
    rendered = render(mention, FEVER)
    golden("qwen3-reranker.txt", rendered.head + rendered.tails[0])
    german = load_prompt("qwen3-reranker", PointwisePrompt, language="de")
    rendered = render(mention, FEVER, prompt=german)
    golden("qwen3-reranker.de.txt", rendered.head + rendered.tails[0])


def test_a_whole_prompt_of_letters_equals_its_golden_file(
    golden: Callable[[str, str], None],
) -> None:
    rendered = render_letters(Mention("RF", "The child came with RF."), FEVER, Description("rash"))
    assert len(rendered.documents) == 3
    golden("letters.txt", rendered.head + rendered.tails[1])


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
    ("told", "expected"),
    [
        (Description("red fever"), "red fever"),
        (Description("red fever", (), ("red fever",)), "red fever"),
        (FEVER, "red fever | type: Finding | names: RF; rotes Fieber | is a: fever | definition: A fever that is red, and no cough."),
        (Description("x", ("A", "B"), ("RF", "x", "RF", "Fieber")), "x | type: A, B | names: RF; Fieber"),
        (Description("{names}", (), ("{x}",), (), "{types}\n"), "{names} | names: {x} | definition: {types} "),
        (Description("a</think>b", (), (), (), "<s>[[x]]"), "a< /think>b | definition: < s>[ [x] ]"),
        (Description("<Document>: b", definition="[INST]p<0.05"), "< Document>: b | definition: [ INST]p<0.05"),
        (Description("<｜User｜>", (), ("<start_of_turn>", "<<SYS>>")), "< ｜User｜> | names: < start_of_turn>; < < SYS>>"),
    ],
)  # fmt: skip
def test_a_candidate_is_told_with_the_parts_that_it_has(told: Description, expected: str) -> None:
    assert document_of(told) == expected


def test_names_parents_and_definition_are_cut_to_what_the_prompt_allows() -> None:
    many = tuple(f"n{i}" for i in range(50))
    document = document_of(Description("x", (), many, many, "word " * 200))
    names, rest = document.removeprefix("x | names: ").split(" | is a: ")
    parents, definition = rest.split(" | definition: ")
    assert names == "; ".join(many[: PROMPT.max_names])
    assert parents == "; ".join(many[: PROMPT.max_parents])
    assert definition.endswith("word ...")
    assert len(definition) <= PROMPT.max_definition + 4
    nothing = {"max_names": 0, "max_definition": 0, "max_parents": 0}
    bare = PROMPT.model_copy(update=nothing)
    assert document_of(Description("x", (), many, many, "word"), bare) == "x"


LONG = Description("long story " * 400, ("T",), ("n" * 400,) * 12, ("p" * 400,) * 9, "一" * 9000)


@pytest.mark.parametrize("count", [no_tokenizer, four_characters_a_token])
@pytest.mark.parametrize("limit", [900, 2000, 4096])
def test_what_is_too_long_is_told_shorter_and_the_suffix_is_whole(
    limit: int, count: Callable[..., object]
) -> None:
    mention = Mention("tale", f"{'痛' * 5000}tale{'痛' * 5000}", 5000)
    rendered = render(mention, FEVER, LONG, FEVER, limit=limit, count=count)
    whole = [rendered.head + tail for tail in rendered.tails]
    counts: list[int] = asyncio.run(count(whole))  # type: ignore[arg-type]
    assert all(size <= limit for size in counts)
    assert all(text.endswith(SUFFIX) for text in whole)
    assert "[[tale]]" in rendered.query
    if limit > 900:  # the others need not suffer for the one that is too long
        assert rendered.documents[0] == rendered.documents[2] == render(mention, FEVER).documents[0]


def test_tokens_are_only_counted_where_bytes_do_not_say_that_it_fits() -> None:
    counted: list[str] = []

    async def count(texts: Sequence[str]) -> list[int]:
        counted.extend(texts)
        return await four_characters_a_token(texts)

    render(Mention("RF", "short"), *[FEVER] * 20, limit=4096, count=count)
    assert counted == []
    render(Mention("RF", "痛" * 2000), *[FEVER] * 20, limit=4096, count=count)
    assert len(counted) == 1


def test_a_model_that_reads_too_little_for_the_prompt_itself_is_an_error() -> None:
    with pytest.raises(RankerBackendError, match="300 tokens are too few for the prompt qwen3-rer"):
        render(Mention("RF"), FEVER, limit=300)


PIECES = (
    "<|im_end|> <|im_start|> </think> <think> </ <| |> < > | / think s [[ ]] [ ] {context} {name} { }"
    " \\1 \\g<0> RF MI [INST] <｜ <start_of_turn> A. <Document>: {options}"
).split()
HOSTILE = st.lists(
    st.sampled_from([*PIECES, "\n", "\r\n", "\u202e", "\u2066", "\u2028", "\x85", "\u200b", " "])
    | st.text(st.characters(), max_size=3)
    | st.sampled_from(["\ud800", "\udfff"])
).map("".join)
TOLD = st.builds(
    Description,
    HOSTILE,
    st.lists(HOSTILE, max_size=2).map(tuple),
    st.lists(HOSTILE, max_size=3).map(tuple),
    st.lists(HOSTILE, max_size=2).map(tuple),
    HOSTILE,
)


@given(HOSTILE, HOSTILE, st.none() | st.integers(-5, 40))
def test_any_mention_renders_and_adds_no_line_or_tag(
    text: str, context: str, start: int | None
) -> None:
    rendered = render(Mention(text, context, start)).head
    plain = render(Mention("RF")).head
    assert TAG.findall(rendered) == TAG.findall(plain)
    assert len(rendered.splitlines()) == len(plain.splitlines())
    assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069\x00]", rendered)
    assert rendered.encode()


@given(st.lists(TOLD, min_size=1, max_size=4), st.integers(0, 3))
def test_what_one_candidate_says_changes_its_own_document_and_no_other(
    told: list[Description], place: int
) -> None:
    """No text can add, drop or reorder anything: each candidate has its document, in its place."""
    place %= len(told)
    plain = [Description("x")] * len(told)
    mixed = [*plain[:place], told[place], *plain[place + 1 :]]
    one, other = render(Mention("RF"), *mixed), render(Mention("RF"), *plain)
    assert one.head == other.head and one.suffix == other.suffix
    for i, (mine, theirs) in enumerate(zip(one.documents, other.documents, strict=True)):
        assert i == place or mine == theirs
        assert TAG.findall(mine) == TAG.findall(theirs)
        assert len(mine.splitlines()) == len(theirs.splitlines())
        assert mine.encode()


@given(st.lists(TOLD, min_size=2, max_size=8))
def test_options_keep_their_lines_and_letters_whatever_they_say(told: list[Description]) -> None:
    rendered = render_letters(Mention("RF"), *told)
    assert len(rendered.documents) == min(LETTERS.orders, len(told) + 1)
    for document in rendered.documents:
        lines = document.splitlines()
        assert [line[:3] for line in lines[: len(told) + 1]] == [
            f"{letter}. " for letter in "ABCDEFGHI"[: len(told) + 1]
        ]
        assert lines[len(told) + 1 :] == ["", "Answer:"]


@given(HOSTILE, st.sampled_from([("[[", "]]"), ("«", "»"), ("<m>", "</m>"), ("**", "**")]))
def test_no_mark_is_left_in_a_text_made_harmless(text: str, marks: tuple[str, str]) -> None:
    clean = neutralize(f"{text}{marks[0] * 3}{text}{marks[1]}", marks)
    assert not any(mark in clean for mark in marks)
    assert neutralize(clean, marks) == clean
