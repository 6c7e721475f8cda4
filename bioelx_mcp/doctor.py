"""What is well with an installation and what is not, with the mend: versions, settings, prompt, index, encoder, ranker.

Each check needs those before it; what could not be looked at is not in the list.
"""

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from bioelx_mcp import __version__
from bioelx_mcp.errors import BioelxError, MissingExtraError, RankerBackendError
from bioelx_mcp.schema import Mention
from bioelx_mcp.settings import Settings, config_file, load_settings

if TYPE_CHECKING:
    from bioelx_mcp.linker import Linker

PACKAGES = ("mcp", "lancedb", "pyarrow", "numpy", "onnxruntime", "tokenizers", "tantivy")


@dataclass(frozen=True)
class Finding:
    """One check: how it went, what was seen, what to do; `exit_code` is that of the error, 0 if there is none."""

    check: str
    state: Literal["ok", "note", "broken"]
    seen: str
    mend: str = ""
    exit_code: int = 0


def examine(**arguments: Any) -> Iterator[Finding]:
    """The findings, one after the other; `arguments` go before the environment and the file, as elsewhere."""
    yield _packages()
    check = "settings"
    try:
        settings = load_settings(**arguments)
        file = config_file()
        yield Finding(check, "ok", str(file) if file.is_file() else f"no file {file}")
        check = "prompt"
        yield _prompt(settings)
        check = "index"
        began = time.perf_counter()
        linker = _open(settings)
        yield _index(settings, linker, time.perf_counter() - began)
        check = "encoder"
        yield _encoder(linker)
        check = "ranker"
        yield _ranker(settings, linker)
    except BioelxError as error:  # its text holds the mend
        yield Finding(check, "broken", str(error), exit_code=error.exit_code)
    except Exception as error:  # a library that does not load on this machine, say
        yield Finding(check, "broken", f"{type(error).__name__}: {error}", exit_code=1)


def exit_code(findings: list[Finding]) -> int:
    """The exit status: that of the first finding that is broken."""
    return next((each.exit_code for each in findings if each.state == "broken"), 0)


def _packages() -> Finding:
    seen = [f"bioelx-mcp {__version__}", f"Python {platform.python_version()}"]
    missing = []
    for name in PACKAGES:
        try:
            seen.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        told = f"not installed: {', '.join(missing)}"
        return Finding(
            "versions",
            "broken",
            told,
            "pip install --upgrade bioelx-mcp",
            MissingExtraError.exit_code,
        )
    return Finding("versions", "ok", ", ".join(seen))


def _prompt(settings: Settings) -> Finding:
    from bioelx_mcp.prompt import PointwisePrompt, load_prompt

    prompt = load_prompt(
        settings.prompt,
        PointwisePrompt,
        directory=settings.prompts,
        language=settings.prompt_language,
    )
    return Finding("prompt", "ok", prompt.label)


def _open(settings: Settings) -> "Linker":
    from bioelx_mcp.linker import Linker

    return Linker.from_settings(settings)


def _index(settings: Settings, linker: "Linker", seconds: float) -> Finding:
    manifest = linker.manifest
    name = f"{manifest.index_id} in {settings.index or settings.cache}"
    seen = f"{name}: {manifest.concepts} concepts, {manifest.aliases} aliases, opened in {seconds:.1f} s"
    if settings.index is None:
        mend = "the starter index is for trying out: build your own with `bioelx-mcp build-index --help`"
        return Finding("index", "note", seen, mend)
    return Finding("index", "ok", seen)


def _encoder(linker: "Linker") -> Finding:
    card = linker.manifest.encoder
    texts = [probe.text for probe in linker.manifest.probes] or ["fever"]
    began = time.perf_counter()
    linker.search(texts, 1)
    each = (time.perf_counter() - began) / len(texts)
    seen = f"{card.name}, {card.dimension} dimensions: gives the vectors of the index; {1000 * each:.0f} ms a search"
    return Finding("encoder", "ok", seen)


def _ranker(settings: Settings, linker: "Linker") -> Finding:
    if settings.ranker_url is None:
        mend = "set BIOELX_RANKER_URL to a model server to rank by context (`bioelx-mcp serve-ranker` starts one)"
        return Finding("ranker", "note", "none: the order of the search stands", mend)
    began = time.perf_counter()
    (ranking,) = linker.link([Mention("fever", "The fever began yesterday.")], 2)
    seconds = time.perf_counter() - began
    if ranking.degraded:
        mend = "start it as the README says, or unset BIOELX_RANKER_URL"
        return Finding("ranker", "broken", ranking.degraded, mend, RankerBackendError.exit_code)
    return Finding(
        "ranker", "ok", f"{ranking.ranker} at {settings.ranker_url}: {seconds:.1f} s a mention"
    )
