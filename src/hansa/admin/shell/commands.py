"""`hansa shell`: a session with a federation's server, typed or read from a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Kit = Annotated[Path, typer.Option("--kit", envvar="HANSA_KIT", help="Your start-up kit: a folder (else HANSA_KIT).")]
Lines = Annotated[list[str] | None, typer.Option("--command", "-c", help="A command to run instead of a session; repeatable.")]
Uploads = Annotated[Path, typer.Option("--uploads", help="Where folders that are uploaded are looked for.")]


def shell(*, kit: Kit, commands: Lines = None, uploads: Uploads = Path()) -> None:
    """An admin session as in FLARE or Clara Train: check_status, set_run_number, upload_app, deploy, start. `?` lists all.

    At a terminal with completion and a history; else commands are read from stdin, one a line. There, and with -c, the first that
    fails ends the session, with its exit code.

    Example: hansa shell --kit fed/kits/admin -c "set_run_number 1" -c "check_status server"
    """
    import os
    import sys

    import hansa.admin.shell.session as sessions
    from hansa.admin.client import connect
    from hansa.compat.flare.admin.verbs import Verbs

    typed = not commands and sys.stdin.isatty()
    if typed:
        sessions.require_prompt()
    with connect(kit) as session:
        verbs = Verbs(session, uploads=uploads)
        if not typed:
            sessions.script(verbs, commands or sys.stdin)
            return
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        sessions.typed(verbs, history=state / "hansa" / "shell_history")
