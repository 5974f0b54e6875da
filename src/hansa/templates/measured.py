"""Processes whose step gives a result and measurements beside the state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_zip
from hansa.core.types import FederatedType, StructType
from hansa.errors import TraceError
from hansa.templates.errors import TemplateNextFnNumArgsError, TemplateNotMeasuredProcessOutputError
from hansa.templates.iterative import IterativeProcess, TypedFunction, called, parameters_of, signature_of


class MeasuredProcessOutput(NamedTuple):
    """What a step gives: the next state, its result, and what was measured on the way."""

    state: Any
    result: Any
    measurements: Any


class MeasuredProcess(IterativeProcess):
    """An IterativeProcess whose `next` gives a MeasuredProcessOutput: `(<S,...> -> <state=S,result=R,measurements=M>)`.

    Raises:
        TemplateNotMeasuredProcessOutputError: `next` gives something else.
        TraceError: as IterativeProcess.
    """

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction, next_is_multi_arg: bool | None = None) -> None:
        super().__init__(initialize_fn, next_fn, next_is_multi_arg)
        given = signature_of(next_fn, "next").result
        if not isinstance(given, StructType) or given.container is not MeasuredProcessOutput:
            hint = "return MeasuredProcessOutput(state, result, measurements), not zipped"
            raise TemplateNotMeasuredProcessOutputError(
                "`next` gives no MeasuredProcessOutput", expected="<state=S,result=R,measurements=M>", got=given, hint=hint
            )


def chain_measured_processes(measured_processes: Mapping[str, MeasuredProcess]) -> MeasuredProcess:
    """The processes one after another: the result of each is the value of the next. State and measurements are structs by name.

    Raises:
        TraceError: there are none, or a result is not what the next process takes; names it.
    """
    _check(measured_processes)
    names = list(measured_processes)

    def next_fn(state: Any, values: Any) -> MeasuredProcessOutput:
        outputs: OrderedDict[str, Any] = OrderedDict()
        for name in names:
            outputs[name] = called(measured_processes[name].next, state[name], values)
            values = outputs[name].result
        return MeasuredProcessOutput(_parts(outputs, "state"), values, _parts(outputs, "measurements"))

    return _combined(measured_processes, next_fn, parameters_of(measured_processes[names[0]].next)[1])


def concatenate_measured_processes(measured_processes: Mapping[str, MeasuredProcess]) -> MeasuredProcess:
    """The processes side by side: values, results, states and measurements are structs by name.

    Raises:
        TraceError: there are none, or one has other than two arguments.
    """
    _check(measured_processes)

    def next_fn(state: Any, values: Any) -> MeasuredProcessOutput:
        outputs = OrderedDict((name, called(each.next, state[name], values[name])) for name, each in measured_processes.items())
        result = OrderedDict((name, output.result) for name, output in outputs.items())
        return MeasuredProcessOutput(_parts(outputs, "state"), result, _parts(outputs, "measurements"))

    takes = StructType([(name, parameters_of(each.next)[1]) for name, each in measured_processes.items()], OrderedDict)
    return _combined(measured_processes, next_fn, takes)


def _combined(processes: Mapping[str, MeasuredProcess], next_fn: Any, takes: object) -> MeasuredProcess:
    @federated_computation
    def initialize() -> Any:
        return federated_zip(OrderedDict((name, called(each.initialize)) for name, each in processes.items()))

    return MeasuredProcess(initialize, federated_computation(next_fn, initialize.type_signature.result, takes))


def _parts(outputs: Mapping[str, Any], part: str) -> Any:
    return federated_zip(OrderedDict((name, getattr(output, part)) for name, output in outputs.items()))


def _check(processes: Mapping[str, MeasuredProcess]) -> None:
    if not processes:
        raise TraceError("there are no processes to put together", expected="a mapping from names to measured processes")
    for name, process in processes.items():
        if len(parameters_of(process.next)) != 2:
            raise TemplateNextFnNumArgsError(
                "`next` takes a state and values", path=name, expected=2, got=process.next.type_signature
            )
        if not isinstance(process.state_type, FederatedType):
            raise TraceError("the state of a process that is put together is at a placement", path=name, got=process.state_type)
