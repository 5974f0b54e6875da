"""`tff.templates`: processes that share a state."""

from hansa.templates import (
    AggregationNotFederatedError,
    AggregationPlacementError,
    AggregationProcess,
    EstimateNotAssignableError,
    EstimationProcess,
    IterativeProcess,
    MeasuredProcess,
    MeasuredProcessOutput,
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateNotMeasuredProcessOutputError,
    TemplateStateNotAssignableError,
    chain_measured_processes,
    concatenate_measured_processes,
)

__all__ = [
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
    "chain_measured_processes",
    "concatenate_measured_processes",
]
