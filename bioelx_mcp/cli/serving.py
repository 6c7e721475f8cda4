"""Servers and their clients: `serve`, `serve-ranker`, `mcp-config`, `doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bioelx_mcp.cli.options import IndexOption, JsonOption, RankerOption
from bioelx_mcp.clients import Client, client_block
from bioelx_mcp.console import echo_json, echo_table
from bioelx_mcp.location import parse_location
from bioelx_mcp.settings import load_settings

app = typer.Typer()


@app.command()
def serve(
    index: IndexOption = None,
    ranker_url: RankerOption = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP instead of stdio.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Address for HTTP; 127.0.0.1 if not given. [BIOELX_HOST]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port for HTTP; 8765 if not given. [BIOELX_PORT]")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[:PORT] under which clients may call, needed for a --host that is not loopback; "
            "repeatable. [BIOELX_ALLOWED_HOSTS]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer over HTTP. [BIOELX_WORKERS]")
    ] = None,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Log mentions and contexts, too. [BIOELX_LOG_TEXT]")
    ] = False,
) -> None:
    """Serve the MCP tools over stdio, or over HTTP."""
    from bioelx_mcp.serving.logs import set_up_logging

    settings = load_settings(
        index=index,
        ranker_url=ranker_url,
        host=host,
        port=port,
        allowed_hosts=allowed_host or None,
        workers=workers,
        log_text=log_text or None,
    )
    set_up_logging(settings.log_format, texts=settings.log_text)
    if http:
        from bioelx_mcp.serving.http import serve_http

        serve_http(settings)
        return
    from bioelx_mcp.server import build_server

    build_server(settings, stdio=True).run()


@app.command("serve-ranker")
def serve_ranker(
    model: Annotated[
        str, typer.Argument(help="0.6B, 4B or 8B of Qwen3-Reranker, a hub name, or a directory.")
    ],
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    max_tokens: Annotated[int, typer.Option(help="The longest prompt, in tokens.")] = 8192,
    only_print: Annotated[
        bool, typer.Option("--print", help="Only print the command, for a machine that has a GPU.")
    ] = False,
) -> None:
    """Start a vLLM server with the options that ranking needs; other commands take its --ranker-url."""
    import shlex

    from bioelx_mcp.ranker_server import run_server, vllm_command

    command = vllm_command(model, port, max_tokens)
    if only_print:
        typer.echo(shlex.join(command))
        return
    run_server(command)


@app.command("mcp-config")
def mcp_config(
    client: Annotated[Client, typer.Option(help="The agent client.")] = Client.claude_desktop,
    index: IndexOption = None,
) -> None:
    """Print the block that connects an agent client to this server."""
    import shutil

    command = shutil.which("bioelx-mcp") or "bioelx-mcp"
    arguments = ["serve"]
    if index is not None:
        location = parse_location(index)
        found = location.resolve() if isinstance(location, Path) else location
        arguments += ["--index", str(found)]
    typer.echo(client_block(client, command, arguments))


@app.command()
def doctor(
    index: IndexOption = None, ranker_url: RankerOption = None, as_json: JsonOption = False
) -> None:
    """Check versions, settings, index, encoder and ranker, and say what to do; exit status of what is broken."""
    from bioelx_mcp.doctor import examine, exit_code

    findings = list(examine(index=index, ranker_url=ranker_url))
    if as_json:
        for finding in findings:
            echo_json(asdict(finding))
    else:
        rows = [(each.check, each.state, each.seen, each.mend) for each in findings]
        echo_table(("check", "state", "seen", "what to do"), rows)
    raise typer.Exit(exit_code(findings))
