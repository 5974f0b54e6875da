"""`hansa provision` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.provision.foreign.offices import AUTHZ, CLARA, place
from typer.testing import CliRunner

from hansa.errors import ConfigError, InputError, RefusedError
from hansa.provision.commands import app
from hansa.runtime.config import load_kit

PROJECT = """
name = "hearts"
[server]
host = "localhost"
[[organisations]]
name = "Uni"
[[sites]]
name = "north"
org = "Uni"
[[people]]
name = "alice"
org = "Uni"
role = "project_admin"
"""


def typed(*args: str, stdin: str | None = None) -> str:
    result = CliRunner().invoke(app, list(args), input=stdin, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def told(*args: str) -> dict[str, Any]:
    answer = json.loads(typed(*args, "--json"))
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project.toml").write_text(PROJECT)
    return tmp_path / "project.toml"


def test_a_project_file_alone_is_enough_and_passwords_are_printed_once(project: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "fed")
    shown = typed(str(project), "--out", out)
    assert shown.count("   password ") == 3
    assert f"{out}/zips/north.zip" in shown
    again = typed(str(project), "--out", out)
    assert "password" not in again
    assert "Nothing to do" in again


def test_json_is_one_object_with_kits_and_passwords(project: Path, tmp_path: Path) -> None:
    done = told("new", str(project), "--out", str(tmp_path / "fed"), "--central-keys")
    assert (done["project"], done["version"], done["changed"]) == ("hearts", 1, True)
    assert [kit["name"] for kit in done["kits"]] == ["north", "alice", "server"]
    north = done["kits"][0]
    unpacked = typed("unpack", north["zip"], "--out", str(tmp_path / "site"), stdin=f"{north['password']}\n").strip()
    assert load_kit(unpacked).enrolled


def test_the_roster_is_changed_by_commands(project: Path, tmp_path: Path) -> None:
    fed = str(tmp_path / "fed")
    typed(str(project), "--out", fed)
    versions = [
        told("add-site", "west", "--org", "Uni", "--dir", fed)["version"],
        told("add-user", "bob", "--org", "Uni", "--role", "lead", "--dir", fed)["version"],
        told("rotate", "west", "--dir", fed)["version"],
        told("revoke", "west", "--reason", "left", "--dir", fed)["version"],
        told("revoke", "west", "--dir", fed)["version"],
        told("revoke", "--serial", "ab12", "--dir", fed)["version"],
    ]
    assert versions == [2, 3, 4, 5, 5, 6]


def test_wrong_input_is_an_error_of_ours(project: Path, tmp_path: Path) -> None:
    fed = str(tmp_path / "fed")
    made = told(str(project), "--out", fed)
    run = CliRunner()
    assert isinstance(run.invoke(app, ["add-site", "west", "--org", "Uni", "--dir", str(tmp_path)]).exception, InputError)
    assert isinstance(run.invoke(app, ["add-site", "west", "--org", "U", "--dir", fed]).exception, ConfigError)
    assert isinstance(run.invoke(app, ["revoke", "--dir", fed]).exception, InputError)
    wrong = run.invoke(app, ["unpack", made["kits"][0]["zip"], "--out", str(tmp_path)], input="wrong\n")
    assert isinstance(wrong.exception, RefusedError)
    assert run.invoke(app, ["add-user", "bob", "--org", "Uni", "--role", "root", "--dir", fed]).exit_code == 2


def test_help_lists_the_commands() -> None:
    shown = typed("--help")
    assert all(name in shown for name in ("new", "add-site", "add-user", "revoke", "rotate", "unpack"))


def test_another_systems_project_is_looked_at_and_then_provisioned(tmp_path: Path) -> None:
    theirs = place(tmp_path, CLARA, AUTHZ)
    shown = typed(str(theirs), "--check")
    assert "no homomorphic encryption" in shown
    assert "Nothing was written" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authz_config.json", "project.yml"]
    told_of = told(str(theirs), "--check")
    assert told_of["read_as"] == "Clara Train"
    assert {key["fate"] for key in told_of["keys"]} == {"became", "not used", "decide"}
    fed = tmp_path / "fed"
    shown = typed(str(theirs), "--out", str(fed))
    assert "look at" in shown
    assert shown.count("   password ") == 10
    assert "# authors" in (fed / "kits" / "client1" / "site.toml").read_text()
    again = told(str(fed / "project.toml"), "--out", str(fed))
    assert again["changed"] is False


def test_options_for_other_systems_are_refused_with_our_own_file(project: Path, tmp_path: Path) -> None:
    run = CliRunner()
    assert isinstance(run.invoke(app, [str(project), "--check", "--role", "a=lead"]).exception, InputError)
    assert run.invoke(app, [str(project)]).exit_code == 2
    theirs = place(tmp_path, CLARA)
    for wrong in ("admin@example.org", "admin@example.org=root", "=lead"):
        assert isinstance(run.invoke(app, [str(theirs), "--check", "--role", wrong]).exception, ConfigError)
    checked = run.invoke(app, [str(theirs), "--check"])
    assert "nobody@org2.example" in checked.stdout  # the table stands before the error
    assert isinstance(checked.exception, ConfigError)
