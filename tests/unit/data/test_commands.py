"""`hansa data inspect`: a table or one JSON object, and a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hansa import config
from hansa.core.protocols import FederatedData
from hansa.data.commands import app
from hansa.data.federated import Rows, from_arrays
from hansa.errors import HansaError, JobReferenceError, MissingExtraError


class Job:
    """Two sites: three rows of label 0, and one of label 1."""

    def federated(self) -> FederatedData:
        north = Rows(np.zeros((3, 1)), np.array([0, 0, 0]), classes=("well", "ill"))
        return from_arrays({"north": north, "south": (np.zeros((1, 1)), np.array([1]))}, split=(1, 0, 0))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the job file's reader was asked for; it answers with the job above."""
    calls: list[object] = []

    def read(path: Path, *, overrides: Sequence[str], folder: Path | None) -> Job:
        calls.append((path, list(overrides), folder))
        return Job()

    monkeypatch.setattr(config, "read", read, raising=False)
    return calls


def test_json_is_one_object_with_rows_labels_and_skew(asked: list[object], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.png"
    given = ["inspect", "job.toml", "--json", "--out", str(out), "--data", str(tmp_path), "--set", "partition.sites=2"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0
    assert asked == [(Path("job.toml"), ["partition.sites=2"], tmp_path)]
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


@pytest.mark.usefixtures("asked")
def test_without_a_terminal_each_site_is_one_plain_line(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(app, ["inspect", "job.toml", "--out", str(tmp_path / "a.png")])
    assert result.stdout.splitlines()[:2] == [
        "site north  train 3  valid 0  test 0  well 3  ill 0  label skew 0.25",
        "site south  train 1  valid 0  test 0  well 0  ill 1  label skew 0.75",
    ]
    assert "quantity skew 0.25" in result.stdout


def test_many_labels_are_summed_up_in_two_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    wide = from_arrays({"a": (np.zeros((8, 1)), np.array([0, 1, 2, 3, 4, 4, 4, 4]))}, split=(1, 0, 0))
    monkeypatch.setattr(Job, "federated", lambda self: wide)
    monkeypatch.setattr(config, "read", lambda path, *, overrides, folder: Job(), raising=False)
    result = CliRunner().invoke(app, ["inspect", "job.toml", "--out", str(tmp_path / "a.png")])
    assert result.stdout.splitlines()[0] == "site a  train 8  valid 0  test 0  labels 5  most frequent 4 (50%)  label skew 0.00"


@pytest.mark.usefixtures("asked")
def test_on_a_terminal_a_table_is_drawn_and_a_name_is_never_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("FORCE_COLOR", "1")
    odd = from_arrays({"[bold]west[/bold]": (np.zeros((1, 1)), np.array([0]))}, split=(1, 0, 0))
    monkeypatch.setattr(Job, "federated", lambda self: odd)
    result = CliRunner().invoke(app, ["inspect", "job.toml", "--out", str(tmp_path / "a.png")])
    assert "│ [bold]west[/bold] │" in result.stdout


@pytest.mark.usefixtures("asked")
def test_the_picture_is_named_after_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["inspect", "jobs/heart.toml"]).exit_code == 0
    assert (tmp_path / "heart-data.png").exists()


@pytest.mark.usefixtures("asked")
def test_without_matplotlib_a_line_says_so_unless_the_picture_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = CliRunner().invoke(app, ["inspect", "job.toml", "--json"])
    assert json.loads(result.stdout)["picture"] is None
    assert "hansa[plot]" in result.stderr
    assert isinstance(CliRunner().invoke(app, ["inspect", "job.toml", "--out", "a.png"]).exception, MissingExtraError)


def test_a_python_job_is_refused_with_the_reason() -> None:
    error = CliRunner().invoke(app, ["inspect", "digits.py:job"]).exception
    assert isinstance(error, JobReferenceError)
    assert isinstance(error, HansaError)
    assert "given its data when it is run" in str(error)
