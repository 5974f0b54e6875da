"""What may be wrong with a process, under TensorFlow Federated's names: each is a TraceError, found when the process is made."""

from hansa.errors import TraceError


class TemplateInitFnParamNotEmptyError(TraceError):
    """`initialize` takes an argument."""


class TemplateStateNotAssignableError(TraceError):
    """What `initialize` or `next` gives cannot be the state that `next` (or `report`) takes."""


class TemplateNextFnNumArgsError(TraceError):
    """`next` takes another number of arguments than its process has."""


class TemplateNotMeasuredProcessOutputError(TraceError):
    """`next` gives something else than a MeasuredProcessOutput."""


class AggregationNotFederatedError(TraceError):
    """A state, a value or a result of an aggregation has no placement."""


class AggregationPlacementError(TraceError):
    """A state, a value or a result of an aggregation is at the wrong placement."""


class EstimateNotAssignableError(TraceError):
    """A function that should map an estimate does not take it."""
