"""Prompts from mentions and descriptions. Text from contexts and knowledge bases is data, never markup.

`fit_prompts` is the way in: it also keeps each prompt within what the model reads, by telling less.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from bioelx_mcp.backends import Prompts
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.prompt import PLACEHOLDER, ListwisePrompt, PointwisePrompt, Prompt
from bioelx_mcp.schema import Mention
from bioelx_mcp.text import find_mention, mark_mention, spaced

LETTERS = "ABCDEFGHI"
Count = Callable[[Sequence[str]], Awaitable[list[int]]]

# Chat formats are written as tags (`<|im_end|>`, `</think>`, `<start_of_turn>`, `<<SYS>>`), with fullwidth bars in
# some, or as `[INST]`; our own fields are tags, too.
_TAG = re.compile(r"<(?=[|｜/!<A-Za-z])|\[(?=/?INST\])", re.IGNORECASE)
_SHARES = (1, 2, 4, 8, 16, 32, 64)  # of what may be told at most, the part that is
_MAX_NAME = 512  # characters
_SPARE = 8  # tokens: the answer, special ones, and where two texts meet


@dataclass(frozen=True, slots=True)
class Description:
    """What is told of a candidate: the name first, then what the knowledge base has."""

    name: str
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    definition: str = ""


async def fit_prompts(
    prompt: Prompt,
    mention: Mention,
    descriptions: Sequence[Description],
    limit: int,
    count: Count,
    orders: Sequence[Sequence[int]] = (),
) -> Prompts:
    """One prompt for each description, or of a listwise prompt one for each order, each of at most `limit` tokens.

    What is too long is told by halves: first the context, if it takes more than half of the tokens, then
    the description alone that is too long. The suffix is always whole.

    Args:
        limit: what the model reads, in tokens.
        count: the tokens of texts; never fewer than there are.
        orders: of a listwise prompt, places in `descriptions`, -1 for none of them.

    Raises:
        RankerBackendError: the model reads too little for the prompt itself.
    """
    limit = min(limit, prompt.max_tokens) - _SPARE

    async def size(text: str, room: int) -> int:
        """Its bytes where they are few enough to say that it fits, else its tokens."""
        least = len(text.encode())
        return least if least <= room else (await count([text]))[0]

    for share in _SHARES:
        frame = _render_frame(prompt, mention, share)
        taken = await size(frame.head + frame.suffix, limit // 2)
        if taken <= limit // 2:
            break
    room = limit - taken
    documents = []
    for told in orders or [[place] for place in range(len(descriptions))]:
        chosen = [None if place < 0 else descriptions[place] for place in told]
        for share in _SHARES:
            document = _render_document(prompt, chosen, share)
            if await size(document, room) <= room:
                break
        else:
            raise RankerBackendError(
                f"{limit + _SPARE} tokens are too few for the prompt {prompt.label}"
            )
        documents.append(document)
    return replace(frame, documents=tuple(documents))


def neutralize(text: str, marks: tuple[str, str]) -> str:
    """The text on one line, without tags of chat formats, control characters, bidi overrides or our marks."""
    clean = spaced(text)
    for mark in marks:  # overlapping ones too: of "[[[" nothing may be left
        first, rest = re.escape(mark[:1]), re.escape(mark[1:])
        clean = re.sub(f"({first})(?={rest})", r"\1 " if rest else " ", clean)
    return re.sub(" {2,}", " ", _TAG.sub(r"\g<0> ", clean))


def _render_frame(prompt: Prompt, mention: Mention, share: int) -> Prompts:
    """What all documents of a mention share; a `share`-th of the context that the prompt allows."""
    context, start = _window(mention, prompt.max_context // share)
    parts = _split(context, mention.text, start)
    before, name, after = (neutralize(part, prompt.marks) for part in parts)
    marked = mark_mention(before + name + after, name, len(before), marks=prompt.marks)
    return Prompts(
        system=prompt.system,
        prefix=_fill(prompt.prefix, system=prompt.system),
        query=_fill(prompt.query, instruction=prompt.instruction, context=marked),
        documents=(),
        suffix=prompt.suffix,
        labels=prompt.labels if isinstance(prompt, PointwisePrompt) else (),
        instruction=prompt.instruction,
        topic=marked,
    )


def _render_document(prompt: Prompt, told: Sequence[Description | None], share: int) -> str:
    """One description, or lettered options of which None says that none of the others is meant."""
    if not isinstance(prompt, ListwisePrompt):
        [one] = told
        assert one is not None
        return _fill(prompt.document, **_parts(prompt, one, share))
    options = "".join(
        _fill(prompt.none, letter=letter)
        if one is None
        else _fill(prompt.option, letter=letter, **_parts(prompt, one, share))
        for letter, one in zip(LETTERS, told, strict=False)
    )
    return _fill(prompt.document, options=options)


def _parts(prompt: Prompt, told: Description, share: int) -> dict[str, str]:
    """A `share`-th of what the prompt allows to tell."""

    def part(field: str, text: str) -> str:
        template: str = getattr(prompt, field)
        return _fill(template, **{field: neutralize(text, prompt.marks)}) if text else ""

    most = prompt.max_definition // share
    definition = told.definition
    if len(definition) > most:
        kept = definition[:most].rsplit(" ", 1)[0]
        definition = f"{kept} ..." if kept else ""
    others = [name for name in dict.fromkeys(told.names) if name != told.name]
    return {
        "name": neutralize(told.name[: _MAX_NAME // share], prompt.marks),
        "types": part("types", ", ".join(told.types[: max(1, 4 // share)])),
        "names": part("names", "; ".join(others[: prompt.max_names // share])),
        "parents": part("parents", "; ".join(told.parents[: prompt.max_parents // share])),
        "definition": part("definition", definition),
    }


def _fill(template: str, **values: str) -> str:
    """Placeholders replaced in one pass: braces within a value mean nothing."""
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _window(mention: Mention, most: int) -> tuple[str, int | None]:
    """At most `most` characters of the context, the mention in the middle, and its place there."""
    context = mention.context
    start = find_mention(context, mention.text, mention.start)
    most = max(most, len(mention.text))
    if len(context) <= most:
        return context, start
    middle = start or 0
    low = max(0, min(middle - (most - len(mention.text)) // 2, len(context) - most))
    return context[low : low + most], None if start is None else start - low


def _split(context: str, mention: str, start: int | None) -> tuple[str, str, str]:
    """Before, mention, after; a context that lacks the mention comes after it."""
    if start is None:
        return "", mention, f" {context}" if context else ""
    end = start + len(mention)
    return context[:start], context[start:end], context[end:]
