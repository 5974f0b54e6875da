"""Learning as processes: what goes out, what clients do, how their updates are combined, and what the server makes of the result.

Each is checked when it is made, with both types; `hansa.learning.compose` puts four of them together to a LearningProcess.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hansa.core.graph import member_of
from hansa.core.types import CLIENTS, SERVER, StructType, Type
from hansa.errors import TraceError
from hansa.learning.state import LearningProcessOutput
from hansa.templates import IterativeProcess, MeasuredProcess, TemplateNextFnNumArgsError
from hansa.templates.aggregation import placed
from hansa.templates.iterative import TypedFunction, parameters_of, signature_of


class LearningProcessOutputError(TraceError):
    """`next` gives no LearningProcessOutput."""


class GetModelWeightsTypeSignatureError(TraceError):
    """`get_model_weights` does not take the state."""


class SetModelWeightsTypeSignatureError(TraceError):
    """`set_model_weights` does not make a state of a state and weights."""


class ClientResultTypeError(TraceError):
    """A client's work gives no ClientResult at the clients."""


class FinalizerResultTypeError(TraceError):
    """A finalizer gives something else than the model weights it was given."""


class ClientResult(NamedTuple):
    """What leaves a client: the change of the weights (after - before), and its weight."""

    update: Any
    update_weight: Any


class LearningAlgorithmState(NamedTuple):
    """The server's state of a composed learning process: the weights, and each part's own."""

    global_model_weights: Any
    distributor: Any
    client_work: Any
    aggregator: Any
    finalizer: Any


class LearningProcess(IterativeProcess):
    """`initialize: ( -> S@SERVER)`, `next: (<S@SERVER,{D}@CLIENTS> -> <state=S@SERVER,metrics=M@SERVER>)`, and the weights.

    get_model_weights: `(S -> W)`; set_model_weights: `(<S,W> -> S)`: both without a placement.

    Raises:
        LearningProcessOutputError, GetModelWeightsTypeSignatureError, SetModelWeightsTypeSignatureError: see there.
        TraceError: as IterativeProcess; or as AggregationProcess, where a value is at the wrong placement.
    """

    def __init__(
        self,
        initialize_fn: TypedFunction,
        next_fn: TypedFunction,
        get_model_weights: TypedFunction,
        set_model_weights: TypedFunction,
    ) -> None:
        super().__init__(initialize_fn, next_fn)
        stepped = signature_of(next_fn, "next")
        state = placed(self.state_type, SERVER, "the state that `next` takes")
        if len(takes := parameters_of(next_fn)) != 2:
            raise TemplateNextFnNumArgsError("`next` takes a state and the clients' data", expected=2, got=stepped)
        placed(takes[1], CLIENTS, "the data that `next` takes")
        if not isinstance(stepped.result, StructType) or stepped.result.container is not LearningProcessOutput:
            hint = "return LearningProcessOutput(state, metrics), not zipped"
            raise LearningProcessOutputError("`next` gives no LearningProcessOutput", got=stepped.result, hint=hint)
        placed(stepped.result[1], SERVER, "`metrics` that `next` gives")
        self._check_weights(state, get_model_weights, set_model_weights)
        self._get, self._set = get_model_weights, set_model_weights

    @property
    def get_model_weights(self) -> TypedFunction:
        """The weights in a state."""
        return self._get

    @property
    def set_model_weights(self) -> TypedFunction:
        """A state with other weights."""
        return self._set

    @staticmethod
    def _check_weights(state: Type, get: TypedFunction, put: TypedFunction) -> None:
        read, write = signature_of(get, "get_model_weights"), signature_of(put, "set_model_weights")
        takes = parameters_of(get)
        if len(takes) != 1 or not takes[0].is_assignable_from(state):
            raise GetModelWeightsTypeSignatureError("`get_model_weights` takes the state", expected=f"({state} -> W)", got=read)
        gives = parameters_of(put)
        fits = len(gives) == 2 and gives[0].is_assignable_from(state) and gives[1].is_assignable_from(read.result)
        if not fits or not state.is_assignable_from(write.result):
            expected = f"(<{state},{read.result}> -> {state})"
            raise SetModelWeightsTypeSignatureError("`set_model_weights` gives a state", expected=expected, got=write)


class DistributionProcess(MeasuredProcess):
    """What goes out: `next: (<S@SERVER,W@SERVER> -> <state=S@SERVER,result={A}@CLIENTS,measurements=M@SERVER>)`."""

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction) -> None:
        super().__init__(initialize_fn, next_fn)
        _check(self, "the weights that go out", (SERVER, SERVER), (SERVER, CLIENTS, SERVER))


class ClientWorkProcess(MeasuredProcess):
    """What clients do: `next: (<S@SERVER,{A}@CLIENTS,{D}@CLIENTS> -> <state,result={ClientResult}@CLIENTS,measurements>)`.

    Raises:
        ClientResultTypeError: the result is no ClientResult.
    """

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction) -> None:
        super().__init__(initialize_fn, next_fn)
        _check(self, "the weights and the data of a client's work", (SERVER, CLIENTS, CLIENTS), (SERVER, CLIENTS, SERVER))
        result = member_of(_result_of(self))
        if not isinstance(result, StructType) or result.fields() != list(ClientResult._fields):
            raise ClientResultTypeError("a client's work gives no ClientResult", expected="<update=U,update_weight=W>", got=result)


class FinalizerProcess(MeasuredProcess):
    """What becomes of the weights: `next: (<S@SERVER,W@SERVER,U@SERVER> -> <state=S@SERVER,result=W@SERVER,measurements>)`.

    Raises:
        FinalizerResultTypeError: the result is not of the weights' type.
    """

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction) -> None:
        super().__init__(initialize_fn, next_fn)
        _check(self, "the weights and the update of a finalizer", (SERVER,) * 3, (SERVER,) * 3)
        weights, result = parameters_of(self.next)[1], _result_of(self)
        if not weights.is_assignable_from(result):
            raise FinalizerResultTypeError("a finalizer gives other weights than it takes", expected=weights, got=result)


def _check(process: MeasuredProcess, what: str, takes: tuple[Any, ...], gives: tuple[Any, ...]) -> None:
    found = parameters_of(process.next)
    if len(found) != len(takes):
        raise TemplateNextFnNumArgsError(f"`next` takes the state, {what}", expected=len(takes), got=process.next.type_signature)
    for kind, place in zip(found, takes, strict=True):
        placed(kind, place, what)
    given = process.next.type_signature.result
    for (name, kind), place in zip(given.items() if isinstance(given, StructType) else (), gives, strict=True):
        placed(kind, place, f"`{name}` that `next` gives")


def _result_of(process: MeasuredProcess) -> Type:
    given = process.next.type_signature.result
    return given[1] if isinstance(given, StructType) else given
