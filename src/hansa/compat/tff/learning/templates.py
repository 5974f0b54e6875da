"""`tff.learning.templates`: learning processes of four parts."""

from __future__ import annotations

from typing import Any

from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_eval, federated_map
from hansa.core.types import SERVER, FederatedType, StructType, Type
from hansa.errors import TraceError
from hansa.learning.compose import broadcast_process as build_broadcast_process
from hansa.learning.compose import compose_learning_process
from hansa.learning.processes import (
    ClientResult,
    ClientWorkProcess,
    DistributionProcess,
    FinalizerProcess,
    LearningAlgorithmState,
    LearningProcess,
)
from hansa.learning.state import LearningProcessOutput
from hansa.templates import MeasuredProcessOutput

__all__ = [
    "ClientResult",
    "ClientWorkProcess",
    "DistributionProcess",
    "FinalizerProcess",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "build_apply_optimizer_finalizer",
    "build_broadcast_process",
    "compose_learning_process",
]


def build_apply_optimizer_finalizer(optimizer: Any, model_weights_type: Type) -> FinalizerProcess:
    """The weights after a step of an optimizer along the update; none where the update is not finite.

    Raises:
        TraceError: the type is not that of ModelWeights.
    """
    from hansa.adapters.tensorflow import training

    if not isinstance(model_weights_type, StructType) or model_weights_type.fields() != ["trainable", "non_trainable"]:
        raise TraceError("not the type of model weights", got=model_weights_type, expected="<trainable=...,non_trainable=...>")
    weights, update = FederatedType(model_weights_type, SERVER), FederatedType(model_weights_type[0], SERVER)
    first = training.first_optimizer_state(optimizer, model_weights_type)
    kind = first.type_signature.result
    step = training.server_step(optimizer, state=kind, weights=model_weights_type, update=update.member)

    @federated_computation
    def initialize() -> Any:
        return federated_eval(first, SERVER)

    @federated_computation(FederatedType(kind, SERVER), weights, update)
    def finalize(state: Any, weights: Any, update: Any) -> MeasuredProcessOutput:
        done: Any = federated_map(step, (state, weights, update))
        return MeasuredProcessOutput(done[0], done[1], done[2])

    return FinalizerProcess(initialize, finalize)
