"""The files by which others install this server: of one version, of the form their readers want, telling the truth."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from bioelx_mcp.server import TITLES
from bioelx_mcp.settings import Settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Input(Strict):
    """An argument or variable; the rules of the MCP registry's server.json (2025-12-11), for what we use."""

    type: Literal["positional", "named"] | None = None
    name: str | None = None
    value: str | None = None
    description: str | None = None
    format: Literal["string", "number", "boolean", "filepath"] = "string"
    isRequired: bool = False  # noqa: N815
    isSecret: bool = False  # noqa: N815


class Package(Strict):
    registryType: Literal["pypi"]  # noqa: N815
    identifier: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    runtimeHint: Literal["uvx"]  # noqa: N815
    transport: dict[Literal["type"], Literal["stdio"]]
    packageArguments: list[Input]  # noqa: N815
    environmentVariables: list[Input]  # noqa: N815


class ServerJson(Strict):
    schema_: Annotated[HttpUrl, Field(alias="$schema")]
    name: Annotated[
        str, Field(pattern=r"^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", min_length=3, max_length=200)
    ]
    title: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    packages: list[Package]


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def test_server_json_is_of_the_registry_s_form() -> None:
    server = ServerJson.model_validate(read("server.json"))
    (package,) = server.packages
    assert package.identifier == PROJECT["name"]
    assert all(given.type and given.value for given in package.packageArguments)
    variables = {given.name for given in package.environmentVariables}
    assert variables <= {f"BIOELX_{name.upper()}" for name in Settings.model_fields}
    secret = {given.name for given in package.environmentVariables if given.isSecret}
    assert secret == {"BIOELX_RANKER_KEY"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"mcp-name: (\S+)", readme) == [
        server.name
    ]  # how the registry knows the owner


def test_every_file_names_the_version_of_the_package() -> None:
    server, manifest = read("server.json"), read("mcpb/manifest.json")
    versions = {server["version"], server["packages"][0]["version"], manifest["version"]}
    assert versions == {PROJECT["version"]}


def test_the_bundle_names_the_tools_that_the_server_has() -> None:
    """That the manifest is valid as a whole is for `mcpb validate` to say (make test-mcp)."""
    manifest = read("mcpb/manifest.json")
    assert {tool["name"] for tool in manifest["tools"]} == {
        Tool.from_function(function).name for function in TITLES
    }
    assert manifest["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]
    used = re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"]))
    assert sorted(used) == sorted(manifest["user_config"])
    environment = manifest["server"]["mcp_config"]["env"]
    assert set(environment) <= {f"BIOELX_{name.upper()}" for name in Settings.model_fields}


def test_the_bundle_holds_what_an_installation_needs(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    subprocess.run([sys.executable, ROOT / "mcpb" / "make_bundle.py", out], check=True)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    needed = (
        manifest["server"]["entry_point"],
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "prompts/qwen3-reranker.toml",
    )
    assert all((out / name).is_file() for name in needed)
    assert (out / "index_builder" / "starter" / "encoder" / "model.onnx").is_file()
    assert not list(out.rglob("__pycache__"))
