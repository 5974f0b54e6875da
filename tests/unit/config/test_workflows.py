"""Job files of workflows beside the synchronous round."""

import hashlib
from pathlib import Path

import pytest

from hansa.config.jobfile import read
from hansa.config.loading import load, load_job
from hansa.errors import ConfigError
from hansa.learning.cross_site import CrossSite, Matrix
from hansa.runtime.jobs.build import build
from hansa.runtime.jobs.bundle import open_bundle
from hansa.simulation.engine import simulate

BASE = '[data]\nsource = "heart"\n'
LEARNER = '[learner]\nkind = "numpy.logistic"\nlr = 0.1\n'


def job(tmp_path: Path, text: str, name: str = "job.toml") -> str:
    (tmp_path / name).write_text(BASE + text)
    return str(tmp_path / name)


def test_cyclic_then_evaluate_and_cross_site_of_its_model(tmp_path: Path) -> None:
    trained = load(job(tmp_path, LEARNER + '[algorithm]\nname = "cyclic"\nrounds = 2\norder = "random"\nstandardise = true\n'))
    simulate(trained.job, trained.data, out=tmp_path / "first")
    one = load(
        job(tmp_path, LEARNER + '[algorithm]\nname = "evaluate"\nmodel = "first"\npart = "train"\n[metrics]\nnames = ["auc"]\n')
    )
    evaluated = simulate(one.job, one.data).value
    assert isinstance(evaluated, Matrix)
    assert evaluated.pooled["model"]["auc"] > 0.8
    crossed = load(
        job(tmp_path, LEARNER + '[algorithm]\nname = "cross_site"\npart = "train"\nmodels = {a = "first", b = "first"}\n')
    )
    matrix = simulate(crossed.job, crossed.data).value
    assert matrix.models == ["a", "b"]
    assert matrix.cells["a"] == matrix.cells["b"]
    model = hashlib.sha256((tmp_path / "first" / "model.safetensors").read_bytes()).hexdigest()
    assert matrix.sha256 == {"a": model, "b": model}


def test_a_job_files_bundle_brings_the_models_that_it_names(tmp_path: Path) -> None:
    trained = load(job(tmp_path, LEARNER + '[algorithm]\nname = "fedavg"\nrounds = 1\nstandardise = true\n'))
    simulate(trained.job, trained.data, out=tmp_path / "first")
    path = job(tmp_path, LEARNER + '[algorithm]\nname = "evaluate"\nmodel = "first"\n', "evaluate.toml")
    assert set(open_bundle(build(path)).files) == {"evaluate.toml", "first/model.safetensors"}
    assert isinstance(read(path).job().workflow, CrossSite)


def test_statistics_take_no_learner_and_say_so(tmp_path: Path) -> None:
    loaded = load(job(tmp_path, '[algorithm]\nname = "statistics"\nclasses = 2\nmin_rows = 3\n'))
    assert simulate(loaded.job, loaded.data).value["rows"] == 920
    with pytest.raises(ConfigError, match="takes no learner"):
        read(job(tmp_path, LEARNER + '[algorithm]\nname = "statistics"\n'))
    with pytest.raises(ConfigError) as caught:
        read(job(tmp_path, '[algorithm]\nname = "cyclic"\nrounds = 2\n'))
    assert caught.value.path == "$.learner"


def test_a_model_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model to evaluate"):
        read(job(tmp_path, LEARNER + '[algorithm]\nname = "evaluate"\nmodel = "nowhere"\n')).job()


def test_an_override_that_a_workflow_cannot_take_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stats.py").write_text(
        "import hansa as hs\nfrom hansa.learning import statistics\njob = hs.Job('s', statistics())\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_job(f"{tmp_path}/stats.py:job", overrides=["algorithm.rounds=3"])
    assert (caught.value.path, caught.value.got) == ("algorithm.rounds", "Once")
