"""`tff.learning.optimizers`: optimizers as pure functions."""

from hansa.learning.step_rules import (
    StepRule as Optimizer,
)
from hansa.learning.step_rules import build_adagrad, build_adam, build_adamw, build_rmsprop, build_sgdm, build_yogi

__all__ = ["Optimizer", "build_adagrad", "build_adam", "build_adamw", "build_rmsprop", "build_sgdm", "build_yogi"]
