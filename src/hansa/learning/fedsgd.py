"""FedSGD: one gradient of each site, added up or averaged (McMahan 2017, https://arxiv.org/abs/1602.05629, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Unpack

from hansa.aggregation.accumulate import Accumulator
from hansa.aggregation.mean import Mean
from hansa.aggregation.sums import Sum
from hansa.core import trees
from hansa.core.protocols import Learner
from hansa.core.trees import Tree
from hansa.errors import ConfigError
from hansa.learning.on_site import SiteLearner
from hansa.learning.optimizers import parted
from hansa.learning.rounds import Rounds
from hansa.learning.templates import Options, Setup, State


def fedsgd(
    learner: Learner | SiteLearner,
    *,
    rounds: int,
    cohort: int | None = None,
    combine: Literal["sum", "mean"] = "sum",
    **options: Unpack[Options],
) -> Rounds:
    """Rounds of FedSGD over `cohort` sites (None: all): each takes one step on all its training rows and sends it.

        u_i = -lr * grad F_i(w)                the minus is in the update: the server adds
        w <- w + sum_i u_i                     combine="sum": m sites go m times as far as one
        w <- w + sum_i n_i u_i / sum_i n_i     combine="mean": by training rows, the pooled rows' gradient step exactly

    F_i is the mean loss over a site's rows, lr the learner's step size or `client_lr`; the learner's rule has to be plain SGD, and
    one that says it has another is refused (see `Setup.of`). Counters and the running statistics of batch norm are averaged
    either way. `weighting` speaks of means alone; an `aggregator` replaces either. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(fedsgd(logistic(features=4), rounds=2, combine="mean").about)
    fedsgd, 2 rounds, numpy.logistic(features=4, lr=0.1, epochs=1, batch=32), steps=1, batch=0

    Raises:
        ConfigError: an option is out of its range, would be another number of steps, or the learner's rule is not SGD; names it.
    """
    if combine not in ("sum", "mean"):
        raise ConfigError("no such way to combine", path="combine", expected="sum or mean", got=repr(combine))
    chosen: Options = options
    if combine == "sum" and options.get("aggregator") is None:
        chosen = {**options, "aggregator": SumOfSteps()}
    if options.get("epochs") is not None:
        raise ConfigError("fedsgd never takes 'epochs'", path="epochs", got=options["epochs"], hint="it is always one step")
    setup = Setup.of(learner, chosen, algorithm=fedsgd, plain_sgd=True, steps=1, batch=0)
    gradient_step = setup.local_training("gradient_step")

    def add_steps(state: State, steps: Tree) -> State:
        return setup.advanced(state, steps)

    step = setup.round_of("fedsgd_round", gradient_step, add_steps)
    return setup.rounds(step, setup.initialize(), rounds=rounds, cohort=cohort, name="fedsgd")


@dataclass(frozen=True, slots=True)
class SumOfSteps:
    """The sum of the leaves that gradients move, and the weighted mean of all others.

    The running statistics of batch norm are each site's own estimate of one thing: m of them added up go m times too far, and a
    variance below zero.

    >>> import numpy as np
    >>> steps = SumOfSteps()
    >>> acc = steps.zero({"w": np.ones(1), "bn.running_var": np.ones(1)})
    >>> for change in 1.0, 3.0:
    ...     acc = steps.add(acc, {"w": np.full(1, change), "bn.running_var": np.full(1, change)}, 1.0)
    >>> steps.finish(acc)
    {'w': array([4.]), 'bn.running_var': array([2.])}
    """

    def zero(self, like: Tree) -> tuple[Accumulator, Accumulator]:
        """Two empty accumulators, for steps and for statistics."""
        moved, counted = parted(like)
        return Sum().zero(moved), Mean().zero(counted)

    def add(self, acc: tuple[Accumulator, Accumulator], update: Tree, weight: float) -> tuple[Accumulator, Accumulator]:
        """Both with one more update.

        Raises:
            SpecError, WeightError: as `Mean.add`; nothing was added.
        """
        moved, counted = parted(update)
        acc[0].spec.check(moved)  # before the statistics are added
        statistics = Mean().add(acc[1], counted, weight)
        return Sum().add(acc[0], moved), statistics

    def merge(
        self, left: tuple[Accumulator, Accumulator], right: tuple[Accumulator, Accumulator]
    ) -> tuple[Accumulator, Accumulator]:
        """Both of both."""
        return Sum().merge(left[0], right[0]), Mean().merge(left[1], right[1])

    def finish(self, acc: tuple[Accumulator, Accumulator]) -> dict[str, Any]:
        """The sum and the mean, as one tree."""
        return trees.merge(Sum().finish(acc[0]), Mean().finish(acc[1]))
