import json
from pathlib import Path

import numpy as np
import pytest

from hansa.cli import main
from hansa.record.folder import RunFolder
from hansa.record.info import Reference, RunInfo

JOB = """
[data]
source = "heart"
[learner]
kind = "numpy.softmax"
classes = 2
features = 2
[algorithm]
name = "fedavg"
rounds = 1
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text(JOB)
    folder = RunFolder.create(tmp_path / "run", "toy")
    folder.write_info(RunInfo(id="run", job="toy", reference=Reference(path=str(tmp_path / "job.toml"))))
    from hansa.core.rng import generator
    from hansa.evaluation.commands import _learner

    model = _learner(folder.info).init(generator(0))
    folder.save_model(model)
    return folder.path


def test_predictions_of_a_model_of_zeros_are_even(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "p.csv"
    data.write_text("a,label,b\n1,x,2\n3,y,4\n")
    assert main(["predict", str(run), "--data", str(data), "--drop", "label", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"] == [[0, 0.5, 0.5], [0, 0.5, 0.5]]
    assert out.read_text() == "row,class,score_0,score_1\n0,0,0.5,0.5\n1,0,0.5,0.5\n"


def test_an_npz_file_is_read_and_a_table_printed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((7, 2), np.float32))
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.npz"), "--out", str(tmp_path / "p.csv")]) == 0
    assert "7 rows, written to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,x\n", "not a number"),
        ("a,b\n1\n", "does not fit the header"),
        ("a,b,c\n1,2,3\n", "do not fit the model"),
    ],
)
def test_rows_that_do_not_fit_are_wrong_input(
    run: Path, tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text(text)
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "p.csv")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_a_run_without_a_best_model_or_a_reference_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv"), "--best"]) == 2
    assert "no such model" in capsys.readouterr().err
    RunFolder.open(run).write_info(RunInfo(id="run", job="toy"))
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv")]) == 2
    assert "started from Python" in capsys.readouterr().err
