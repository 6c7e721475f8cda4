"""Prompt files: what the ranker is told, as data; loaded and checked here, rendered by `render.py`.

A prompt ships by its id (`prompts/ID.toml`), lies in a directory of the user's own, or is any TOML file. A
multi-line string's first line break is TOML's and not part of it; `suffix` follows the document directly.
"""

import re
import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bioelx_mcp.errors import InvalidArtifactError, MissingArtifactError, problems
from bioelx_mcp.files import read_small

_HERE = Path(__file__).parent
# Inside the wheel the prompts lie in the package; in a checkout they are its neighbour.
SHIPPED = _HERE / "prompts" if (_HERE / "prompts").is_dir() else _HERE.parent / "prompts"
PLACEHOLDER = re.compile(r"\{(\w+)\}")

# What may stand between braces, and after the colon what must.
_PARTS = "name types names parents definition"
_FIELDS = {
    "prefix": "system:",
    "query": "instruction context:context",
    "document": f"{_PARTS} options:",
    "option": f"letter {_PARTS}:letter name",
    "none": "letter:letter",
    "types": "types:types",
    "names": "names:names",
    "parents": "parents:parents",
    "definition": "definition:definition",
}
_NEEDED_BY_KIND = {"pointwise": "name", "listwise": "options"}


class Calibration(BaseModel):
    """Fitted on development data for one model: the log-odds are divided by the temperature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    nil_threshold: float = Field(ge=0, le=1)


class Prompt(BaseModel):
    """What all prompts have. `types` to `definition` are the parts that are left out where a concept has none.

    `max_tokens` bounds a whole prompt, `max_context` and `max_definition` characters, the others names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    version: int = Field(ge=1)
    marks: tuple[str, str]
    system: str
    prefix: str
    suffix: str
    language: str = "en"
    instructions: dict[str, str] = Field(min_length=1)
    query: str
    document: str
    types: str
    names: str
    parents: str
    definition: str
    max_tokens: int = Field(ge=256)
    max_context: int = Field(ge=100)
    max_definition: int = Field(ge=0)
    max_names: int = Field(ge=0)
    max_parents: int = Field(ge=0)

    @property
    def instruction(self) -> str:
        return self.instructions[self.language]

    @property
    def label(self) -> str:
        """What a result cites: `id@version`, and the language where it is not English."""
        return f"{self.id}@{self.version}" + (f"/{self.language}" * (self.language != "en"))


class PointwisePrompt(Prompt):
    """Is this document the concept that the marked mention means? The first label says yes, the second no.

    `temperature` and `nil_threshold` hold for models that `calibration` does not name.
    """

    kind: Literal["pointwise"]
    labels: tuple[str, str]
    temperature: float = Field(gt=0)
    nil_threshold: float = Field(ge=0, le=1)
    calibration: dict[str, Calibration] = {}

    def calibrated(self, model: str) -> Calibration:
        """For this model, under whatever organisation or directory it is served."""
        for name, found in self.calibration.items():
            if _last(name) == _last(model):
                return found
        return Calibration(temperature=self.temperature, nil_threshold=self.nil_threshold)


class ListwisePrompt(Prompt):
    """Which of these lettered options is meant, if any? Asked where the best two are within `margin` log-odds.

    The first `candidates` are asked about in `orders` cyclic orders.
    """

    kind: Literal["listwise"]
    option: str
    none: str
    candidates: int = Field(ge=2, le=8)
    orders: int = Field(ge=2, le=9)
    margin: float = Field(gt=0)


P = TypeVar("P", bound=Prompt)


def load_prompt(
    name: str, kind: type[P], *, directory: Path | None = None, language: str | None = None
) -> P:
    """A prompt by its id, in the user's directory or else shipped, or by the path of a TOML file.

    Args:
        kind: what it must be, `PointwisePrompt` or `ListwisePrompt`.
        language: of the instruction; the file's own choice if not given.

    Raises:
        MissingArtifactError: there is no such prompt.
        InvalidArtifactError: a field is missing, unknown or wrong; the message names file and field.
    """
    path = _find(name, directory)
    try:
        raw = tomllib.loads(read_small(path))
    except (OSError, ValueError) as error:
        raise InvalidArtifactError(f"{path}: not a TOML file ({error})") from error
    try:
        prompt = kind.model_validate(raw if language is None else raw | {"language": language})
    except ValidationError as error:
        where, what = problems(error)[0]
        raise InvalidArtifactError(f"{path}: {where}: {what}") from error
    if prompt.language not in prompt.instructions:
        raise InvalidArtifactError(
            f"{path}: instructions: none in {prompt.language!r}; there are {', '.join(sorted(prompt.instructions))}"
        )
    _check_placeholders(path, prompt, raw["kind"])
    return prompt


def _find(name: str, directory: Path | None) -> Path:
    if directory is not None and not directory.is_dir():
        raise MissingArtifactError(f"no directory of prompts {directory} (BIOELX_PROMPTS)")
    places = [place for place in (directory, SHIPPED) if place is not None]
    found = [Path(name)] if name.endswith(".toml") else [p / f"{name}.toml" for p in places]
    for path in found:
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for place in places for path in place.glob("*.toml")))
    raise MissingArtifactError(
        f"no prompt {name!r}; there are {known}; or give the path of a .toml"
    )


def _check_placeholders(path: Path, prompt: Prompt, kind: str) -> None:
    for field, rule in _FIELDS.items():
        known, needed = (set(part.split()) for part in rule.split(":"))
        if field == "document":
            needed = {_NEEDED_BY_KIND[kind]}
            known = known - {"options"} if kind == "pointwise" else needed
        given = set(PLACEHOLDER.findall(getattr(prompt, field, "")))
        if unknown := given - known:
            raise InvalidArtifactError(
                f"{path}: {field}: unknown placeholder {{{sorted(unknown)[0]}}}"
            )
        if hasattr(prompt, field) and (lacking := needed - given):
            raise InvalidArtifactError(
                f"{path}: {field}: lacks the placeholder {{{sorted(lacking)[0]}}}"
            )


def _last(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].casefold()
