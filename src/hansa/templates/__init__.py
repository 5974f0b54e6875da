"""Processes: computations that share a state, checked against one another when they are put together."""

from hansa.templates.aggregation import (
    AggregationFactory,
    AggregationProcess,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from hansa.templates.errors import (
    AggregationNotFederatedError,
    AggregationPlacementError,
    EstimateNotAssignableError,
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateNotMeasuredProcessOutputError,
    TemplateStateNotAssignableError,
)
from hansa.templates.estimation import EstimationProcess
from hansa.templates.iterative import IterativeProcess
from hansa.templates.measured import (
    MeasuredProcess,
    MeasuredProcessOutput,
    chain_measured_processes,
    concatenate_measured_processes,
)

__all__ = [
    "AggregationFactory",
    "AggregationNotFederatedError",
    "AggregationPlacementError",
    "AggregationProcess",
    "EstimateNotAssignableError",
    "EstimationProcess",
    "IterativeProcess",
    "MeasuredProcess",
    "MeasuredProcessOutput",
    "TemplateInitFnParamNotEmptyError",
    "TemplateNextFnNumArgsError",
    "TemplateNotMeasuredProcessOutputError",
    "TemplateStateNotAssignableError",
    "UnweightedAggregationFactory",
    "WeightedAggregationFactory",
    "chain_measured_processes",
    "concatenate_measured_processes",
]
