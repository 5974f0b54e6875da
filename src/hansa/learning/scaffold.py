"""SCAFFOLD: control variates correct the drift of local steps (Karimireddy 2020, https://arxiv.org/abs/1910.06378, option II)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Unpack, cast

import numpy as np

from hansa.aggregation.mean import Mean
from hansa.core import trees
from hansa.core.computation import federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_aggregate, federated_broadcast, federated_map
from hansa.core.protocols import Dataset, Learner, Update
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TREE, Clients, Server
from hansa.errors import ConfigError, RunError
from hansa.learning import schedules
from hansa.learning.on_site import SiteLearner
from hansa.learning.optimizers import trained
from hansa.learning.rounds import Rounds
from hansa.learning.schedules import Schedule
from hansa.learning.templates import TRAINING, Options, Setup, State, admitted, memory_of, training


class ControlledStep(NamedTuple):
    """What leaves a client: the change of the model and of its control variate, its weight and its metrics."""

    delta: Tree
    control: Tree
    weight: int
    metrics: dict[str, float]


def scaffold(
    learner: Learner,
    *,
    rounds: int,
    cohort: int | None = None,
    server_lr: float | Schedule | Mapping[str, Any] = 1.0,
    **options: Unpack[Options],
) -> Rounds:
    """Rounds of SCAFFOLD over `cohort` sites (None: all). A site keeps c_i in its memory, the server c; both start at zero.

        y_i    <- K local steps from w along grad F_i(y) + (c - c_i)      delta_i = y_i - w
        c_i+    = c_i - c - delta_i / (K lr)                              only c_i+ - c_i leaves the site
        w      <- w + server_lr * mean delta_i
        c      <- c + |S|/N * mean (c_i+ - c_i)                           |S| sites took part, of N

    The means are uniform, as in the paper, unless `weighting="examples"` weighs the first. Only leaves that gradients move have a
    control. The learner's rule has to be plain SGD, for which delta_i / (K lr) is the mean of its steps: one that says it has
    another is refused (see `Setup.of`). `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(scaffold(logistic(features=4), rounds=2).process.next.type_signature.result)
    <model=Tree,round=int32,extra=Tree>@SERVER

    Raises:
        ConfigError: an option is out of its range, or the learner takes other steps than SGD's; names it.
    """
    if isinstance(learner, SiteLearner):
        hint = "take fedavg or fedopt, or fedprox with a script that honours proximal"
        raise ConfigError("scaffold corrects each step, which it cannot do in a script", path="learner", hint=hint)
    setup = replace(Setup.of(learner, options, algorithm=scaffold, plain_sgd=True), weighting="uniform")
    train = _controlled_training(setup)
    server_step = schedules.of(server_lr, path="server_lr")

    def update(state: State, delta: Tree, change: Tree, sites: int, *, ctx: FLContext) -> State:
        share = sites / ctx.population
        control = trees.map(lambda c, d: _narrow(_wide(c) + share * _wide(d), c), state.extra, change)
        return setup.advanced(state, delta, lr=server_step(state.round), extra=control)

    @federated_computation
    def scaffold_round(state: Server[State], data: Clients[Dataset]) -> Server[State]:
        shared = federated_map(setup.shared, state.model)
        sent = (federated_broadcast(shared), federated_broadcast(state.round), federated_broadcast(state.extra), data)
        step = federated_map(train, sent)
        weight = step.weight
        delta = federated_aggregate(step.delta, setup.aggregator, weight=weight, like=shared, weight_cap=setup.weight_cap)
        change = federated_aggregate(step.control, Mean(), like=state.extra)
        return federated_map(update, (state, delta, change, admitted(weight)))

    initialize = setup.initialize(lambda shared: trees.zeros(trained(shared)))
    return setup.rounds(scaffold_round, initialize, rounds=rounds, cohort=cohort, name="scaffold", server_lr=server_step)


def _controlled_training(setup: Setup) -> LocalFunction:
    """The client function `(model, round, control, data) -> ControlledStep`."""

    def correction(control: Tree, ctx: FLContext) -> Tree:
        return trees.subtract(control, _control_of(control, ctx))

    def train(model: Tree, done: int, control: Tree, data: Dataset, *, ctx: FLContext, abort: Signal) -> ControlledStep:
        start = setup.personal.whole(model, data, ctx)
        config = setup.fit_config(done, correction=correction(control, ctx))
        update = cast(Learner, setup.learner).fit(start, training(data), config, rng=ctx.rng("fit"), abort=abort)
        return _finished(setup, start, control, update, ctx)

    def train_many(
        rows: Sequence[tuple[Tree, int, Tree, Dataset]], contexts: Sequence[FLContext], _: Signal
    ) -> list[ControlledStep]:
        starts = [setup.personal.whole(row[0], row[3], ctx) for row, ctx in zip(rows, contexts, strict=True)]
        configs = [setup.fit_config(row[1], correction=correction(row[2], ctx)) for row, ctx in zip(rows, contexts, strict=True)]
        updates = setup.fit_many(starts, [row[3] for row in rows], configs, contexts)
        done = zip(starts, rows, updates, contexts, strict=True)
        return [_finished(setup, start, row[2], update, ctx) for start, row, update, ctx in done]

    return setup.client_function("controlled_train", train, train_many, (*TRAINING, ("control", TREE)), ControlledStep)


def _finished(setup: Setup, start: Tree, control: Tree, update: Update, ctx: FLContext) -> ControlledStep:
    """The step that leaves; the site's new control variate goes into its memory."""
    reach = update.steps * update.lr
    if not reach > 0:
        raise RunError(
            "SCAFFOLD divides by steps times step size", got=f"{update.steps} steps of {update.lr}", site=ctx.site or None
        )
    delta = setup.personal.keep(start, update, ctx)
    before = _control_of(control, ctx)
    after = trees.map(
        lambda own, c, d: _narrow(_wide(own) - _wide(c) - _wide(d) / reach, own), before, control, _like(control, delta)
    )
    memory_of(ctx).put("control", after)
    step = setup.step(delta, update)
    return ControlledStep(step.delta, trees.subtract(after, before), step.weight, step.metrics)


def _control_of(control: Tree, ctx: FLContext) -> Tree:
    """The site's own control variate; zero before its first round."""
    own: Tree | None = memory_of(ctx).get("control")
    return trees.zeros(control) if own is None else own


def _like(control: Tree, delta: Tree) -> Tree:
    """The leaves of an update that have a control."""
    flat = trees.flatten(delta)
    return trees.unflatten({path: flat[path] for path, _ in trees.leaves(control)})


def _wide(leaf: Array) -> Array:
    return leaf.astype(np.float64)


def _narrow(wide: Array, like: Array) -> Array:
    return trees.cast_like(wide, like.dtype)
