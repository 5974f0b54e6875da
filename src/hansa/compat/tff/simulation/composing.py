"""Client ids travel, and each client makes its data of its id."""

from __future__ import annotations

from typing import Any

from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_map
from hansa.core.types import CLIENTS, FederatedType
from hansa.errors import TraceError
from hansa.local import LocalComputation
from hansa.templates import IterativeProcess
from hansa.templates.iterative import called, parameters_of


def compose_dataset_computation_with_computation(dataset_computation: LocalComputation, computation_body: Any) -> Any:
    """The computation with client ids in place of the clients' data sets.

    Raises:
        TraceError: no parameter of it, or more than one, is what `dataset_computation` gives.
    """
    made, asked = dataset_computation.type_signature, parameters_of(computation_body)
    data = FederatedType(made.result, CLIENTS)
    places = [k for k, kind in enumerate(asked) if kind.is_assignable_from(data)]
    if len(places) != 1:
        raise TraceError("one parameter takes the clients' data sets", expected=data, got=computation_body.type_signature)
    kinds = [FederatedType(made.parameter, CLIENTS) if k in places else kind for k, kind in enumerate(asked)]

    def with_data(args: list[Any]) -> Any:
        given = [federated_map(dataset_computation, arg) if k in places else arg for k, arg in enumerate(args)]
        return called(computation_body, *given)

    def evaluate(client_data: Any) -> Any:
        return with_data([client_data])

    def step(state: Any, client_data: Any) -> Any:
        return with_data([state, client_data])

    if len(kinds) > 2:
        raise TraceError("a computation of a state and data, or of data alone", got=computation_body.type_signature)
    return federated_computation(step if len(kinds) == 2 else evaluate, *kinds)


def compose_dataset_computation_with_iterative_process(
    dataset_computation: LocalComputation, process: IterativeProcess
) -> IterativeProcess:
    """The process with client ids in place of the clients' data sets.

    Raises:
        TraceError: as `compose_dataset_computation_with_computation`.
    """
    return IterativeProcess(process.initialize, compose_dataset_computation_with_computation(dataset_computation, process.next))
