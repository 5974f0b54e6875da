"""Composed aggregators in learning: their state is the server's, what they measure the round's, and the gate is before them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Recorded, flat, models, site

from hansa import aggregators as agg
from hansa.core.job import Job
from hansa.core.plan import plan
from hansa.core.protocols import Dataset, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Tree
from hansa.data.federated import FederatedRows
from hansa.errors import ConfigError
from hansa.learning.composed import numbers
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.rounds import Rounds
from hansa.learning.scaffold import scaffold
from hansa.simulation.engine import Result, simulate
from hansa.tensors import load_tree, save_tree

LEARNED = agg.clipping_factory(agg.quantile_estimation(1.0, 0.5, 0.2), agg.MeanFactory())


def trained(aggregator: Any, **options: Any) -> Rounds:
    return fedavg(Linear(), rounds=3, metrics=[], aggregator=aggregator, **options)


def two_rounds(aggregator: Any) -> list[float]:
    """The model after two rounds of the data of TFF's goldens."""
    state = (process := trained(aggregator).process).initialize()
    for _ in range(2):
        state, _ = process.next(state, [A, B])
    return flat(state.model)


def test_means_as_composed_aggregators_give_tffs_federated_averaging() -> None:
    assert two_rounds(agg.MeanFactory()) == pytest.approx([-2.016, -0.874667, 1.141333], abs=1e-6)
    assert two_rounds(agg.UnweightedMeanFactory()) == pytest.approx([-1.144, -0.032001, 1.112], abs=1e-5)
    assert flat(models(fedavg(Linear(), rounds=2, metrics=[]), [A, B], 2)[1]) == pytest.approx(two_rounds(agg.MeanFactory()))
    rotated = agg.MeanFactory(agg.HadamardTransformFactory(agg.SumFactory()))
    assert two_rounds(rotated) == pytest.approx([-2.016, -0.874667, 1.141333], abs=1e-6)


def test_the_state_has_the_aggregators_state_and_the_round_its_measurements() -> None:
    workflow = trained(LEARNED)
    state = "<model=Tree,round=int32,extra=Tree,aggregator=<clipping_norm=<current_estimate=float32>,"
    assert str(workflow.process.initialize.type_signature).startswith(f"( -> {state}")
    assert str(workflow.process.next.type_signature.result).startswith(f"<state={state}")
    f = Recorded([A, B], workflow)
    outcome = f.run()
    told = [record["global"] for record in f.records]
    norms = [each["aggregator/clipping_norm"] for each in told]
    assert norms == pytest.approx([1.0, np.exp(0.1), np.exp(0.2)])  # the sites' changes are longer than the norm: none is within
    assert [each["aggregator/clipped_count"] for each in told] == [2, 2, 2]
    assert outcome.state.aggregator["clipping_norm"]["current_estimate"] == pytest.approx(np.exp(0.3))
    assert np.linalg.norm(flat(outcome.model)) <= sum(norms)


def test_what_is_measured_and_is_no_number_is_left_out_of_the_metrics() -> None:
    told = {"loss": np.float32(0.5), "phase": np.complex64(1j), "name": np.str_("a"), "line": np.zeros(2), "in": {"n": np.int64(3)}}
    assert numbers(told, "result") == {"in/n": 3.0, "loss": 0.5}


def test_an_aggregators_state_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    aggregator = agg.clipping_factory(
        agg.quantile_estimation(1.0, 0.5, 0.2),
        agg.MeanFactory(agg.HadamardTransformFactory(agg.StochasticDiscretizationFactory(1e-3, agg.SumFactory()))),
    )
    whole = Recorded([A, B], trained(aggregator), seed=5)
    model = whole.run().model
    number, tree, notes = whole.states[0]
    save_tree(tmp_path / "state", tree)

    @dataclass
    class Resumed(Recorded):
        def restore(self) -> Any:
            return number, load_tree(tmp_path / "state")[0], notes

    again = Resumed([A, B], trained(aggregator), seed=5)
    assert again.run().model["w"].tobytes() == model["w"].tobytes()  # type: ignore[union-attr]  # an array
    assert again.records == whole.records[1:]


