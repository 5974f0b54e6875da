"""A job and its data from what a person names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa import tensors
from hansa.config.loading import load, load_job, with_init
from hansa.core.job import Job
from hansa.errors import ConfigError

JOB = """
import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.learning.fedavg import fedavg
from hansa.testing.fakes import rows
from hansa.data.federated import from_arrays

job = hs.Job("own", fedavg(softmax(classes=2, features=4), rounds=1), data={label!r}, seed=5)
"""
DATA = """
seen = []

def data(seed=None, folder=None):
    seen.append((seed, folder))
    return from_arrays({{"a": rows(8)}})
"""
TABLE = """
[data]
source = "csv"
path = "rows.csv"
label = "y"
[partition]
kind = "iid"
sites = 2
[learner]
kind = "numpy.softmax"
[algorithm]
name = "fedavg"
rounds = 1
"""


def own(folder: Path, *, label: str = "data", data: str = DATA) -> str:
    (folder / "own.py").write_text((JOB + data).format(label=label))
    return f"{folder / 'own.py'}:job"


COUNTED = (
    DATA
    + """
from pathlib import Path
runs = Path(__file__ + ".runs")
runs.write_text("x" + (runs.read_text() if runs.exists() else ""))
"""
)


def test_a_job_in_python_and_its_data_come_from_one_run_of_the_file(tmp_path: Path) -> None:
    loaded = load(own(tmp_path, data=COUNTED))
    assert (tmp_path / "own.py.runs").read_text() == "x"
    assert list(loaded.data["data"].sites) == ["a"]
    assert list(loaded.settings) == ["code"]


def test_a_function_of_data_is_given_the_jobs_seed(tmp_path: Path) -> None:
    path = own(tmp_path)
    load(path, overrides=["seed=9"], environment=str(tmp_path))
    from hansa.references import load_reference

    assert load_reference(path.replace(":job", ":seen")) == [(9, tmp_path)]


def test_a_source_that_needs_arguments_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'csv' needs arguments.*: path, label.*define `data`"):
        load(own(tmp_path, label="csv", data=""))


def test_what_the_data_are_is_told_and_the_job_alone_needs_them_no_more(tmp_path: Path) -> None:
    job, rows = tmp_path / "job.toml", tmp_path / "rows.csv"
    job.write_text(TABLE)
    rows.write_text("b,a,y\n" + "1,2,0\n3,4,1\n" * 4)
    loaded = load(str(job))
    told = loaded.settings
    assert (told["features"], told["shape"]) == (("b", "a"), {"features": 2, "classes": 2})
    assert told["files"]["rows.csv"]["bytes"] == rows.stat().st_size
    rows.unlink()
    assert load_job(str(job), shape=told["shape"]).hash == loaded.job.hash


SHAPES: list[tuple[dict[str, Any], str, str]] = [
    ({"weight": np.zeros((4, 3), np.float32), "bias": np.zeros(2, np.float32)}, "weight", "float32[4,2]"),
    ({"weight": np.zeros((4, 2), np.float64), "bias": np.zeros(2, np.float32)}, "weight", "float64"),
    ({"weight": np.zeros((4, 2), np.float32)}, "bias", "nothing"),
    ({"weight": np.zeros((4, 2), np.float32), "bias": np.zeros(2, np.float32), "more": np.zeros(1)}, "more", "no such leaf"),
    ({"weight": np.full((4, 2), np.nan, np.float32), "bias": np.zeros(2, np.float32)}, "weight", "not finite"),
]


@pytest.mark.parametrize(("tree", "leaf", "says"), SHAPES)
def test_a_model_to_start_from_that_does_not_fit_is_named(tmp_path: Path, tree: dict[str, Any], leaf: str, says: str) -> None:
    file = tmp_path / "model.safetensors"
    tensors.save_tree(file, tree)
    with pytest.raises(ConfigError) as caught:
        load(own(tmp_path), init=file)
    assert caught.value.path == f"{file}: {leaf}"
    assert says in str(caught.value)


def test_a_model_to_start_from_that_is_not_there_or_damaged_is_wrong_input(tmp_path: Path) -> None:
    job = load_job(own(tmp_path))
    (tmp_path / "torn").write_bytes(b"123")
    for file in (tmp_path / "none", tmp_path / "torn", tmp_path):
        with pytest.raises(ConfigError, match="no model to start from") as caught:
            with_init(job, file)
        assert caught.value.path == str(file)


def test_a_standardised_job_starts_from_a_model_with_statistics(tmp_path: Path) -> None:
    from hansa.adapters.numpy import softmax
    from hansa.learning.fedavg import fedavg

    job = Job("own", fedavg(softmax(classes=2, features=4), rounds=1, standardise=True))
    tree = {"weight": np.zeros((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    tensors.save_tree(tmp_path / "bare", tree)
    tensors.save_tree(tmp_path / "whole", {**tree, "x.mean": np.zeros(4), "x.scale": np.ones(4)})
    with pytest.raises(ConfigError, match="no statistics of features"):
        with_init(job, tmp_path / "bare")
    workflow: Any = with_init(job, tmp_path / "whole").workflow
    assert sorted(workflow.init) == ["bias", "weight", "x.mean", "x.scale"]
