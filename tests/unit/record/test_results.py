"""What a workflow gave, as files and for people."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.workflow import Outcome
from hansa.errors import SpecError, StorageError
from hansa.record import matrix, results
from hansa.record.commands import compare, plot, show
from hansa.record.folder import RunFolder
from hansa.record.info import RunInfo

MATRIX: dict[str, Any] = {
    "part": "test",
    "metrics": {"auc": True, "loss": False},
    "models": ["final", "<b> (local)"],
    "sites": ["north", "<b>"],
    "cells": {"final": {"north": {"auc": 0.9, "loss": 0.1}, "<b>": {"auc": None, "loss": 0.5}}, "<b> (local)": {}},
    "pooled": {"final": {"auc": 0.8, "loss": 0.2}, "<b> (local)": {}},
    "sha256": {"final": "ab"},
    "missing": [{"model": "<b> (local)", "site": None, "code": "refused", "message": "its own model stays [local_models]"}],
    "kind": "cross_site",
}


class Counts(NamedTuple):
    rows: np.int64
    mean: Any


@dataclass
class Told:
    name: str
    counts: Counts


def folder(tmp_path: Path, value: object, name: str = "r") -> RunFolder:
    made = RunFolder.create(tmp_path / name, "job")
    made.write_info(RunInfo(id=made.id, job="job", state="running", slots=["north", "<b>"]))
    assert results.save(made, value) == []
    assert made.finish("completed") == []
    return made


def test_a_result_becomes_json_by_the_names_of_its_fields_and_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    made = folder(tmp_path, Told("ages", Counts(np.int64(3), np.array([1.5, np.nan], np.float32))))
    assert json.loads((made.path / "result.json").read_text()) == {"name": "ages", "counts": {"rows": 3, "mean": [1.5, None]}}
    assert not (made.path / "matrix.json").exists()


def test_what_json_cannot_hold_is_named_and_the_run_still_ends(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "r", "job")
    made.write_info(RunInfo(id=made.id, job="job"))
    (note,) = results.save(made, {"nets": [object()]})
    assert "nets/0" in note
    assert "object" in note
    with pytest.raises(SpecError):
        results.plain(np.zeros(results.MOST + 1))
    assert not (made.path / "result.json").exists()


def test_each_step_of_a_sequence_is_written_for_itself(tmp_path: Path) -> None:
    model = {"w": np.ones(2)}
    made = folder(tmp_path, (Outcome(model, model, 1, 1, None), {"rows": 3}, MATRIX))
    names = {path.name for path in made.path.iterdir()}
    assert {"model.safetensors", "best.safetensors", "result.json", "matrix.json", "matrix.png", "report.html"} <= names
    assert results.load(made.path) == (MATRIX, {"rows": 3})
    assert results.outcome_of((1, None)) is None


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "matrix.json").write_text("{")
    with pytest.raises(StorageError, match=r"matrix\.json"):
        results.load(tmp_path)


def test_a_matrix_is_a_table_a_metric_and_says_what_is_missing() -> None:
    auc, loss, missing = matrix.tables(MATRIX)
    assert auc == (
        "auc on test rows, higher is better",
        ["model", "north", "<b>", "all sites"],
        [["final", "0.9000", "undefined", "0.8000"], ["<b> (local)", "refused", "refused", "–"]],  # noqa: RUF001
    )
    assert loss[0] == "loss on test rows, lower is better"
    assert missing[2] == [["<b> (local)", "every site", "refused", "its own model stays [local_models]"]]


def test_the_page_has_the_matrix_in_colours_escaped_and_darker_is_better_whatever_the_metric(tmp_path: Path) -> None:
    page = (folder(tmp_path, MATRIX).path / "report.html").read_text()
    assert "<b> (local)" not in page
    assert "&lt;b&gt; (local)" in page
    assert "its own model stays [local_models]" in page
    assert '<td style="background:#1f5fa8;color:#ffffff">0.1000</td>' in page  # the lowest loss
    assert '<td style="background:#f3f6fa;color:#14213d">0.5000</td>' in page
    assert '<td style="background:#e4e4e4;color:#14213d">refused</td>' in page


def test_a_heat_map_is_drawn_of_any_matrix_even_of_an_empty_one() -> None:
    for content in (MATRIX, {**MATRIX, "metrics": {"auc": True}}, {**MATRIX, "cells": {}, "pooled": {}}):
        assert matrix.heat_map(content).startswith(b"\x89PNG")


def test_runs_show_compare_and_plot_know_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path, MATRIX, "a")
    folder(tmp_path, {"kind": "statistics", "rows": 7, "columns": {"age": {"mean": 54.1, "count": 7}}}, "b")
    show("a", root=tmp_path)
    assert ["final", "0.9000", "undefined", "0.8000"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    show("b", root=tmp_path)
    shown = capsys.readouterr().out
    assert "age  54.10  7" in shown
    assert "statistics" in shown
    show("a", root=tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["matrix"] == MATRIX
    compare(["a", "b"], root=tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["results"] == [{"final auc": 0.8, "final loss": 0.2}, {"rows": 7.0}]
    compare(["a", "b"], root=tmp_path)
    assert "final auc   0.8000" in capsys.readouterr().out
    plot(["a"], root=tmp_path, out=tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "a" / "matrix.png").read_bytes()
