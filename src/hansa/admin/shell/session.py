"""A session: lines in, answers out; at a terminal with completion and history, from a script without."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from hansa.admin.shell.line import Line
from hansa.compat.flare.admin import lines
from hansa.compat.flare.admin.verbs import Verbs
from hansa.errors import HansaError, MissingExtraError
from hansa.files import storage_error

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

_ENDS: Final = frozenset({"bye", "exit", "quit"})
_TARGETS: Final = ("server", "client", "all")


def require_prompt() -> None:
    """Return if lines can be typed with completion and history.

    Raises:
        MissingExtraError: the library for it is not installed.
    """
    try:
        import prompt_toolkit  # noqa: F401  whether it is there
    except ModuleNotFoundError as error:
        raise MissingExtraError("prompt_toolkit", extra="shell") from error


def script(verbs: Verbs, commands: Iterable[str]) -> None:
    """Run commands one after another until one says `bye`.

    Raises:
        HansaError: the first that fails ends the session.
    """
    for text in commands:
        if not answer(verbs, text):
            return


def typed(verbs: Verbs, *, history: Path) -> None:
    """Run what a person types, until they say `bye` or press Ctrl-D. `history`: the file that remembers the lines.

    Raises:
        UnreachableError, IdentityError: the server is not there at the start, or does not let the kit in.
    """
    sites = [site.site for site in verbs.session.sites()]
    prompt = _prompt(verbs, sites, history)
    typer.echo(f"Admin Server: {verbs.session.kit.url}, as {verbs.session.kit.name}; {len(sites)} sites")
    typer.echo('Type ? to list commands; type "? cmdName" to show usage of a command.')
    while True:
        try:
            text = prompt.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        began = time.perf_counter()
        try:
            if not answer(verbs, text):
                return
        except HansaError as error:
            typer.echo(f"error: {error}")
        except KeyboardInterrupt:
            typer.echo("interrupted")
        if text.strip():
            typer.echo(f"Done [{(time.perf_counter() - began) * 1e6:.0f} usecs] {datetime.now():%Y-%m-%d %H:%M:%S}")


def answer(verbs: Verbs, text: str) -> bool:
    """Run one line and show what it says, or write it where the line says; whether the session goes on.

    Raises:
        HansaError: what went wrong.
    """
    line = Line.of(f"help {text[1:]}" if text.startswith("?") else text)
    if not line.words:
        return True
    if line.words[0] in _ENDS:
        return False
    said = lines.explained(*line.words[1:2]) if line.words[0] == "help" else lines.run(verbs, line.words)
    told = "".join(f"{each}\n" for each in said.lines)
    line.keep(told)
    if line.shown:
        typer.echo(told, nl=False)
    return True


def completions(verbs: Verbs, sites: Iterable[str], words: list[str]) -> list[str]:
    """What the last of the words may become: a command, then a target, then an app or a site. The last word may be empty."""
    *before, begun = words
    if not before:
        known: Iterable[str] = (*lines.COMMANDS, "bye", "help")
    elif before[0] == "help":
        known = lines.COMMANDS
    elif before[0] in ("deploy", "deploy_app") and len(before) == 1:
        known = verbs.apps
    elif before[0] in ("upload_folder", "upload_app", "submit_job"):
        known = _folders(verbs.uploads)
    elif before[0] == "remove_client" or "client" in before[1:]:
        known = [site for site in sites if site not in before]
    elif before[0] in lines.COMMANDS and "server" in lines.COMMANDS[before[0]].usage:
        known = ("log.txt", "metrics.jsonl") if "server" in before else [each for each in _TARGETS if each not in before]
    else:
        known = ()
    return [each for each in known if each.startswith(begun)]


def _folders(place: Path) -> list[str]:
    try:
        return sorted(each.name for each in place.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError:  # a folder that cannot be read completes to nothing; naming it says why
        return []


def _prompt(verbs: Verbs, sites: list[str], history: Path) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.shortcuts import CompleteStyle

    class _Words(Completer):  # type: ignore[misc]  # an extra's class: mypy takes it for Any
        def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
            del complete_event
            words = document.text_before_cursor.split(" ")
            full = [word for word in words[:-1] if word] + words[-1:]
            return [Completion(each, start_position=-len(full[-1])) for each in completions(verbs, sites, full)]

    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
    except OSError as error:
        raise storage_error(error, history) from error
    return PromptSession(
        history=FileHistory(str(history)),
        completer=_Words(),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )
