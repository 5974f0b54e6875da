"""Aggregations with a state: what clients hold becomes one value at the server, and something is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias

from hansa.core.types import CLIENTS, SERVER, FederatedType, Placement, StructType, Type
from hansa.templates.errors import AggregationNotFederatedError, AggregationPlacementError, TemplateNextFnNumArgsError
from hansa.templates.iterative import TypedFunction, parameters_of, signature_of
from hansa.templates.measured import MeasuredProcess

TIP = "tip: a struct of federated values becomes one with hs.federated_zip"


class AggregationProcess(MeasuredProcess):
    """`initialize: ( -> S@SERVER)`, `next: (<S@SERVER,{V}@CLIENTS,...> -> <state=S@SERVER,result=R@SERVER,measurements=M@SERVER>)`.

    A third argument at the clients is the weight of the value.

    Raises:
        AggregationNotFederatedError: a state, the value or a result has no placement.
        AggregationPlacementError: it is at the wrong one; says which.
        TraceError: as MeasuredProcess.
    """

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction, next_is_multi_arg: bool | None = None) -> None:
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        started, stepped = signature_of(initialize_fn, "initialize"), signature_of(next_fn, "next")
        takes = parameters_of(next_fn)
        if len(takes) < 2:
            raise TemplateNextFnNumArgsError("`next` takes a state and the clients' values", expected="two or more", got=stepped)
        names = list(getattr(next_fn, "arguments", ())) or [f"argument {i}" for i in range(len(takes))]
        placed(started.result, SERVER, "the result of `initialize`")
        placed(takes[0], SERVER, "the state that `next` takes")
        placed(takes[1], CLIENTS, f"`{names[1]}` of `next`")
        for name, kind in _elements(stepped.result):
            placed(kind, SERVER, f"`{name}` that `next` gives")
        self._weighted = len(takes) == 3

    @property
    def is_weighted(self) -> bool:
        """Whether `next` takes a weight beside the value."""
        return self._weighted


def placed(kind: Type, placement: Placement, what: str) -> Type:
    """The member of a federated type at the placement.

    Raises:
        AggregationNotFederatedError: it has no placement.
        AggregationPlacementError: it has another.
    """
    if not isinstance(kind, FederatedType):
        raise AggregationNotFederatedError(f"{what} is at no placement", expected=f"a value at {placement}", got=kind, hint=TIP)
    if kind.placement is not placement:
        raise AggregationPlacementError(f"{what} is at the wrong placement", expected=f"a value at {placement}", got=kind)
    return kind.member


def _elements(kind: Type) -> Iterator[tuple[str | None, Type]]:
    return kind.items() if isinstance(kind, StructType) else iter([(None, kind)])


class UnweightedAggregationFactory(ABC):
    """Makes the AggregationProcess of a type of values that all count the same."""

    @abstractmethod
    def create(self, value_type: Type) -> AggregationProcess:
        """The process for `{value_type}@CLIENTS`."""


class WeightedAggregationFactory(ABC):
    """Makes the AggregationProcess of a type of values with weights."""

    @abstractmethod
    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        """The process for `{value_type}@CLIENTS` with weights `{weight_type}@CLIENTS`."""


AggregationFactory: TypeAlias = UnweightedAggregationFactory | WeightedAggregationFactory
