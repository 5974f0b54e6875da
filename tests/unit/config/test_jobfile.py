import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.config import read
from hansa.core.job import Resources
from hansa.errors import ConfigError, DataError, HansaError, JobReferenceError

JOB = """
name = "toy"
seed = 7
[data]
source = "own.py:rows"
count = 60
[partition]
kind = "iid"
sites = 3
[learner]
kind = "numpy.softmax"
lr = 0.1
[algorithm]
name = "fedavg"
rounds = 2
[metrics]
names = ["accuracy", "loss"]
every = 2
"""
OWN = """
import numpy as np
from pathlib import Path
from hansa.adapters.numpy import softmax
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.learning.fedavg import fedavg

seen = {}

def rows(*, count: int, folder: Path | None = None, seed: int = -1) -> Rows:
    seen.update(folder=folder, seed=seed)
    x = np.arange(count * 4.0, dtype=np.float32).reshape(count, 4)
    return Rows(x, np.arange(count) % 3, {"site": np.array(["north", "south"])[np.arange(count) % 2]})

def natural(*, labels: int = 5) -> FederatedRows:
    return FederatedRows(["a", "b"], lambda slot: Rows(np.zeros((4, 2), np.float32), np.arange(4) + slot * (labels - 4)))

learner = softmax(classes=3, features=4)
number = 3

def mine(learner, *, rounds: int = 1):
    return fedavg(learner, rounds=rounds)

def untyped(learner, **options):
    return fedavg(learner, rounds=1)
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


def without(job: Path, table: str) -> Path:
    job.write_text(re.sub(rf"^\[{table}\]\n([^\[].*\n)*", "", job.read_text(), flags=re.MULTILINE))
    return job


def everything(job: Path, override: str) -> None:
    made = read(job, overrides=[override])
    made.job()
    made.federated()


def test_a_job_file_becomes_a_job_bound_to_the_shape_of_its_data(job: Path) -> None:
    made = read(job).job()
    assert (made.name, made.seed) == ("toy", 7)
    workflow: Any = made.workflow
    assert workflow.rounds == 2
    assert workflow.watch.every == 2
    assert repr(workflow.learner) == "numpy.softmax(classes=3, features=4, lr=0.1, epochs=1, batch=32)"
    assert sorted(workflow.process.higher) == ["accuracy", "loss"]


def test_what_a_run_asks_of_each_site_stands_in_the_file(job: Path) -> None:
    job.write_text('environment = "torch"\nprogress_s = 60\n' + JOB + "[resources]\ncores = 2\ngpus = 1\n")
    made = read(job).job()
    assert (made.environment, made.resources, made.progress_s) == ("torch", Resources(cores=2, gpus=1), 60)
    assert "resources at each site: Resources(cores=2, gpus=1, memory_mb=0)" in made.describe()


@pytest.mark.parametrize(
    ("line", "words"),
    [("coers = 2", r"\$\.resources\.coers.*did you mean 'cores'"), ("cores = 0", "at least 1 core"), ('gpus = "1"', "resources")],
)
def test_what_a_site_cannot_be_asked_is_refused_by_name(job: Path, line: str, words: str) -> None:
    job.write_text(f"{JOB}[resources]\n{line}\n")
    with pytest.raises(ConfigError, match=words):
        read(job).job()


def test_the_data_are_partitioned_as_the_file_says_with_the_jobs_seed(job: Path) -> None:
    first, again = read(job).federated(), read(job).federated()
    assert len(first.sites) == 3
    assert np.array_equal(first.load(1).x, again.load(1).x)
    other = read(job, overrides=["seed=8"]).federated()
    assert not np.array_equal(first.load(1).x, other.load(1).x)


def test_without_a_partition_the_column_site_makes_the_sites(job: Path) -> None:
    assert list(read(without(job, "partition")).federated().sites) == ["north", "south"]


def test_rows_that_nothing_divides_into_sites_are_refused(job: Path) -> None:
    own = job.parent / "own.py"
    own.write_text(OWN.replace(', {"site"', ', {"ward"'))
    with pytest.raises(ConfigError, match=r"\$\.partition.*add \[partition\]"):
        read(without(job, "partition")).federated()


def test_a_source_with_sites_of_its_own_needs_no_partition_and_its_classes_are_counted_over_all_sites(job: Path) -> None:
    text = job.read_text().replace("own.py:rows", "own.py:natural").replace("count = 60\n", "")
    job.write_text(text)
    made = read(without(job, "partition"))
    assert list(made.federated().sites) == ["a", "b"]
    workflow: Any = made.job().workflow
    assert workflow.learner.classes == 5


def test_a_source_that_takes_a_folder_is_given_it_unless_the_file_names_one(job: Path) -> None:
    made = read(job, folder=Path("/data"))
    made.federated()
    assert made.data.target.__globals__["seen"] == {"folder": Path("/data"), "seed": 7}
    made = read(job, folder=Path("/data"), overrides=["data.folder=/mine"])
    made.federated()
    assert str(made.data.target.__globals__["seen"]["folder"]) == "/mine"


def test_a_learner_and_an_algorithm_of_ones_own_are_named_by_reference(job: Path) -> None:
    made = read(without(job, "metrics"), overrides=["learner={kind='own.py:learner'}", "algorithm={name='own.py:mine', rounds=3}"])
    workflow: Any = made.job().workflow
    assert workflow.rounds == 3
    assert workflow.learner.classes == 3


def test_a_function_that_takes_any_keyword_is_given_them(job: Path) -> None:
    made = read(job, overrides=["algorithm={name='own.py:untyped', what=3}"])
    assert made.algorithm.arguments == {"what": 3, "metrics": ["accuracy", "loss"], "evaluate_every": 2}


def test_filters_are_applied_in_the_order_of_the_file(job: Path) -> None:
    job.write_text(JOB + '[[filters]]\nkind = "clip"\nnorm = 1.0\n[[filters]]\nkind = "clip"\nnorm = 2\n')
    assert [repr(each) for each in read(job).job().filters] == ["Clip(norm=1.0, path='delta')", "Clip(norm=2.0, path='delta')"]


def test_relative_paths_start_at_the_job_files_folder(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("a,b,label\n1,2,0\n3,4,1\n5,6,0\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.csv").write_text("a,label\n1,0\n2,1\n3,1\n")
    monkeypatch.chdir(elsewhere)
    made = read(job, overrides=["data={source='csv', path='rows.csv', label='label'}"])
    assert made.features == ("a", "b")
    assert made.places == {"path": tmp_path / "rows.csv"}
    with pytest.raises(DataError, match="no such file") as caught:
        read(job, overrides=["data={source='csv', path='far.csv', label='label'}"]).federated()
    assert caught.value.path == str(tmp_path / "far.csv")
    for folder, named in ((elsewhere, ""), (None, ", folder='elsewhere'")):
        made = read(job, overrides=[f"data={{source='csv', path='far.csv', label='label'{named}}}"], folder=folder)
        assert made.features == ("a",)
        assert made.places == {"path": elsewhere / "far.csv"}


def test_a_job_whose_shape_is_known_is_made_without_its_data(job: Path) -> None:
    made = read(job)
    workflow: Any = made.job().workflow
    assert made.shape == {"features": 4, "classes": 3}
    again = read(job, overrides=["data.count=0"])
    other: Any = again.job(shape=made.shape).workflow
    assert repr(other.learner) == repr(workflow.learner)
    assert "_source" not in vars(again)


def test_the_text_is_the_same_for_the_same_settings_and_holds_the_overrides(job: Path) -> None:
    text = read(job, overrides=["algorithm.rounds=5"]).text
    assert json.loads(text)["algorithm"] == {"name": "fedavg", "rounds": 5}
    job.write_text(JOB.replace("lr = 0.1\n", "").replace('kind = "numpy.softmax"', 'lr = 0.1\nkind = "numpy.softmax"'))
    assert read(job, overrides=["algorithm.rounds=5"]).text == text


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("algorithm.roundz=3", "$.algorithm.roundz", "did you mean 'rounds'?"),
        ("algorithm.rounds=many", "$.algorithm.rounds", "expected int; got 'many'"),
        ("algorithm.rounds=true", "$.algorithm.rounds", "expected int; got True"),
        ("algorithm.rounds=0", "$.algorithm.rounds", "at least 1"),
        ("algorithm.name=fedavgg", "$.algorithm.name", "did you mean 'fedavg'?"),
        ("algorithm.test=1", "$.algorithm.test", "hansa run file.py:job"),
        ("algorithm.aggregator=1", "$.algorithm.aggregator", "expected str or a table"),
        ("algorithm.metrics=['loss']", "$.algorithm.metrics", "set twice"),
        ("learner.kind=numpy.sofmax", "$.learner.kind", "did you mean 'numpy.softmax'?"),
        ("learner.kind=3", "$.learner.kind", "expected str"),
        ("learner.lr=-1", "$.learner.lr", "a number >= 0"),
        ("learner.epoch=1", "$.learner.epoch", "did you mean 'epochs'?"),
        ("learner=3", "$.learner", "expected a table"),
        ("learner={lr=1}", "$.learner.kind", "numpy.softmax"),
        ("partition.alpah=1", "$.partition.alpah", "known"),
        ("partition.split=[0.8,'a']", "$.partition.split[1]", "a list of float"),
        ("partition={kind='iid'}", "$.partition.sites", "a key is missing"),
        ("partition.sites=1000", "$.partition.sites", "at most 60"),
        ("metrics.names=['acuracy']", "$.metrics.names[0]", "did you mean 'accuracy'?"),
        ("metrics.evry=1", "$.metrics.evry", "did you mean 'every'?"),
        ("metrics.sites=few", "$.metrics.sites", "'cohort' or 'all' or 'none'"),
        ("data.sorce=1", "$.data.sorce", "did you mean 'source'?"),
        ("nam=x", "$.nam", "did you mean 'name'?"),
        ("seed=1.5", "$.seed", "expected int"),
        ("name.x=1", "$.name.x", "not a table"),
        ("learner={kind='own.py:learner', lr=1}", "$.learner.lr", "no such key"),
        ("learner.kind=own.py:number", "$.learner.kind", "cannot be called"),
        ("learner={kind='numpy.softmax', epochs=1, steps=2}", "$.learner.steps", "not both"),
        ("algorithm={name='fedavg', rounds=1, epochs=1, steps=2}", "$.algorithm.steps", "not both"),
        ("filters={kind='clip'}", "$.filters", "expected a list"),
        ("filters=[{norm=1.0}]", "$.filters[0].kind", "one of clip, exclude, half_precision"),
        ("filters=[{kind='clip', norm=1.0}, {kind='clap', norm=1.0}]", "$.filters[1].kind", "did you mean 'clip'?"),
        ("filters=[{kind='clip', nrom=1.0}]", "$.filters[0].nrom", "did you mean 'norm'?"),
        ("filters=[{kind='clip', norm=-1.0}]", "$.filters[0].norm", "a finite number > 0"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_path(job: Path, override: str, path: str, says: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        everything(job, override)
    assert caught.value.path == path
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("table", ["data", "learner", "algorithm"])
def test_a_missing_table_is_named(job: Path, table: str) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.{table}"):
        read(without(job, table))


def test_no_data_are_loaded_before_they_are_needed(job: Path) -> None:
    assert "_source" not in vars(read(job))


@pytest.mark.parametrize("text", ["a = ", "\x00", 'a = "\ud800"'])
def test_a_file_that_is_not_toml_is_wrong_input(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match="not TOML"):
        read(path)


def test_a_file_that_is_not_there_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "job.toml")


def test_a_reference_that_leads_nowhere_is_refused(job: Path) -> None:
    with pytest.raises(JobReferenceError, match="no 'rowz'"):
        read(job, overrides=["data.source=own.py:rowz"])


@pytest.mark.parametrize("override", ["rounds", "=3", "a..b=1", "algorithm.=2"])
def test_an_override_without_key_or_value_is_refused(job: Path, override: str) -> None:
    with pytest.raises(HansaError, match="not an override"):
        read(job, overrides=[override])
