"""What the tests share: the starter index, made once, and small tables written by hand."""

import io
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from callers import Cli, Result
from mcp import Client
from model_server import ModelServer, Script

from bioelx_mcp.cli import main
from bioelx_mcp.linker import Linker
from bioelx_mcp.manifest import Manifest
from bioelx_mcp.server import build_server
from bioelx_mcp.settings import load_settings
from index_builder.config import BuildConfig
from index_builder.pipeline import build_index
from index_builder.starter import ENCODER, ensure_starter_index

STATUS = Path("/proc/self/status")


def may_override() -> bool:
    """Whether missing rights do not stop this process: root, unless it was started without CAP_DAC_OVERRIDE."""
    if not STATUS.exists():
        return os.geteuid() == 0
    (powers,) = (line.split()[1] for line in STATUS.read_text().splitlines() if "CapEff" in line)
    return bool(int(powers, 16) & 2)


SHARED = Path(__file__).parents[2] / "shared" / "data"
GOLDEN = Path(__file__).parent / "golden"

# Equal runs on any machine, however slow.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file tests/golden/NAME, byte for byte; `--golden` writes the file first."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        assert path.is_file(), f"no {path}; write it with `make golden`"
        assert text == path.read_bytes().decode(), f"{path} differs; see `make golden`"

    return check


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the user's configuration."""
    for name in [name for name in os.environ if name.upper().startswith("BIOELX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BIOELX_CONFIG", str(tmp_path / "no-config.toml"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory that holds the starter index."""
    directory = tmp_path_factory.mktemp("cache")
    ensure_starter_index(directory)
    return directory


@pytest.fixture(scope="session")
def starter_index(cache: Path) -> Path:
    return ensure_starter_index(cache)


@pytest.fixture(scope="session")
def linker(starter_index: Path) -> Linker:
    return Linker.from_settings(load_settings(index=starter_index))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_data() -> Iterator[Path]:
    """The development data beside the checkout; its tests are skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no development data in {SHARED}")
    yield SHARED


def write_tsv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """A TSV file; the first row is the header."""
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


NAMES = (
    ("concept_id", "name", "lang", "kind", "source"),
    ("UMLS:C0000001", "red fever", "en", "preferred", "made"),
    ("UMLS:C0000001", "rotes Fieber", "de", "translation", "made"),
    ("UMLS:C0000001", "fiebre roja", "es", "translation", "made"),
    ("UMLS:C0000002", "blue cough", "en", "preferred", "made"),
    ("UMLS:C0000002", "blauer Husten", "de", "translation", "made"),
    ("MADE:3", "green rash", "en", "preferred", "made"),
    ("MADE:3", "grüner Ausschlag", "de", "translation", "made"),
    ("MADE:3", "緑の発疹", "ja", "translation", "made"),
)
LONG = "It is green. " * 30
DESCRIPTIONS = (
    ("concept_id", "preferred_name", "semantic_types", "definition", "xrefs", "alt_ids", "parents"),
    ("UMLS:C0000001", "red fever", "Disease|Finding", "A red one.", "X:1|Y:2", "OLD:7", "MADE:3"),
    ("MADE:3", "green rash", "Sign", LONG, "", "", ""),
)


@pytest.fixture
def names_tsv(tmp_path: Path) -> Path:
    """Three invented concepts in four languages."""
    return write_tsv(tmp_path / "names.tsv", NAMES)


def build_small(path: Path, out: Path, **options: object) -> Manifest:
    """Build an index of a table with the shipped encoder."""
    config = {
        "name": "small",
        "out": out,
        "sources": [{"kind": "table", "path": path}],
        "encoder": ENCODER,
        **options,
    }
    return build_index(BuildConfig.model_validate(config))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Manifest]:
    """`build_small`, into this test's own directory: `build(path, out=...)`."""

    def run(path: Path, out: Path | None = None, **options: object) -> Manifest:
        return build_small(path, out or tmp_path / "index", **options)

    return run


@pytest.fixture
def model_server() -> Iterator[Callable[[Script], ModelServer]]:
    """Start a server that answers by a script: `model_server(lambda request: scores(0.5)).url`."""
    servers: list[ModelServer] = []

    def start(script: Script) -> ModelServer:
        servers.append(ModelServer(script))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of NAMES and DESCRIPTIONS: what server and command line are asked about."""
    root = tmp_path_factory.mktemp("served")
    tables = {"names": NAMES, "descriptions": DESCRIPTIONS}
    paths = [write_tsv(root / f"{name}.tsv", rows) for name, rows in tables.items()]
    sources = [{"kind": "table", "path": path} for path in paths]
    build_small(paths[0], root / "index", sources=sources)
    return root / "index"


@pytest.fixture(scope="module", params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> Any:
    """Both eras of the protocol."""
    return request.param


@pytest.fixture(scope="module")
async def client(served: Path, mode: Any) -> AsyncIterator[Client]:
    """A client of a server over that index."""
    async with Client(build_server(load_settings(index=served)), mode=mode) as client:
        yield client


@pytest.fixture
def cli(served: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`bioelx-mcp ARGUMENTS` over that index: `cli("search", "fever", stdin="")`."""
    monkeypatch.setenv("BIOELX_INDEX", str(served))

    def run(*arguments: str, stdin: str | io.StringIO = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["bioelx-mcp", *arguments])
        given = io.StringIO(stdin) if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", given)
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capsys.readouterr())

    return run
