import json
import os
import subprocess
import sys
from typing import Annotated

import pytest
import typer

from hansa import cli, registry
from hansa.errors import ClientError, ConfigError, DataError, HansaError, Interrupted, MissingExtraError, RefusedError, StorageError


def greet(name: str = "world") -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


def fail_with(error: BaseException) -> object:
    def command() -> None:
        raise error

    return command


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The commands that the group finds, in place of the installed entry points."""
    found: dict[str, object] = {"greet": greet}

    def find(group: str, name: str) -> object:
        if name not in found:
            raise ConfigError(f"no command is called {name!r}", hint=registry.nearest(name, sorted(found)))
        target = found[name]
        if isinstance(target, ImportError):
            raise target
        return target

    monkeypatch.setattr(registry, "names", lambda group: sorted(found))
    monkeypatch.setattr(registry, "find", find)
    return found


def test_a_plain_function_is_a_command(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["greet", "--name", "Lübeck"]) == 0
    assert capsys.readouterr().out == "hello Lübeck\n"


def test_a_typer_app_is_a_group(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command("hi")(greet)
    app.command("ho")(greet)
    commands["say"] = app
    assert cli.main(["say", "hi"]) == 0
    assert capsys.readouterr().out == "hello world\n"
    assert cli.main(["say", "--help"]) == 0
    assert "--install-completion" not in capsys.readouterr().out


def test_the_help_lists_each_command_with_its_first_line_and_an_example(
    commands: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "greet" in text
    assert "Say hello." in text
    assert "hansa run job.toml" in text


def test_a_command_that_cannot_be_imported_leaves_the_others_usable(
    commands: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    commands["odd"] = ModuleNotFoundError("No module named 'odd'")
    assert cli.main(["--help"]) == 0
    assert "cannot be imported" in capsys.readouterr().out
    assert cli.main(["greet"]) == 0
    assert cli.main(["odd", "--any", "thing"]) == 2
    assert "No module named 'odd'" in capsys.readouterr().err


def test_a_missing_extra_is_named(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    commands["odd"] = MissingExtraError("torch", extra="torch")
    assert cli.main(["odd"]) == 2
    assert "pip install 'hansa[torch]'" in capsys.readouterr().err


def test_an_entry_point_to_something_else_is_refused(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    commands["odd"] = 3
    assert cli.main(["odd"]) == 2
    assert "neither a function nor a Typer app" in capsys.readouterr().err


def test_an_unknown_command_suggests_the_nearest(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gret"]) == 2
    assert "did you mean 'greet'?" in capsys.readouterr().err


def test_an_unknown_option_is_wrong_input(commands: dict[str, object]) -> None:
    assert cli.main(["greet", "--colour"]) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("site 'south' has no rows"), 2),
        (RefusedError("the site's policy says no"), 3),
        (StorageError("the disk is full"), 5),
        (Interrupted("stopped after round 3"), 130),
        (HansaError("something went wrong"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_exit_code(
    commands: dict[str, object], capsys: pytest.CaptureFixture[str], error: HansaError, code: int
) -> None:
    commands["fail"] = fail_with(error)
    assert cli.main(["fail"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {error}\n")


@pytest.mark.parametrize("args", [["fail", "--debug"], ["--debug", "fail"]])
def test_debug_shows_the_traceback(commands: dict[str, object], capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    commands["fail"] = fail_with(DataError("no rows"))
    assert cli.main(args) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_site_s_own_traceback_is_shown(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    commands["fail"] = fail_with(
        ClientError("the site's code raised", site="north", round=2, trace="ZeroDivisionError: division by zero\n")
    )
    assert cli.main(["fail"]) == 1
    assert capsys.readouterr().err == (
        "ZeroDivisionError: division by zero\nerror: the site's code raised; at round 2, site 'north'\n"
    )


def test_ctrl_c_is_130(commands: dict[str, object]) -> None:
    commands["fail"] = fail_with(KeyboardInterrupt())
    assert cli.main(["fail"]) == 130


def test_ctrl_c_says_so_in_one_line(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    commands["fail"] = fail_with(KeyboardInterrupt())
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


Json = Annotated[bool, typer.Option("--json")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            DataError("no rows", path="a.csv", hint="add some", got=0, site="north"),
            {"status": "failed", "code": "data", "path": "a.csv", "hint": "add some", "exit_code": 2, "got": 0, "site": "north"},
        ),
        (RefusedError("no"), {"status": "refused", "code": "refused", "exit_code": 3, "message": "no", "path": None}),
        (Interrupted("stop", run="runs/a"), {"status": "interrupted", "code": "interrupted", "exit_code": 130, "run": "runs/a"}),
        (KeyboardInterrupt(), {"status": "interrupted", "exit_code": 130}),
    ],
)
def test_with_json_an_error_is_one_object_on_stdout_as_well(
    commands: dict[str, object], capsys: pytest.CaptureFixture[str], error: BaseException, told: dict[str, object]
) -> None:
    def fail(as_json: Json = False) -> None:
        raise error

    commands["fail"] = fail
    assert cli.main(["fail", "--json"]) == told["exit_code"]
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert {key: found[key] for key in told} == told
    assert found.keys() >= {"status", "code", "message", "path", "hint", "exit_code"}
    assert err.count("\n") == 1


def test_with_json_wrong_usage_is_one_object_too(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["greet", "--colour", "--json"]) == 2
    out, err = capsys.readouterr()
    assert (json.loads(out)["code"], json.loads(out)["exit_code"]) == ("usage", 2)
    assert "--colour" in json.loads(out)["message"]
    assert "No such option" in err


def test_with_json_what_nobody_foresaw_is_told_and_raised(commands: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(as_json: Json = False) -> None:
        raise ZeroDivisionError("by zero")

    commands["fail"] = fail
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail", "--json"])
    assert json.loads(capsys.readouterr().out)["message"] == "ZeroDivisionError: by zero"


def test_what_is_printed_quietly_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with cli.quiet():
        typer.echo("python")
        os.write(1, b"library\n")
        subprocess.run(["echo", "child"], check=True)
    with cli.quiet(False):
        typer.echo("asked for")
    assert capfd.readouterr() == ("asked for\n", "python\nlibrary\nchild\n")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hansa 0.")


def test_the_help_imports_neither_arrays_nor_frameworks() -> None:
    code = (
        "import sys; from hansa import cli; cli.main(['--help']); "
        "sys.exit(' '.join(m for m in ('numpy', 'torch', 'sklearn', 'matplotlib') if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
