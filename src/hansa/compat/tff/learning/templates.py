"""`tff.learning.templates`: learning processes of four parts."""

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

__all__ = [
    "ClientResult",
    "ClientWorkProcess",
    "DistributionProcess",
    "FinalizerProcess",
    "LearningAlgorithmState",
    "LearningProcess",
    "LearningProcessOutput",
    "build_broadcast_process",
    "compose_learning_process",
]
