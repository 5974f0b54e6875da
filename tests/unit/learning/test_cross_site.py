"""Every model at every site, by hand: a linear regression whose losses are squares of small numbers."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.learning.linear import Linear, Loss

from hansa import codec, tensors
from hansa.adapters.numpy import logistic
from hansa.core.job import Job
from hansa.core.protocols import Dataset, Evaluation
from hansa.core.trees import Tree
from hansa.data import datasets, partition
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.errors import ConfigError, Interrupted
from hansa.learning import cross_site, evaluate, fedavg, fedper, local_only
from hansa.learning.cross_site import CrossSite, Matrix
from hansa.learning.sequence import Sequence
from hansa.simulation.engine import simulate
from hansa.simulation.faults import Faults


def place(*rows: tuple[list[float], float], test: int = 1) -> Rows:
    """A site whose last `test` rows are for testing."""
    parts = np.array([0] * (len(rows) - test) + [2] * test, dtype=np.int8)
    return Rows(np.array([x for x, _ in rows], dtype=np.float64), np.array([y for _, y in rows]), parts=parts)


def model(w0: float, w1: float, b: float) -> dict[str, Any]:
    return {"w": np.array([w0, w1]), "b": np.array(b)}


NORTH = place(([1.0, 2.0], 5.0), ([1.0, 0.0], 2.0), ([0.0, 1.0], 3.0), test=2)
SOUTH = place(([1.0, 2.0], 5.0), ([2.0, 2.0], 1.0))
EMPTY = place(([1.0, 2.0], 5.0), ([1.0, 0.0], 2.0), test=0)


def sites(*data: Rows) -> FederatedRows:
    names = ["north", "south", "east", "west"][: len(data)]
    return FederatedRows(names, lambda slot: data[slot])


def matrix_of(workflow: CrossSite | Sequence, *data: Rows, **options: Any) -> Matrix:
    value = simulate(Job("c", workflow), sites(*data), **options).value
    found = value[-1] if isinstance(value, tuple) else value
    assert isinstance(found, Matrix)
    return found


def test_each_given_model_is_measured_at_each_site_and_over_all_rows_together() -> None:
    # zero predicts 0: losses (4 + 9)/2 at north, 1 at south, 14/3 over the three rows; one predicts x0 + x1: errors (1, 2), and 3
    given = {"zero": model(0, 0, 0), "one": model(1, 1, 0)}
    found = matrix_of(cross_site(Linear(), models=given, metrics=[Loss()]), NORTH, SOUTH)
    assert found.cells == {
        "zero": {"north": {"loss": 6.5}, "south": {"loss": 1.0}},
        "one": {"north": {"loss": 2.5}, "south": {"loss": 9.0}},
    }
    assert found.pooled == {"zero": {"loss": pytest.approx(14 / 3)}, "one": {"loss": pytest.approx(14 / 3)}}
    assert (found.models, found.sites, found.metrics, found.missing) == (["zero", "one"], ["north", "south"], {"loss": False}, [])
    assert found.sha256 == {name: codec.digest(tree) for name, tree in given.items()}


def test_one_model_in_a_file_or_in_a_run_folder_is_evaluated_at_all_sites(tmp_path: Path) -> None:
    tensors.save_tree(tmp_path / "run" / "model.safetensors", model(1, 1, 0))
    expected = {"north": {"loss": 2.5}, "south": {"loss": 9.0}}
    for given in ("run", "run/model.safetensors"):
        found = matrix_of(evaluate(Linear(), model=given, folder=tmp_path, metrics=[Loss()]), NORTH, SOUTH)
        assert found.cells == {"model": expected}
    named = cross_site(Linear(), models=[str(tmp_path / "run")], metrics=[Loss()])
    assert list(named.models) == [str(tmp_path / "run")]
    assert named.files == (str(tmp_path / "run" / "model.safetensors"),)


def trained(rounds: int = 1, **options: Any) -> Sequence:
    training = fedavg(Linear(), rounds=rounds, metrics=[Loss()], keep_local=True)
    return Sequence(training, cross_site(Linear(), local=True, metrics=[Loss()], **options))


def test_after_a_training_come_its_models_and_each_sites_own() -> None:
    # one step of lr 0.1 on (1,2)->5 from zero leads to w=(1,2), b=1 at both sites: the mean is the same
    found = matrix_of(trained(), NORTH, SOUTH)
    assert found.models == ["final", "best", "north (local)", "south (local)"]
    assert len(set(found.sha256.values())) == 1
    assert found.cells["north (local)"] == {"north": {"loss": 0.0}, "south": {"loss": 36.0}}  # (2 + 4 + 1 - 1)^2


def test_a_local_model_is_the_sites_own_after_its_last_training() -> None:
    other = place(([2.0, 0.0], 1.0), ([2.0, 2.0], 1.0))  # from zero: residual -1, so w = (.4, 0), b = .2
    found = matrix_of(trained(), NORTH, other)
    assert found.cells["south (local)"]["south"]["loss"] == pytest.approx((0.8 + 0.2 - 1) ** 2)
    assert found.cells["south (local)"]["north"]["loss"] == pytest.approx(((0.6 - 2) ** 2 + (0.2 - 3) ** 2) / 2)
    mean = model(0.7, 1.0, 0.6)
    assert found.cells["final"] == matrix_of(cross_site(Linear(), models={"m": mean}, metrics=[Loss()]), NORTH, other).cells["m"]


def test_the_diagonal_of_local_only_training_is_what_each_site_measures_of_its_own_model() -> None:
    learner = logistic(lr=0.1, features=22)
    data = partition.column(datasets.heart(), by="site", split=(0.6, 0.0, 0.4))
    training = local_only(learner, rounds=2, standardise=True, keep_local=True)
    found = simulate(Job("c", Sequence(training, cross_site(learner, local=True, personal=["*"]))), data).value[-1]
    assert not found.missing
    for site in found.sites:
        assert found.cells[f"{site} (local)"][site] == found.cells["final"][site]  # a site completes the global one with its own
    assert found.cells["Cleveland (local)"] != found.cells["Hungary (local)"]


def test_with_fedper_each_site_completes_the_global_model_with_its_own_head() -> None:
    training = fedper(Linear(), rounds=1, personal=["b"], metrics=[Loss()], keep_local=True)
    found = matrix_of(Sequence(training, cross_site(Linear(), local=True, personal=["b"], metrics=[Loss()])), NORTH, SOUTH)
    assert found.cells["final"]["north"] == found.cells["north (local)"]["north"]
    given = cross_site(Linear(), models={"m": model(0, 0, 0)}, personal=["b"], metrics=[Loss()])
    assert matrix_of(Sequence(training, given), NORTH, SOUTH).cells["m"]["north"] == {"loss": 6.5}  # a given one is as it is
    plain = matrix_of(Sequence(training, cross_site(Linear(), metrics=[Loss()])), NORTH, SOUTH)
    assert plain.cells["final"]["north"]["loss"] == pytest.approx(((1 - 2) ** 2 + (2 - 3) ** 2) / 2)  # the server's bias is still 0


class Choosy(Linear):
    """Does not evaluate where the first label is 1."""

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        if len(data) and data.y[0] == 1.0:
            raise ValueError("not with these rows")
        return Linear.evaluate(self, model, data)


def test_cells_that_are_not_there_are_named_with_the_reason() -> None:
    found = matrix_of(cross_site(Choosy(), models={"m": model(0, 0, 0)}, metrics=[Loss()]), NORTH, SOUTH, EMPTY)
    assert found.cells == {"m": {"north": {"loss": 6.5}}}
    assert [(each["site"], each["code"]) for each in found.missing] == [("south", "client"), ("east", "no_metrics")]
    assert "not with these rows" in str(found.missing[0]["message"])
    lost = matrix_of(cross_site(Linear(), models={"m": model(0, 0, 0)}, metrics=[Loss()]), NORTH, SOUTH, faults=Faults(dropout=1.0))
    assert [(each["site"], each["code"]) for each in lost.missing] == [("north", "lost"), ("south", "lost")]
    assert lost.pooled == {"m": {}}


def test_a_site_that_kept_no_model_or_another_one_is_named_and_the_others_are_evaluated() -> None:
    unkept = Sequence(fedavg(Linear(), rounds=1, metrics=[Loss()]), cross_site(Linear(), local=True, metrics=[Loss()]))
    found = matrix_of(unkept, NORTH, SOUTH)
    why = {str(each["model"]): str(each["message"]) for each in found.missing}
    assert set(why) == {"north (local)", "south (local)"}
    assert all("keeps no model of this run" in text and "keep_local=True" in text for text in why.values())
    assert all(each["site"] is None for each in found.missing)
    assert set(found.cells["final"]) == {"north", "south"}

    wide = place(([1.0, 2.0, 3.0], 5.0), ([1.0, 0.0, 1.0], 2.0))
    training = fedavg(Linear(features=3), rounds=1, metrics=[], keep_local=True, evaluate_sites="none")
    models = {"m": model(0, 0, 0)}
    mixed = Sequence(training, cross_site(Linear(), models=models, local=True, metrics=[Loss()]))
    of_shape = matrix_of(mixed, wide)
    assert [each["code"] for each in of_shape.missing if each["model"] == "north (local)"] == ["spec"]


def test_a_cut_off_evaluation_goes_on_after_the_last_model_with_the_same_matrix(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    class Interrupting(Linear):
        def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
            calls.append(1)
            if len(calls) == 8:
                raise KeyboardInterrupt
            return Linear.evaluate(self, model, data)

    training = fedavg(Linear(), rounds=2, metrics=[Loss()], keep_local=True, evaluate_sites="none")
    job = Job("c", Sequence(training, cross_site(Interrupting(), local=True, metrics=[Loss()])))
    data = sites(NORTH, SOUTH, EMPTY)
    with pytest.raises(Interrupted):
        simulate(job, data, out=tmp_path / "r")
    resumed = simulate(job, data, out=tmp_path / "r", resume=True)
    assert len(calls) == 8 + 9  # two of the five models were done
    whole = simulate(job, data, out=tmp_path / "whole")
    assert whole.value[-1].missing
    for name in ("matrix.json", "model.safetensors", "best.safetensors"):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [record["round"] for record in resumed.metrics] == [record["round"] for record in whole.metrics] == [*range(1, 8)]


def test_workers_and_seeds_change_nothing() -> None:
    one, two = (matrix_of(trained(2), NORTH, SOUTH, EMPTY, workers=workers, seed=5) for workers in (1, 2))
    assert msgspec.json.encode(one.cells) == msgspec.json.encode(two.cells)
    assert one == two


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"part": "tests"}, "part"),
        ({"metrics": []}, "metrics"),
        ({"models": {"m": "nowhere.safetensors"}}, "models/m"),
        ({"models": {"m": {"w": np.array([np.nan])}}}, "models/m"),
        ({"metrics": ["auk"]}, "metrics[0]"),
        ({"quorum": 0}, "quorum"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_when_the_job_is_made(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cross_site(Linear(), **{"metrics": [Loss()], **options})
    assert str(caught.value.path).startswith(path)


def test_without_a_model_there_is_nothing_to_evaluate() -> None:
    with pytest.raises(ConfigError, match="no model to evaluate"):
        matrix_of(cross_site(Linear(), local=True, metrics=[Loss()]), NORTH)
    twice = Sequence(
        fedavg(Linear(), rounds=1, metrics=[Loss()]), cross_site(Linear(), models={"best": model(0, 0, 0)}, metrics=[Loss()])
    )
    with pytest.raises(ConfigError, match="a model of this name"):
        matrix_of(twice, NORTH)


def test_the_plan_says_which_models_and_that_local_ones_are_collected() -> None:
    plan = Job("c", cross_site(Linear(), models={"m": model(0, 0, 0)}, local=True, metrics=[Loss()])).describe()
    assert f"m {codec.digest(model(0, 0, 0))[:12]}" in plan
    assert "task 'local_model'" in plan
    assert "collect" in plan
