"""Learning processes of four parts: TensorFlow Federated's numbers, faults told with both types, trained as any algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, Recorded, flat, models

import hansa as hs
from hansa.adapters.numpy import logistic
from hansa.aggregators import MeanFactory, UnweightedMeanFactory, robust_aggregator
from hansa.core.graph import LocalFunction
from hansa.core.types import CLIENTS, SERVER, TREE, FederatedType, TensorType
from hansa.data.rows import Rows
from hansa.errors import ConfigError, TraceError
from hansa.learning import fedavg, fedopt
from hansa.learning.compose import (
    apply_optimizer_finalizer,
    broadcast_process,
    compose_learning_process,
    initial_weights,
    learning_process,
    model_delta_work,
    train,
)
from hansa.learning.optimizers import Optimizer
from hansa.learning.processes import (
    ClientResultTypeError,
    ClientWorkProcess,
    FinalizerProcess,
    FinalizerResultTypeError,
    GetModelWeightsTypeSignatureError,
    LearningProcess,
    LearningProcessOutputError,
    SetModelWeightsTypeSignatureError,
)
from hansa.learning.schedules import Inverse
from hansa.templates import AggregationPlacementError, AggregationProcess, MeasuredProcessOutput

MEAN = MeanFactory().create(TREE, TensorType(np.int32))


def composed(aggregator: AggregationProcess = MEAN, finalizer: FinalizerProcess | None = None, **options: Any) -> LearningProcess:
    work = model_delta_work(Linear(), **options)
    return compose_learning_process(
        initial_weights(Linear()), broadcast_process(), work, aggregator, finalizer or apply_optimizer_finalizer()
    )


def after(process: LearningProcess, rounds: int) -> list[float]:
    state = process.initialize()
    for _ in range(rounds):
        state = process.next(state, [A, B]).state
    return flat(process.get_model_weights(state))


def test_a_composed_process_has_tffs_state_and_metrics() -> None:
    process = composed()
    state = process.initialize()
    assert (state.distributor, state.client_work, state.finalizer) == ((), (), {"learning_rate": 1.0})
    assert state.aggregator == {"value_sum_process": (), "weight_sum_process": ()}
    assert process.next(state, [A, B]).metrics == {
        "distributor": (),
        "client_work": (),
        "aggregator": {"mean_value": (), "mean_weight": ()},
        "finalizer": {"update_non_finite": 0},
    }
    assert str(process.get_model_weights.type_signature.result) == "Tree"
    other = process.set_model_weights(state, {"w": np.ones(2), "b": np.ones(())})
    assert flat(process.get_model_weights(other)) == [1.0, 1.0, 1.0]
    assert flat(process.get_model_weights(state)) == [0.0, 0.0, 0.0]


def test_composed_federated_averaging_has_tffs_values() -> None:
    assert after(composed(), 2) == pytest.approx([-2.016, -0.874667, 1.141333], abs=1e-6)
    assert after(composed(UnweightedMeanFactory().create(TREE)), 2) == pytest.approx([-1.144, -0.032001, 1.112], abs=1e-5)
    adam = composed(finalizer=apply_optimizer_finalizer(Optimizer("adam"), learning_rate=0.1))
    assert after(adam, 2) == pytest.approx([-0.199778, -0.199464, 0.199887], abs=1e-5)
    with pytest.raises(ConfigError, match="a server's learning rate is one number"):
        apply_optimizer_finalizer(learning_rate=Inverse(0.1))  # type: ignore[arg-type]  # its first value would stand for all
    momentum = composed(finalizer=apply_optimizer_finalizer(Optimizer("sgd", momentum=0.9)))
    assert after(momentum, 2) == pytest.approx([-3.276, -1.954667, 1.321333], abs=1e-6)
    scheduled = composed(client_lr=Inverse(0.1))
    assert scheduled.initialize().client_work == 0
    assert after(scheduled, 2) == pytest.approx([0.356, 1.714667, 1.358667], abs=1e-5)


def test_a_job_trains_a_process_as_it_trains_the_algorithm_and_goes_on_from_a_checkpoint() -> None:
    def recorded(workflow: Any) -> Recorded:
        f = Recorded([A, B], workflow)
        f.run()
        return f

    finalizer = apply_optimizer_finalizer(Optimizer("adam"), learning_rate=0.1)
    process = train(composed(finalizer=finalizer), Linear(), rounds=3, metrics=[Loss()], evaluate_sites="none")
    ours = recorded(process)
    theirs = recorded(fedopt(Linear(), rounds=3, server_lr=0.1, metrics=[]))
    model = ours.workflow.process.model
    assert flat(ours.workflow(ours).model) == pytest.approx(flat(theirs.workflow(theirs).model), abs=1e-6)  # the rate is a float32
    assert [record["global"]["finalizer/update_non_finite"] for record in ours.records[:3]] == [0, 0, 0]
    number, tree, notes = ours.states[0]

    class Resumed(Recorded):
        def restore(self) -> Any:
            return number, tree, notes

    again = Resumed([A, B], process)
    outcome = again.run()
    assert outcome.model["w"].tobytes() == ours.workflow(ours).model["w"].tobytes()  # type: ignore[union-attr]  # arrays
    assert outcome.state.finalizer["steps"] == 3
    assert model(outcome.state) == outcome.model


def test_an_update_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    finalizer = apply_optimizer_finalizer()
    state, weights = finalizer.initialize(), {"w": np.ones(2)}
    done = finalizer.next(state, weights, {"w": np.array([np.inf, 1.0])})
    assert done.result["w"].tolist() == [1.0, 1.0]
    assert done.measurements == {"update_non_finite": 1}
    assert finalizer.next(state, weights, {"w": np.ones(2)}).result["w"].tolist() == [2.0, 2.0]


def test_a_standing_algorithm_is_a_learning_process() -> None:
    process = learning_process(fedavg(Linear(), rounds=9, metrics=[]))
    assert after(process, 2) == flat(models(fedavg(Linear(), rounds=2, metrics=[]), [A, B], 2)[1])
    robust = learning_process(fedavg(Linear(), rounds=9, metrics=[], aggregator=robust_aggregator()))
    assert list(robust.next(robust.initialize(), [A, B]).metrics) == ["aggregator"]
    with pytest.raises(ConfigError, match="a process starts without data"):
        learning_process(fedavg(logistic(features=2), rounds=1, standardise=True))
    with pytest.raises(ConfigError, match="'epochs' is decided by the process"):
        train(process, Linear(), rounds=1, epochs=2)


@hs.federated_computation
def nothing() -> Any:
    return hs.federated_value((), SERVER)


ROWS = FederatedType(Rows, CLIENTS)
NOTHING, NUMBER = FederatedType((), SERVER), FederatedType(np.float32, SERVER)


def test_parts_that_do_not_fit_are_told_with_both_types() -> None:
    of_vectors = MeanFactory().create(TensorType(np.float32, [2]), TensorType(np.int32))
    with pytest.raises(TraceError, match=r"the aggregator does not take the update; expected float32\[2\]; got Tree"):
        composed(of_vectors)
    with pytest.raises(TraceError, match="weight of an update; expected float64; got int32"):
        composed(MeanFactory().create(TREE, TensorType(np.float64)))
    with pytest.raises(TraceError, match="the distributor does not take the weights; expected float32; got Tree"):
        compose_learning_process(
            initial_weights(Linear()),
            broadcast_process(NUMBER.member),
            model_delta_work(Linear()),
            MEAN,
            apply_optimizer_finalizer(),
        )


def test_each_part_is_checked_when_it_is_made() -> None:
    @hs.federated_computation(NOTHING, FederatedType(TREE, CLIENTS), ROWS)
    def no_result(state: Any, weights: Any, data: Any) -> MeasuredProcessOutput:
        del data
        return MeasuredProcessOutput(state, weights, state)

    with pytest.raises(ClientResultTypeError, match="expected <update=U,update_weight=W>; got Tree"):
        ClientWorkProcess(nothing, no_result)

    @hs.federated_computation(NOTHING, NUMBER, NUMBER)
    def others(state: Any, weights: Any, update: Any) -> MeasuredProcessOutput:
        del weights
        return MeasuredProcessOutput(state, hs.federated_zip((update, update)), state)

    with pytest.raises(FinalizerResultTypeError, match="expected float32@SERVER; got <float32,float32>@SERVER"):
        FinalizerProcess(nothing, others)
    with pytest.raises(AggregationPlacementError, match="the weights and the data of a client's work"):
        ClientWorkProcess(nothing, others)

    whole = composed()
    with pytest.raises(LearningProcessOutputError):
        LearningProcess(
            whole.initialize, fedavg(Linear(), rounds=1).process.evaluate, whole.get_model_weights, whole.set_model_weights
        )
    with pytest.raises(GetModelWeightsTypeSignatureError):
        LearningProcess(whole.initialize, whole.next, whole.set_model_weights, whole.set_model_weights)
    with pytest.raises(SetModelWeightsTypeSignatureError):
        LearningProcess(whole.initialize, whole.next, whole.get_model_weights, whole.get_model_weights)
    assert isinstance(initial_weights(Linear()), LocalFunction)
