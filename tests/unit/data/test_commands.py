"""`hansa data inspect`: a table or one JSON object, and a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hansa.data.commands import app
from hansa.errors import ConfigError, DataError, MissingExtraError

TWO = """from_arrays({
    "north": Rows(np.zeros((3, 1)), np.array([0, 0, 0]), classes=("well", "ill")),
    "south": (np.zeros((1, 1)), np.array([1])),
}, split=(1, 0, 0))"""


def job_file(folder: Path, data: str = TWO) -> str:
    """A job in Python with its data beside it."""
    lines = [
        "import numpy as np",
        "import hansa as hs",
        "from hansa.data.federated import Rows, from_arrays",
        'job = hs.Job("two", lambda federation: None, data="rows")',
        f"data = {data}" if data else "",
    ]
    (folder / "two.py").write_text("\n".join(lines))
    return f"{folder / 'two.py'}:job"


def test_a_job_file_is_read_with_its_overrides(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = ["[data]", 'source = "heart"', "[learner]", 'kind = "numpy.logistic"', "[algorithm]", 'name = "fedavg"', "rounds = 1"]
    (tmp_path / "job.toml").write_text("\n".join(lines))
    given = ["inspect", str(tmp_path / "job.toml"), "--out", str(tmp_path / "a.png"), "--json"]
    shown = json.loads(CliRunner().invoke(app, given).stdout)
    assert [site["site"] for site in shown["sites"]] == ["Cleveland", "Hungary", "Switzerland", "VA Long Beach"]
    assert shown["rows"] == 920
    assert isinstance(CliRunner().invoke(app, [*given, "--set", "data.sorce=1"]).exception, ConfigError)


def test_json_is_one_object_with_rows_labels_and_skew(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.png"
    result = CliRunner().invoke(app, ["inspect", job_file(tmp_path), "--json", "--out", str(out)])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["sites"][0] == {
        "site": "north",
        "rows": {"train": 3, "valid": 0, "test": 0},
        "labels": {"0": 3},
        "label_skew": pytest.approx(0.25),
    }
    assert shown["rows"] == 4
    assert shown["classes"] == ["well", "ill"]
    assert shown["quantity_skew"] == pytest.approx(0.25)
    assert shown["picture"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_without_a_terminal_each_site_is_one_plain_line(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(app, ["inspect", job_file(tmp_path), "--out", str(tmp_path / "a.png")])
    assert result.stdout.splitlines()[:2] == [
        "site north  train 3  valid 0  test 0  well 3  ill 0  label skew 0.25",
        "site south  train 1  valid 0  test 0  well 0  ill 1  label skew 0.75",
    ]
    assert "quantity skew 0.25" in result.stdout


def test_many_labels_are_summed_up_in_two_columns(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    job = job_file(tmp_path, 'from_arrays({"a": (np.zeros((8, 1)), np.array([0, 1, 2, 3, 4, 4, 4, 4]))}, split=(1, 0, 0))')
    result = CliRunner().invoke(app, ["inspect", job, "--out", str(tmp_path / "a.png")])
    assert result.stdout.splitlines()[0] == "site a  train 8  valid 0  test 0  labels 5  most frequent 4 (50%)  label skew 0.00"


def test_on_a_terminal_a_table_is_drawn_and_a_name_is_never_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("FORCE_COLOR", "1")
    job = job_file(tmp_path, 'from_arrays({"[bold]west[/bold]": (np.zeros((1, 1)), np.array([0]))}, split=(1, 0, 0))')
    result = CliRunner().invoke(app, ["inspect", job, "--out", str(tmp_path / "a.png")])
    assert "│ [bold]west[/bold] │" in result.stdout


def test_the_picture_is_named_after_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["inspect", job_file(tmp_path)]).exit_code == 0
    assert (tmp_path / "two-data.png").exists()


def test_without_matplotlib_a_line_says_so_unless_the_picture_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    job = job_file(tmp_path)
    result = CliRunner().invoke(app, ["inspect", job, "--json"])
    assert json.loads(result.stdout)["picture"] is None
    assert "hansa[plot]" in result.stderr
    assert isinstance(CliRunner().invoke(app, ["inspect", job, "--out", "a.png"]).exception, MissingExtraError)


def test_a_python_job_without_data_is_told_how_to_name_them(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ["inspect", job_file(tmp_path, data="")]).exception
    assert isinstance(error, DataError)
    assert "--data file.py:name" in str(error)
