import fcntl
import json
from pathlib import Path

import msgspec
import pytest

from hansa.cli import main
from hansa.record.folder import RunFolder
from hansa.record.info import RunInfo
from hansa.record.lock import LOCK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, lr in (("one", 0.1), ("two", 0.2)):
        run = RunFolder.create(tmp_path / name, "digits")
        run.write_info(
            RunInfo(id=name, job="digits", slots=["a"], rounds=2, started=f"2025-01-01T00:00:0{len(name)}", settings={"lr": lr})
        )
        for n in (1, 2):
            run.append_round(
                {"round": n, "global": {"loss": lr / n}, "sites": {"a": {"loss": lr / n}}, "lost": ["a"] if n == 2 else []}
            )
    return tmp_path


def run(*args: str) -> int:
    return main(["runs", *args])


def test_list_gives_one_json_object(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--root", str(root), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert sorted(r["id"] for r in content["runs"]) == ["one", "two"]
    assert content["runs"][0]["metrics"] in ({"loss": 0.05}, {"loss": 0.1})


def test_list_shows_the_others_when_one_run_is_of_a_newer_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "two" / "run.json").write_text('{"format": 99}')
    assert run("list", "--root", str(root)) == 0
    got = capsys.readouterr()
    assert "one" in got.out
    assert "format 99" in got.err


def test_show_finds_a_run_by_the_beginning_of_its_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "on", "--root", str(root), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["metrics"]["loss"]["global"] == {"last": 0.05, "best": 0.05, "best_round": 2}
    assert content["lost"] == [{"round": 2, "site": "a"}]
    assert run("show", str(root / "one")) == 0
    assert "round 2: a lost" in capsys.readouterr().out


def test_an_unknown_run_is_wrong_input_and_the_nearest_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "onne", "--root", str(root)) == 2
    assert "did you mean 'one'?" in capsys.readouterr().err


def test_compare_names_the_settings_that_differ(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compare", "one", "two", "--root", str(root), "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["settings"] == {"lr": [0.1, 0.2]}
    assert content["metrics"][1]["loss"]["last"] == 0.1
    assert run("compare", "one", "two", "--root", str(root)) == 0
    assert "settings that differ" in capsys.readouterr().out


def test_list_shows_what_is_done_of_what_was_planned_and_who_is_gone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = RunFolder.open(root / "two")
    two.write_info(msgspec.structs.replace(two.info, rounds=5, state="running"))
    assert run("list", "--root", str(root)) == 0
    assert "running" in capsys.readouterr().out
    (root / "two" / LOCK).write_text("1")
    assert run("list", "--root", str(root)) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("two"))
    assert line.split()[2:4] == ["interrupted", "2/5"]
    assert run("show", "two", "--root", str(root), "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "interrupted"
    with (root / "two" / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert two.state == "running"


def test_curves_are_png_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plot", "one", "--root", str(root), "--out", str(root / "x.jpg")) == 2
    assert "x.png" in capsys.readouterr().err
    assert not (root / "x.jpg").exists()


def test_plot_writes_one_figure_of_several_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = root / "both.png"
    assert run("plot", "one", "two", "--root", str(root), "--out", str(out), "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out)["out"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")
