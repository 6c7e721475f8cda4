"""A real vLLM that serves a tiny random model on loopback, in a process group of its own, as `serve-ranker` starts it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from bioelx_mcp.ranker_server import vllm_command

MODEL = "tiny"
MAX_TOKENS = 4096
START_LIMIT = 600.0  # seconds; 20 on two free cores, 300 seen where others kept them busy
_TINY_MODEL = Path(__file__).with_name("tiny_model.py")
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # the engine's own sockets too
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # fastest for so small a model
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # two processes, not three
    "TORCH_COMPILE_DISABLE": "1",  # no C++ compiler, no wait at the first request
}
# `vllm serve` of the wheel looks for a distribution of the name vllm; this is the module it calls.
# PR_SET_PDEATHSIG: it ends with the tests, however they end.
_START = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
module = "vllm.entrypoints.launchers.api_server.entry"
os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])"""


@dataclass(frozen=True)
class Server:
    """A running server; `reference` is what it ought to answer."""

    url: str
    python: str
    model_directory: Path
    process: subprocess.Popen[bytes]

    def reference(self, prompts: Sequence[str]) -> list[float]:
        """Log-odds of yes after each prompt, by transformers on the same weights."""
        return list(
            map(float, json.loads(_tiny_model(self.python, "score", self.model_directory, prompts)))
        )

    def in_process(self, prompts: Sequence[str]) -> list[list[float]]:
        """Log-probabilities of yes and no after each prompt, by our backend with vLLM in its own process."""
        script = Path(__file__).with_name("in_process.py")
        told = _run([self.python, str(script), str(self.model_directory)], prompts)
        rows: list[list[float]] = json.loads(told.splitlines()[-1])
        return rows

    def metric(self, name: str) -> float:
        """A counter of the server, over all its labels."""
        lines = httpx2.get(f"{self.url}/metrics", timeout=60.0).text.splitlines()
        values = [float(line.split()[-1]) for line in lines if line.startswith(name)]
        assert values, f"no metric {name}"
        return sum(values)

    def signal(self, number: signal.Signals) -> None:
        """Sent to the server and all that it started."""
        os.killpg(self.process.pid, number)


def find_python() -> str:
    """The interpreter with vLLM that VLLM_PYTHON names; the test is skipped where there is none."""
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        pytest.skip("VLLM_PYTHON names no interpreter with vLLM (make test-vllm)")
    look = "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"
    try:
        missing = subprocess.run([python, "-I", "-c", look]).returncode
    except OSError as error:
        pytest.skip(f"VLLM_PYTHON: {error}")
    if missing:
        pytest.skip(f"VLLM_PYTHON: {python} has no vLLM (tests/vllm/setup.sh makes one)")
    return str(Path(python).absolute())


@contextmanager
def serve(python: str, directory: Path, name: str) -> Iterator[Server]:
    """A server that answers; stopped at the end, whatever happened to it.

    Args:
        name: of the model's directory; serve-ranker knows a Qwen3-Reranker by it.
    """
    model = directory / name
    _tiny_model(python, "make", model)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "served-model-name": MODEL,
        "dtype": "float32",
        "max-num-batched-tokens": str(MAX_TOKENS),
        "max-num-seqs": "16",
        "kv-cache-memory-bytes": "64M",
        "block-size": "32",  # what prompts share is found by whole blocks, of 128 by default
    }
    command = [python, "-c", _START, "--enforce-eager", f"--model={model}"]
    command += vllm_command(str(model), port, MAX_TOKENS)[3:]
    command += [f"--{name}={value}" for name, value in options.items()]
    log = directory / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", python, model, process)
    try:
        _wait(server, log)
        yield server
    finally:
        _stop(server)


def _wait(server: Server, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if httpx2.get(f"{server.url}/health").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    pytest.fail(f"vLLM did not start (status {server.process.poll()}):\n{tail}")


def _stop(server: Server) -> None:
    server.process.terminate()  # its children end with it
    try:
        server.process.wait(30)
    except subprocess.TimeoutExpired:
        pass
    try:
        server.signal(signal.SIGKILL)
    except ProcessLookupError:
        pass  # as it should be: none of the group is left
    server.process.wait()


def _tiny_model(python: str, verb: str, model: Path, prompts: Sequence[str] = ()) -> str:
    return _run([python, str(_TINY_MODEL), verb, str(model)], prompts)


def _run(command: Sequence[str], prompts: Sequence[str]) -> str:
    """What a script of the other environment prints, given the prompts."""
    done = subprocess.run(
        command,
        input=json.dumps(list(prompts)),
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
