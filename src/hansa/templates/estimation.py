"""Processes that estimate something from what they are given, such as a quantile of norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_map
from hansa.core.types import SERVER, FederatedType
from hansa.errors import TraceError
from hansa.templates.errors import EstimateNotAssignableError, TemplateNextFnNumArgsError, TemplateStateNotAssignableError
from hansa.templates.iterative import IterativeProcess, TypedFunction, called, parameters_of, signature_of


class EstimationProcess(IterativeProcess):
    """An IterativeProcess with `report: (S -> R)`, the estimate that a state stands for.

    Raises:
        TemplateNextFnNumArgsError: `report` takes other than the state.
        TemplateStateNotAssignableError: it does not take this state; names both types.
        TraceError: as IterativeProcess.
    """

    def __init__(
        self,
        initialize_fn: TypedFunction,
        next_fn: TypedFunction,
        report_fn: TypedFunction,
        next_is_multi_arg: bool | None = None,
    ) -> None:
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        reported = signature_of(report_fn, "report")
        if len(takes := parameters_of(report_fn)) != 1:
            raise TemplateNextFnNumArgsError("`report` takes the state alone", expected=f"({self.state_type} -> R)", got=reported)
        if not takes[0].is_assignable_from(self.state_type):
            raise TemplateStateNotAssignableError("`report` does not take the state", expected=takes[0], got=self.state_type)
        self._report = report_fn

    @property
    def report(self) -> TypedFunction:
        """The estimate of a state."""
        return self._report

    def map(self, map_fn: Callable[..., Any]) -> EstimationProcess:
        """The process whose estimate is `map_fn` of this one's: a local computation where the estimate is at the server.

        Raises:
            EstimateNotAssignableError: the function does not take the estimate.
        """
        estimate = self._report.type_signature.result
        at_server = isinstance(estimate, FederatedType) and estimate.placement is SERVER

        def report(state: Any) -> Any:
            found = called(self._report, state)
            return federated_map(map_fn, found) if at_server else map_fn(found)

        try:
            mapped = federated_computation(report, self.state_type)
        except TraceError as error:
            raise EstimateNotAssignableError("the function does not take the estimate", got=estimate, hint=str(error)) from error
        return EstimationProcess(self._initialize, self._next, mapped)
