import json
from pathlib import Path

import msgspec
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


NAMED = [
    ("b,a\n4,2\n", 0, ""),
    ("a,c,b\n1,2,3\n", 2, "not trained on these columns; at path {path}; got c (leave it out with --drop c)"),
    ("a,bb\n1,2\n", 2, "lacks columns that the model was trained on; at path {path}; got b (did you mean 'bb'?)"),
    ("a,b,a\n1,2,3\n", 2, "a column is there twice"),
]


@pytest.mark.parametrize(("text", "code", "says"), NAMED)
def test_columns_are_matched_by_name_where_the_run_knows_them(
    run: Path, tmp_path: Path, text: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows = RunFolder.open(run), tmp_path / "rows.csv"
    folder.write_info(msgspec.structs.replace(folder.info, settings={"features": ["a", "b"]}))
    folder.save_model({"weight": np.array([[0, 1], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)})
    rows.write_text(text)
    assert main(["predict", str(run), "--data", str(rows), "--out", str(tmp_path / "p.csv")]) == code
    assert says.format(path=rows) in capsys.readouterr().err
    if not code:
        score = float((tmp_path / "p.csv").read_text().split(",")[-1])
        assert score == pytest.approx(1 / (1 + np.exp(-2.0)))  # of a = 2, though b stands first


def test_the_data_that_gave_the_shape_are_not_needed(run: Path, tmp_path: Path) -> None:
    folder = RunFolder.open(run)
    bare = JOB.replace("classes = 2\nfeatures = 2\n", "").replace('"heart"', '"csv"\npath = "gone.csv"\nlabel = "y"')
    (tmp_path / "job.toml").write_text(bare)
    folder.write_info(msgspec.structs.replace(folder.info, settings={"shape": {"classes": 2, "features": 2}}))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "p.csv")]) == 0


@pytest.mark.parametrize("text", ["", "a,b\n"])
def test_a_file_without_rows_says_so(run: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text(text)
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "p.csv")]) == 2
    assert "no rows to predict" in capsys.readouterr().err


def test_a_run_without_a_best_model_or_a_reference_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv"), "--best"]) == 2
    assert "no such model" in capsys.readouterr().err
    RunFolder.open(run).write_info(RunInfo(id="run", job="toy"))
    assert main(["predict", str(run), "--data", str(tmp_path / "rows.csv")]) == 2
    assert "started from Python" in capsys.readouterr().err
