"""Prompt files: loaded, checked, rendered. Text from contexts and knowledge bases is data, never markup.

A prompt ships by its id (`prompts/ID.toml`) or is any TOML file. A multi-line string's first line break is
TOML's and not part of it; `suffix` follows the document directly.
"""

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError, problems
from bioelx_mcp.schema import Concept, Mention
from bioelx_mcp.text import find_mention, mark_mention

_HERE = Path(__file__).parent
# Inside the wheel the prompts lie in the package; in a checkout they are its neighbour.
SHIPPED = _HERE / "prompts" if (_HERE / "prompts").is_dir() else _HERE.parent / "prompts"

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CONTROL_TOKENS = re.compile(
    r"<\s*(?=\||/?\s*(?:think|s|tool_call|tool_response)\b)", re.IGNORECASE
)
_FIELDS: dict[str, set[str]] = {
    "query": {"instruction", "context"},
    "document": {"name", "types", "names", "definition"},
    "types": {"types"},
    "names": {"names"},
    "definition": {"definition"},
}


class Prompt(BaseModel):
    """A pointwise prompt: is this document the concept that the marked mention means?

    `types`, `names` and `definition` are the parts of `document` that are left out where a concept has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    version: int = Field(ge=1)
    kind: Literal["pointwise"]
    marks: tuple[str, str]
    prefix: str
    instruction: str
    query: str
    document: str
    types: str
    names: str
    definition: str
    suffix: str
    max_context: int = Field(ge=100)
    max_definition: int = Field(ge=0)
    max_names: int = Field(ge=0)
    temperature: float = Field(gt=0)
    nil_threshold: float = Field(ge=0, le=1)

    @property
    def label(self) -> str:
        """What a result cites: `id@version`."""
        return f"{self.id}@{self.version}"


def load_prompt(name: str) -> Prompt:
    """A prompt by the id of a shipped one, or by the path of a TOML file.

    Raises:
        MissingArtifactError: there is no such prompt.
        InvalidArtifactError: a field is missing, unknown or wrong; the message names file and field.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise MissingArtifactError(
            f"no prompt {name!r}; shipped: {known}; or give the path of a .toml"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidArtifactError(f"{path}: not a TOML file ({error})") from error
    try:
        prompt = Prompt.model_validate(raw)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise InvalidArtifactError(f"{path}: {where}: {what}") from error
    for field, known_names in _FIELDS.items():
        if unknown := set(_PLACEHOLDER.findall(getattr(prompt, field))) - known_names:
            raise InvalidArtifactError(
                f"{path}: {field}: unknown placeholder {{{sorted(unknown)[0]}}}"
            )
    for field, needed in (("query", "context"), ("document", "name")):
        if f"{{{needed}}}" not in getattr(prompt, field):
            raise InvalidArtifactError(f"{path}: {field}: lacks the placeholder {{{needed}}}")
    return prompt


def render_query(prompt: Prompt, mention: Mention) -> str:
    """What all candidates of a mention share: prefix, instruction, and the mention marked in its context."""
    context, start = _window(mention, prompt.max_context)
    parts = _split(context, mention.text, start)
    before, name, after = (neutralize(part, prompt.marks) for part in parts)
    marked = mark_mention(before + name + after, name, len(before), marks=prompt.marks)
    return prompt.prefix + _fill(prompt.query, instruction=prompt.instruction, context=marked)


def render_document(prompt: Prompt, concept: Concept, names: Sequence[str]) -> str:
    """What is told of one candidate, and the suffix."""
    marks = prompt.marks

    def part(template: str, field: str, text: str) -> str:
        return _fill(template, **{field: neutralize(text, marks)}) if text else ""

    definition = concept.definition
    if len(definition) > prompt.max_definition:
        kept = definition[: prompt.max_definition].rsplit(" ", 1)[0]
        definition = f"{kept} ..." if kept else ""
    others = [name for name in dict.fromkeys(names) if name != concept.preferred_name][
        : prompt.max_names
    ]
    return (
        _fill(
            prompt.document,
            name=neutralize(concept.preferred_name, marks),
            types=part(prompt.types, "types", ", ".join(concept.semantic_types)),
            names=part(prompt.names, "names", "; ".join(others)),
            definition=part(prompt.definition, "definition", definition),
        )
        + prompt.suffix
    )


def neutralize(text: str, marks: tuple[str, str]) -> str:
    """The text on one line, without chat-control tokens, control characters, bidi overrides or our marks."""
    clean = "".join(
        " " if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char
        for char in text
    )
    for mark in marks:  # overlapping ones too: of "[[[" nothing may be left
        first, rest = re.escape(mark[:1]), re.escape(mark[1:])
        clean = re.sub(f"({first})(?={rest})", r"\1 " if rest else " ", clean)
    return re.sub(" {2,}", " ", _CONTROL_TOKENS.sub("< ", clean))


def _fill(template: str, **values: str) -> str:
    """Placeholders replaced in one pass: braces within a value mean nothing."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


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
