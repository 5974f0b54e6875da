"""Learning processes composed of four parts, trained as any algorithm is; and the standing algorithms as such processes."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, Unpack, cast

import numpy as np

from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction, member_of
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_value, federated_zip
from hansa.core.protocols import Dataset, Learner
from hansa.core.round import is_real
from hansa.core.trees import Tree
from hansa.core.types import CLIENTS, SERVER, TREE, FederatedType, ObjectType, StructType, TensorType, Type
from hansa.errors import ConfigError, TraceError
from hansa.learning.composed import guarded
from hansa.learning.on_site import SiteLearner
from hansa.learning.optimizers import Optimizer, advance
from hansa.learning.options import Options
from hansa.learning.processes import (
    ClientResult,
    ClientWorkProcess,
    DistributionProcess,
    FinalizerProcess,
    LearningAlgorithmState,
    LearningProcess,
)
from hansa.learning.rounds import Rounds
from hansa.learning.state import LearningProcessOutput
from hansa.learning.templates import Setup
from hansa.local import local_computation
from hansa.templates import AggregationProcess, MeasuredProcess, MeasuredProcessOutput
from hansa.templates.iterative import called, parameters_of

DATA = ObjectType("Dataset", Dataset)
ROUND, RATE = TensorType(np.int32), TensorType(np.float32)


def compose_learning_process(
    initial_model_weights_fn: Any,
    model_weights_distributor: DistributionProcess,
    client_work: ClientWorkProcess,
    model_update_aggregator: AggregationProcess,
    model_finalizer: FinalizerProcess,
) -> LearningProcess:
    """The process of four parts: weights go out, clients work, their updates are combined, the weights are changed.

    `initial_model_weights_fn` is a function without arguments that gives the weights. The state is a LearningAlgorithmState, the
    metrics are each part's measurements by its name. What the aggregator adds up passes the gate: an update that does not fit
    the weights is refused by name.

    >>> from hansa.adapters.numpy import softmax
    >>> from hansa.aggregators import MeanFactory
    >>> learner = softmax(classes=2, features=4)
    >>> mean = MeanFactory().create(TREE, TensorType(np.int32))
    >>> process = compose_learning_process(
    ...     initial_weights(learner), broadcast_process(), model_delta_work(learner), mean, apply_optimizer_finalizer()
    ... )
    >>> print(process.next.type_signature.result.metrics)
    <distributor=<>,client_work=<>,aggregator=<mean_value=<>,mean_weight=<>>,finalizer=<update_non_finite=int32>>@SERVER

    Raises:
        TraceError: what one part gives is not what the next one takes; names both types.
    """
    weighs = model_update_aggregator.is_weighted
    parts: dict[str, MeasuredProcess] = {
        "distributor": model_weights_distributor,
        "client_work": client_work,
        "aggregator": model_update_aggregator,
        "finalizer": model_finalizer,
    }

    @federated_computation
    def initialize() -> Any:
        weights = federated_eval(initial_model_weights_fn, SERVER)
        return federated_zip(LearningAlgorithmState(weights, *(called(part.initialize) for part in parts.values())))

    state_type: Type = initialize.type_signature.result
    _check_fit(member_of(state_type), parts)

    @federated_computation(state_type, parameters_of(client_work.next)[2])
    def next_round(state: Any, client_data: Any) -> LearningProcessOutput:
        weights = state.global_model_weights
        sent = called(parts["distributor"].next, state.distributor, weights)
        work = called(parts["client_work"].next, state.client_work, sent.result, client_data)
        given = [work.result.update, *([work.result.update_weight] if weighs else [])]
        added = guarded(model_update_aggregator, state.aggregator, given, _changed(weights, work.result.update))
        final = called(parts["finalizer"].next, state.finalizer, weights, added.result)
        after = LearningAlgorithmState(final.result, sent.state, work.state, added.state, final.state)
        told = dict(zip(parts, (sent.measurements, work.measurements, added.measurements, final.measurements), strict=True))
        return LearningProcessOutput(federated_zip(after), federated_zip(OrderedDict(told)))

    return LearningProcess(initialize, next_round, *_access(member_of(state_type), "global_model_weights"))


def initial_weights(learner: Learner | SiteLearner) -> LocalFunction:
    """The first weights of a learner's model, drawn from the run's seed."""
    setup = Setup.of(learner, {})
    return LocalFunction(lambda *, ctx: setup.personal.start(ctx.seed), "initial_weights", (), TREE, frozenset({"ctx"}))


def broadcast_process(weights_type: Type = TREE) -> DistributionProcess:
    """The weights as they are, to all: no state, no measurements."""

    def start() -> Any:
        return federated_value((), SERVER)

    def distribute(state: Any, weights: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, federated_broadcast(weights), federated_value((), SERVER))

    initialize = federated_computation(start)
    step = federated_computation(distribute, initialize.type_signature.result, FederatedType(weights_type, SERVER))
    return DistributionProcess(initialize, step)


def model_delta_work(learner: Learner | SiteLearner, **options: Unpack[Options]) -> ClientWorkProcess:
    """Local training by a learner: the update is the change of its weights, weighted by its training rows.

    `options` are those of a client's training: epochs or steps, batch, clip, client_lr, weighting. With a schedule of `client_lr`
    the state counts the rounds; otherwise there is none.

    Raises:
        ConfigError: an option is out of its range; names it.
    """
    setup = Setup.of(learner, options, algorithm=model_delta_work)
    train = setup.local_training()
    result = LocalFunction(_result, "client_result", (("delta", TREE), ("weight", ROUND)), _RESULT, loops=True)
    more = LocalFunction(lambda done: np.int32(done + 1), "next_round", (("done", ROUND),), ROUND)
    counts = setup.schedule is not None

    @federated_computation
    def initialize() -> Any:
        return federated_value(np.int32(0) if counts else (), SERVER)

    state_type: Type = initialize.type_signature.result

    @federated_computation(state_type, FederatedType(TREE, CLIENTS, True), FederatedType(DATA, CLIENTS))
    def work(state: Any, weights: Any, client_data: Any) -> MeasuredProcessOutput:
        done = federated_broadcast(state) if counts else federated_value(np.int32(0), CLIENTS)
        step = federated_map(train, (weights, done, client_data))
        made = federated_map(result, (step.delta, step.weight))
        return MeasuredProcessOutput(federated_map(more, state) if counts else state, made, federated_value((), SERVER))

    return ClientWorkProcess(initialize, work)


def apply_optimizer_finalizer(
    optimizer: Optimizer | None = None, *, learning_rate: float = 1.0, reject_non_finite_update: bool = True
) -> FinalizerProcess:
    """The weights after a step of a server optimizer along the combined update; its state has the learning rate.

    An update with an entry that is not finite changes nothing where it is to be rejected. Measured is `update_non_finite`, 1 or 0.

    Raises:
        ConfigError: the learning rate is not one positive number.
    """
    rule = optimizer or Optimizer()
    if not (is_real(learning_rate) and learning_rate > 0):
        raise ConfigError("a server's learning rate is one number", path="learning_rate", expected="> 0", got=repr(learning_rate))
    first = OrderedDict[str, Any](learning_rate=np.float32(learning_rate))
    if rule != Optimizer():
        first |= {"steps": np.int32(0), "slots": {}}
    kinds: dict[str, Type] = {"learning_rate": RATE, "steps": ROUND, "slots": TREE}
    state_type = StructType([(name, kinds[name]) for name in first], OrderedDict)
    gives = StructType([state_type, TREE, ROUND], tuple)

    def apply(state: Any, weights: Tree, update: Tree) -> Any:
        bad = not all(np.isfinite(leaf).all() for _, leaf in trees.leaves(update))
        if bad and reject_non_finite_update:
            return state, weights, np.int32(1)
        number = int(state.get("steps", 0)) + 1
        slots = state.get("slots") or rule.start(weights)
        fresh = trees.map(lambda leaf, like: trees.cast_like(np.asarray(leaf), like.dtype), update, weights)
        after, kept = advance(weights, fresh, lr=float(state["learning_rate"]), optimizer=rule, state=slots, number=number)
        own = {"steps": np.int32(number), "slots": kept} if "steps" in state else {}
        return OrderedDict(state) | own, after, np.int32(bad)

    takes = (("state", state_type), ("weights", TREE), ("update", TREE))
    step = LocalFunction(apply, "apply_optimizer", takes, gives, about=f"{rule!r}, learning_rate={learning_rate}")
    begin = LocalFunction(lambda: OrderedDict(first), "optimizer_state", (), state_type)

    @federated_computation
    def initialize() -> Any:
        return federated_eval(begin, SERVER)

    @federated_computation(FederatedType(state_type, SERVER), FederatedType(TREE, SERVER), FederatedType(TREE, SERVER))
    def finalize(state: Any, weights: Any, update: Any) -> MeasuredProcessOutput:
        done: Any = federated_map(step, (state, weights, update))
        return MeasuredProcessOutput(done[0], done[1], federated_zip(OrderedDict(update_non_finite=done[2])))

    return FinalizerProcess(initialize, finalize)


def train(
    process: LearningProcess, learner: Learner | SiteLearner, *, rounds: int, cohort: int | None = None, **options: Unpack[Options]
) -> Rounds:
    """Rounds of a learning process, as of any algorithm: a job runs them, simulated or deployed, and goes on from a checkpoint.

    The learner evaluates the weights at the sites. `options` are those of rounds and of evaluation.

    Raises:
        ConfigError: an option is out of its range, or is the process's to decide; names it.
    """
    for name in _OF_PARTS:
        if name in options:
            raise ConfigError(f"{name!r} is decided by the process", path=name, hint="give it to the part that it is of")
    setup = Setup.of(learner, options, algorithm=train)
    step, initialize = cast(Computation, process.next), cast(Computation, process.initialize)
    made = setup.rounds(step, initialize, rounds=rounds, cohort=cohort, name="learning process")
    reached = dataclasses.replace(made.process, model=process.get_model_weights, with_model=process.set_model_weights)
    return made.but(process=reached)


def learning_process(algorithm: Rounds) -> LearningProcess:
    """A standing algorithm as a LearningProcess: `learning_process(fedavg(learner, rounds=20))`. Each `next` is a round of it.

    Raises:
        ConfigError: the first state is made of the sites' data.
    """
    process = algorithm.process
    if process.initialize.parameters:
        raise ConfigError("the first state is made of the sites' data", path="standardise", hint="a process starts without data")
    state_type: Type = process.initialize.type_signature.result

    @federated_computation(state_type, process.next.parameters[1].type)
    def next_round(state: Any, client_data: Any) -> LearningProcessOutput:
        after = called(process.next, state, client_data)
        kind = after.type_signature
        if isinstance(kind, StructType) and kind.container is LearningProcessOutput:
            return LearningProcessOutput(after.state, after.metrics)
        return LearningProcessOutput(after, federated_value((), SERVER))

    return LearningProcess(process.initialize, next_round, *_access(member_of(state_type), "model"))


def _access(state_type: Type, field: str) -> tuple[Any, Any]:
    """`get_model_weights` and `set_model_weights` of a state with the weights in a field."""
    weights = cast(StructType, state_type)[field]

    def get_model_weights(state: Any) -> Any:
        return getattr(state, field)

    def set_model_weights(state: Any, weights: Any) -> Any:
        return state._replace(**{field: trees.copy(weights) if isinstance(weights, dict) else weights})

    return (
        local_computation(get_model_weights, state_type, returns=weights),
        local_computation(set_model_weights, state_type, weights, returns=state_type),
    )


def _changed(weights: Any, update: Any) -> Any:
    """While a round is traced: the part of the weights that an update is of, such as the trainable ones; else all of them."""
    kind, wanted = member_of(weights.type_signature), member_of(update.type_signature)
    if not isinstance(kind, StructType) or kind.is_equivalent_to(wanted):
        return weights
    return next((weights[place] for place, part in enumerate(kind) if part.is_equivalent_to(wanted)), weights)


def _check_fit(state: Type, parts: dict[str, MeasuredProcess]) -> None:
    """Return if the weights and what each part gives are what the next part takes."""
    weights = cast(StructType, state)[0]
    gives = {name: member_of(cast(StructType, part.next.type_signature.result)[1]) for name, part in parts.items()}
    takes = {name: [member_of(kind) for kind in parameters_of(part.next)] for name, part in parts.items()}
    result = cast(StructType, gives["client_work"])
    flow = [
        ("the distributor does not take the weights", takes["distributor"][1], weights),
        ("the client work does not take what the distributor gives", takes["client_work"][1], gives["distributor"]),
        ("the aggregator does not take the update", takes["aggregator"][1], result[0]),
        ("the finalizer does not take the weights", takes["finalizer"][1], weights),
        ("the finalizer does not take what the aggregator gives", takes["finalizer"][2], gives["aggregator"]),
    ]
    if len(takes["aggregator"]) == 3:
        flow.append(("the aggregator does not take the weight of an update", takes["aggregator"][2], result[1]))
    for message, expected, got in flow:
        if not expected.is_assignable_from(got):
            raise TraceError(message, expected=expected, got=got)


def _result(delta: Any, weight: Any) -> ClientResult:
    return ClientResult(delta, np.int32(weight))


# What the client work and the aggregator decide.
_OF_PARTS = ("aggregator", "personal", "standardise", "client_lr", "epochs", "steps", "batch", "clip", "weighting", "weight_cap")
_RESULT = StructType([("update", TREE), ("update_weight", ROUND)], ClientResult)
