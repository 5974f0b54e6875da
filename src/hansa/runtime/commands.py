"""`hansa server` and `hansa site start`: the processes of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

LogFormat = Annotated[Literal["text", "json"], typer.Option("--log-format", help="Lines for people, or a JSON object each.")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="What is worth a line.")]

server = typer.Typer(no_args_is_help=True, help="The server of a federation.")


@server.callback()
def _server() -> None:
    """The server of a federation."""


@server.command("start")
def server_start(
    kit: Annotated[Path, typer.Argument(help="The folder of the server's kit.")],
    *,
    log_format: LogFormat = "text",
    log_level: LogLevel = "warning",
) -> None:
    """Serve a project until Ctrl-C; prints one line when it is ready.

    Example: hansa server start kits/server
    """
    import os
    import sys

    from hansa.runtime.logs import configure
    from hansa.runtime.server.main import serve

    def ready(url: str) -> None:
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()

    configure(log_format, level=log_level)
    serve(kit, environment=os.environ, ready=ready)
