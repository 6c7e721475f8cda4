"""The one place for defaults of the running program: argument > environment (`BIOELX_*`) > file > default.

The file is TOML, named by BIOELX_CONFIG, else `bioelx-mcp/config.toml` in the user's configuration directory.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from bioelx_mcp.errors import UsageError, problems
from bioelx_mcp.location import Location, parse_location

APP = "bioelx-mcp"
_HEADER = (
    "^[!-~]+$"  # what a header can hold; else an error of a client or server would cite the key
)


class Settings(BaseSettings):
    """How the program runs. `index` None means the starter index; `ranker_url` None means no ranker."""

    model_config = SettingsConfigDict(
        env_prefix="BIOELX_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    index: Annotated[Location | None, NoDecode] = Field(
        default=None,
        description="index directory or s3://BUCKET/PREFIX; the starter index if not given",
    )
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir(APP)),
        description="where the starter index and what is fetched of remote ones are kept",
    )
    # More than one costs a single mention twice the time, and batches are searched side by side.
    threads: int = Field(default=1, ge=0, description="threads of the encoder; 0: as many as cores")
    ranker_url: str | None = Field(
        default=None, description="a model server, such as http://127.0.0.1:8000"
    )
    ranker_backend: Literal["auto", "score", "completions", "rerank", "chat", "in-process"] = Field(
        default="auto",
        description="how the server is asked, the first that it offers if not given; in-process: vLLM runs in here",
    )
    ranker_model: str | None = Field(
        default=None, description="its model; the one it serves if not given"
    )
    ranker_key: str | None = Field(
        default=None,
        description="bearer token for the servers",
        pattern=_HEADER,
        repr=False,
    )
    ranker_timeout: float = Field(default=30.0, gt=0, description="seconds for one request")
    letters_url: str | None = Field(
        default=None, description="a server that takes a second look where the best two are close"
    )
    letters_model: str | None = Field(
        default=None, description="its model; the one it serves if not given"
    )
    letters_prompt: str = Field(
        default="letters", description="its prompt: one that ships, or the path of a prompt file"
    )
    prompt: str = Field(
        default="qwen3-reranker", description="a prompt that ships, or the path of a prompt file"
    )
    prompts: Path | None = Field(
        default=None, description="a directory of prompts that goes before those that ship"
    )
    prompt_language: str | None = Field(
        default=None, description="language of the instructions; the prompt's own if not given"
    )
    host: str = Field(default="127.0.0.1", description="address that HTTP listens on")
    port: int = Field(default=8765, ge=0, le=65535, description="its port; 0: any free one")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="names under which HTTP clients may call, besides loopback ones"
    )
    token: str | None = Field(
        default=None,
        description="bearer token that HTTP clients must send",
        pattern=_HEADER,
        repr=False,
    )
    workers: int = Field(default=1, ge=1, description="processes that answer over HTTP")
    max_body: int = Field(default=4 << 20, gt=0, description="bytes of one HTTP request at most")
    time_limit: float = Field(default=300.0, gt=0, description="seconds for one tool call")
    log_format: Literal["text", "json"] = Field(default="text", description="form of log lines")
    log_text: bool = Field(
        default=False, description="log mentions and contexts, too; clinical text is private"
    )

    @field_validator("index", mode="before")
    @classmethod
    def _locate(cls, value: Any) -> Any:
        return parse_location(value) if isinstance(value, str | Path) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """A variable holds names between commas."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, config_file())
        return init_settings, env_settings, file


def config_file() -> Path:
    """Where the file of settings is, or would be."""
    named = os.environ.get("BIOELX_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir(APP)) / "config.toml"


def load_settings(**arguments: Any) -> Settings:
    """Settings with these arguments on top; an argument that is None was not given.

    Raises:
        UsageError: an argument, variable or the file says something that cannot be.
    """
    try:
        return Settings(**{key: value for key, value in arguments.items() if value is not None})
    except ValidationError as error:
        name, what = problems(error)[0]
        raise UsageError(f"setting {name} (BIOELX_{name.upper()}): {what}") from error
    except ValueError as error:  # the file is no TOML
        raise UsageError(f"{config_file()} cannot be read: {error}") from error