@dataclass(frozen=True)
class Wrong(Linear):
    """A learner whose update is spoiled where the site's first target says how."""

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        update = super().fit(model, data, config, rng=rng, abort=abort)
        match float(data.y[0]):
            case 1000.0:
                return update._replace(delta={"w": np.zeros(3), "b": np.zeros(())})
            case 2000.0:
                return update._replace(delta={"w": np.array([np.nan, 0.0]), "b": np.zeros(())})
            case 3000.0:
                return update._replace(examples=-1)
        return update


def simulated(aggregator: Any, sites: Mapping[str, Any]) -> Result:
    job = Job("composed", fedavg(Wrong(), rounds=2, metrics=[], aggregator=aggregator), data="d")
    return simulate(job, {"d": FederatedRows(list(sites), lambda slot: list(sites.values())[slot])}, seed=1)


@pytest.mark.parametrize(
    "aggregator",
    [agg.MeanFactory(), agg.robust_aggregator(), agg.MeanFactory(agg.QuantizedSumFactory(8, 1)), agg.UnweightedMeanFactory()],
    ids=["mean", "robust", "quantised", "unweighted"],
)
def test_a_wrong_update_is_refused_by_name_and_the_model_is_what_it_would_have_been_without_that_site(aggregator: Any) -> None:
    spoiled = {
        "shape": site(([1.0, 2.0], 1000.0)),
        "a": A,
        "nan": site(([1.0, 2.0], 2000.0)),
        "b": B,
        "weight": site(([1.0, 2.0], 3000.0)),
    }
    if isinstance(aggregator, agg.UnweightedMeanFactory):
        del spoiled["weight"]  # no weight leaves a site
    found, clean = simulated(aggregator, spoiled), simulated(aggregator, {"a": A, "b": B})
    refused = [{each["site"]: each["code"] for each in record["refused"]} for record in found.metrics]
    expected = {"shape": "spec", "nan": "not_finite", "weight": "weight"}
    assert refused == [{name: code for name, code in expected.items() if name in spoiled}] * 2
    assert flat(found.model) == pytest.approx(flat(clean.model), abs=0.02 if "Quantized" in repr(aggregator) else 1e-12)
    told = [{k: v for k, v in record["global"].items() if "bits" not in k} for record in found.metrics]
    assert json.dumps(told) == json.dumps([{k: v for k, v in r["global"].items() if "bits" not in k} for r in clean.metrics])


def test_secure_sums_give_the_robust_mean_in_simulation_to_their_steps() -> None:
    secure, robust = (simulated(each, {"a": A, "b": B}) for each in (agg.secure_aggregator(), agg.robust_aggregator()))
    assert flat(secure.model) == pytest.approx(flat(robust.model), abs=1e-6)
    assert secure.metrics[0]["global"]["aggregator/zeroing/clipping/mean_weight/secure_upper_clipped_count"] == 0


def test_no_weight_leaves_a_site_where_the_sums_are_secure() -> None:
    (stage,) = plan(trained(agg.MeanFactory(agg.SumFactory(), agg.SecureSumFactory(100.0, 0.0))).process.next).stages
    assert [label for label, _ in stage.reads] == ["weigh", "whole", "constant", "above", "below"]


def test_algorithms_with_a_round_of_their_own_take_streaming_aggregators_alone() -> None:
    assert fedopt(Linear(), rounds=1, aggregator=agg.robust_aggregator()).process.next.name == "fedopt_round"
    with pytest.raises(ConfigError, match="takes a streaming aggregator") as caught:
        scaffold(Linear(), rounds=1, aggregator=agg.MeanFactory())
    assert caught.value.path == "aggregator"
    with pytest.raises(ConfigError, match="not for a Tree"):
        trained(agg.concat_factory(agg.MeanFactory()))


def test_a_job_file_names_an_aggregator() -> None:
    named: Any = "robust"
    plain = trained({"kind": "robust", "zeroing": False})
    assert str(trained(named).process.next.type_signature) == str(trained(agg.robust_aggregator()).process.next.type_signature)
    assert str(plain.process.next.type_signature) == str(trained(agg.robust_aggregator(zeroing=False)).process.next.type_signature)
    for wrong, path, message in (
        ("robst", "aggregator", "did you mean 'robust'"),
        ({"kind": "rob"}, "aggregator.kind", "did you mean 'robust'"),
        ({"kind": "robust", "norm": 1}, "aggregator", "does not take this"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            trained(wrong)
        assert caught.value.path == path
