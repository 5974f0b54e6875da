"""The `hansa` command: finds its sub-commands by entry point and imports one only when it is called or listed.

A distribution adds a command by declaring it in the group `hansa.commands`: a plain function, or a Typer app.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from hansa.errors import HansaError

EXAMPLE = """Train four hospitals together: hansa demo

Run a job file: hansa run job.toml --set algorithm.rounds=5

Look at what ran: hansa runs list
"""

_COMPLETION = {"install_completion", "show_completion"}


class _Commands(TyperGroup):
    """A group whose commands are the entry points of `hansa.commands`."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002  Click's signature
        from hansa import registry

        return registry.names("commands")

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | TyperGroup:  # noqa: ARG002  Click's signature
        """The command of that name, imported now; one that cannot be imported says so when it is called.

        Raises:
            ConfigError: there is none; the nearest name is the hint.
        """
        from hansa import registry

        try:
            target = registry.find("commands", cmd_name)
        except ImportError as error:  # another distribution's broken command must not take `hansa --help` down
            return _broken(cmd_name, error)
        return as_command(cmd_name, target)


def as_command(name: str, target: object) -> TyperCommand | TyperGroup:
    """A Typer app or a plain function as the command `name`.

    Raises:
        ConfigError: the entry point leads to neither.
    """
    from hansa.errors import ConfigError

    if isinstance(target, typer.Typer):
        app = target
    elif callable(target):
        app = typer.Typer(add_completion=False)
        app.command(name)(target)
    else:
        raise ConfigError(f"the command {name!r} is neither a function nor a Typer app", got=type(target).__name__)
    command = _named(name, app)
    command.params = [each for each in command.params if each.name not in _COMPLETION]  # only `hansa` itself offers it
    return command


def _named(name: str, app: typer.Typer) -> TyperCommand | TyperGroup:
    if not sys.stdout.isatty():
        app.rich_markup_mode = None  # plain text for files and pipes; Rich is then not even imported
    command = typer.main.get_command(app)
    command.name = name
    return cast("TyperCommand | TyperGroup", command)  # Typer makes no other class unless told to


def _broken(name: str, cause: ImportError) -> TyperCommand | TyperGroup:
    def fail() -> None:
        from hansa.errors import ConfigError, HansaError

        if isinstance(cause, HansaError):
            raise cause
        raise ConfigError(f"the command {name!r} cannot be imported: {cause}") from cause

    app = typer.Typer(add_completion=False)
    anything = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=f"(cannot be imported: {cause})", context_settings=anything)(fail)
    return _named(name, app)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hansa {version('hansa')}")
        raise typer.Exit


@app.callback(epilog=EXAMPLE)
def hansa(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Federated learning: the work travels to the data, only results come back."""


@contextlib.contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """While it lasts, what a user's code, a library or a worker prints goes to stderr: stdout is kept for one JSON object."""
    if not wanted:
        yield
        return
    import os

    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # somebody closed it: nothing can be printed there
        kept = None
    try:
        if kept is not None:
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def main(argv: list[str] | None = None) -> int:
    """Run one command line; its exit code, as CONTRACTS lists them. An error of ours is one message on stderr.

    With `--json` it is one object on stdout as well.
    """
    from hansa.errors import HansaError

    given = sys.argv[1:] if argv is None else argv
    args = [arg for arg in given if arg != "--debug"]  # before or after the sub-command
    as_json = "--json" in args
    try:
        code = _named("hansa", app).main(args, prog_name="hansa", standalone_mode=not as_json)
        done = code if isinstance(code, int) else 0
    except HansaError as error:
        _report(error, debug=args != given)
        if as_json:
            _report_json(error)
        return error.exit_code
    except KeyboardInterrupt:
        done = 130
    except SystemExit as end:
        done = end.code if isinstance(end.code, int) else int(end.code is not None)
    except _CLICK as usage:  # raised where --json asked Typer to leave it to us
        usage.show()
        _print_json({"status": "failed", "code": "usage", "message": usage.format_message(), "exit_code": usage.exit_code})
        return int(usage.exit_code)
    except Exception as error:
        if as_json:  # nobody's error is swallowed, but who reads JSON is told
            _print_json({"status": "failed", "code": "failed", "message": f"{type(error).__name__}: {error}", "exit_code": 1})
        raise
    if done == 130:
        typer.echo("interrupted", err=True)
        if as_json:
            _print_json({"status": "interrupted", "code": "interrupted", "message": "interrupted", "exit_code": 130})
    return done


# Typer has a Click of its own and exports of its errors only this one's descendants.
_CLICK: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _report(error: HansaError, *, debug: bool) -> None:
    from hansa.errors import ClientError

    if debug:
        import traceback

        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, ClientError) and error.trace:
        typer.echo(error.trace.rstrip(), err=True)
    typer.echo(f"error: {error}", err=True)


def _report_json(error: HansaError) -> None:
    status = {3: "refused", 130: "interrupted"}.get(error.exit_code, "failed")
    where = {name: getattr(error, name) for name in ("job", "run", "round", "site", "task", "expected", "got")}
    known = {name: value if isinstance(value, int) else str(value) for name, value in where.items() if value is not None}
    _print_json(
        {
            "status": status,
            "code": error.code,
            "message": error.message or str(error),
            "path": error.path,
            "hint": error.hint,
            "exit_code": error.exit_code,
            **known,
        }
    )


def _print_json(content: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps({"path": None, "hint": None, **content}))


if __name__ == "__main__":
    sys.exit(main())
