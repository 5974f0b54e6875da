"""What learning algorithms share: client training, evaluation, and rounds composed of them.

An algorithm is one file: a client function and a server function in one typed computation, and `Setup.rounds`, which adds the
rest. See `fedavg.py`, the shortest.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from hansa.aggregation.mean import Mean
from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_aggregate, federated_broadcast, federated_eval, federated_map
from hansa.core.protocols import Aggregator, BatchLearner, Dataset, FitConfig, Learner, Update
from hansa.core.round import Policy
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Tree
from hansa.core.types import (
    SERVER,
    TREE,
    Clients,
    ObjectType,
    Server,
    TensorType,
    Type,
    to_type,
)
from hansa.core.workflow import Process
from hansa.errors import ConfigError, DataError
from hansa.learning import options as option
from hansa.learning import schedules
from hansa.learning.composed import composed_round, named, process_of, with_aggregator
from hansa.learning.metrics import evaluation, resolve, scorer
from hansa.learning.on_site import SiteLearner, reported
from hansa.learning.optimizers import Optimizer, advance
from hansa.learning.options import Options, changed
from hansa.learning.personal import Personal, memory_of
from hansa.learning.rounds import Rounds, Watch
from hansa.learning.schedules import Checked, Constant
from hansa.learning.standardise import Standardised, standardised_start
from hansa.learning.state import State
from hansa.stacked import Stacked
from hansa.templates import AggregationProcess

__all__ = ["ClientStep", "Options", "Setup", "State", "admitted", "memory_of", "training"]

TRAINING: tuple[tuple[str, Type], ...] = (("model", TREE), ("round", TensorType(np.int32)))


class ClientStep(NamedTuple):
    """What leaves a client: the change of the shared leaves, its weight, and what it reports about itself."""

    delta: Tree
    weight: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Setup:
    """A learner with the options of an algorithm. `config` is what each local training is asked for besides its step size."""

    learner: Learner | SiteLearner
    options: Options
    config: FitConfig = dataclasses.field(default_factory=FitConfig)
    weighting: Literal["examples", "uniform"] = "examples"  # what the algorithm does where the options say nothing

    @staticmethod
    def of(
        learner: Learner | SiteLearner,
        options: Options,
        *,
        algorithm: Callable[..., Any] | None = None,
        plain_sgd: bool = False,
        **config: Any,
    ) -> Setup:
        """The setup of a learner; `config` are the algorithm's own fields of FitConfig, `algorithm` is named in errors.

        `plain_sgd` says that the algorithm's arithmetic holds for plain SGD alone. A learner tells its step rule by a property
        `rule`, "sgd" or another name; one without it, or whose rule is None (a loop of the user's own), is taken at its word.

        Raises:
            ConfigError: an option is unknown or out of its range, the learner is none or has another rule.
        """
        needs = () if isinstance(learner, SiteLearner) else ("init", "fit", "evaluate", "predict", "metrics")
        if missing := [name for name in needs if not hasattr(learner, name)]:
            hint = "wrap a framework's model, as hansa.adapters.torch.TorchLearner does"
            raise ConfigError(f"not a Learner: it has no {missing[0]}", path="learner", got=type(learner).__name__, hint=hint)
        rule = getattr(learner, "rule", None)
        if plain_sgd and rule not in (None, "sgd"):
            called = "this algorithm" if algorithm is None else algorithm.__name__
            raise ConfigError(
                f"{called} is for sites that take plain SGD steps", path="learner.optimizer", expected="sgd", got=rule
            )
        option.check(options, algorithm=algorithm, fixed=config)
        if isinstance(learner, SiteLearner):
            option.check_on_site(options)
        asked: dict[str, Any] = {name: options.get(name) for name in ("epochs", "steps", "batch", "clip")}
        chosen = Standardised(cast(Learner, learner)) if options.get("standardise") else learner
        return Setup(chosen, options, FitConfig(**{**asked, **config}))

    @property
    def aggregator(self) -> Aggregator[Any]:
        """How updates are combined, one after the other: the option's, else the weighted mean.

        Raises:
            ConfigError: the option's is a composed one, which `round_of` alone takes.
        """
        if self.composed is not None:
            hint = "fedavg, fedprox, fedopt and fedper take composed ones"
            raise ConfigError("this algorithm takes a streaming aggregator", path="aggregator", got=repr(self.composed), hint=hint)
        return cast("Aggregator[Any]", self.options.get("aggregator")) or Mean()

    @functools.cached_property
    def composed(self) -> AggregationProcess | None:
        """The aggregation with a state of its own, where the option is one."""
        return process_of(named(self.options.get("aggregator")))

    @property
    def weight_cap(self) -> float:
        """The largest weight that a site may claim."""
        return self.options.get("weight_cap", float("inf"))

    @functools.cached_property
    def schedule(self) -> Checked | None:
        """The clients' step size by finished rounds; None leaves the learner's own."""
        spec = self.options.get("client_lr")
        return None if spec is None else schedules.of(spec, path="client_lr")

    @functools.cached_property
    def personal(self) -> Personal:
        """The layers that stay at the site."""
        o = self.options
        return Personal(self.learner, tuple(o.get("personal", ())), o.get("init"), o.get("keep_local", False))

    @property
    def about(self) -> str:
        """The learner and what is asked of it, as a plan prints them: only what is set."""
        asked = changed(self.config)
        if self.schedule is not None:
            asked.append(f"client_lr={self.schedule!r}")
        if self.personal.patterns:
            asked.append(f"personal={list(self.personal.patterns)}")
        if self.personal.keep_local:
            asked.append("keep_local=True")
        if self.options.get("weighting", self.weighting) != self.weighting:
            asked.append(f"weighting={self.options['weighting']}")
        if self.weight_cap != float("inf"):
            asked.append(f"weight_cap={self.weight_cap!r}")
        return ", ".join([repr(self.learner), *asked])

    def weight(self, examples: int) -> int:
        """The weight of an update from a site with so many training rows."""
        return examples if self.options.get("weighting", self.weighting) == "examples" else 1

    def shared(self, model: Tree) -> Tree:
        """The leaves that cross between server and sites: all but the personal ones."""
        return self.personal.shared(model)

    def fit_config(self, done: int, **more: Any) -> FitConfig:
        """What one local training is asked for after `done` rounds."""
        if self.schedule is None and not more:
            return self.config
        lr = self.config.lr if self.schedule is None else self.schedule(done)
        return dataclasses.replace(self.config, lr=lr, **more)

    def local_training(self, name: str = "local_train") -> LocalFunction:
        """The client function `(model, round, data) -> ClientStep`, with its batched form where the learner has one."""
        on_site = self.learner if isinstance(self.learner, SiteLearner) else None
        learner = cast(Learner, self.learner)  # where it is not on_site

        def train(model: Tree, done: int, data: Dataset, *, ctx: FLContext, abort: Signal) -> ClientStep:
            start = self.personal.whole(model, data, ctx)
            if on_site is not None:
                update, said = on_site.fit_at(start, data, self.fit_config(done), ctx=ctx, abort=abort)
                delta = self.personal.keep(start, update, ctx)
                return ClientStep(delta, self.weight(update.examples), {**said, "examples": float(update.examples)})
            update = learner.fit(start, training(data), self.fit_config(done), rng=ctx.rng("fit"), abort=abort)
            return self.step(self.personal.keep(start, update, ctx), update)

        def train_many(rows: Sequence[tuple[Tree, int, Dataset]], contexts: Sequence[FLContext], _: Signal) -> Sequence[ClientStep]:
            starts = [self.personal.whole(model, data, ctx) for (model, _, data), ctx in zip(rows, contexts, strict=True)]
            configs = [self.fit_config(done) for _, done, _ in rows]
            updates = self.fit_many(starts, [data for *_, data in rows], configs, contexts)
            if isinstance(updates, Stacked) and not (self.personal.patterns or self.personal.keep_local):
                return self.steps(updates)
            kept = [self.personal.keep(s, u, ctx) for s, u, ctx in zip(starts, updates, contexts, strict=True)]
            return [self.step(delta, update) for delta, update in zip(kept, updates, strict=True)]

        return self.client_function(name, train, train_many, TRAINING, ClientStep)

    def client_function(
        self,
        name: str,
        one: Callable[..., Any],
        many: Callable[..., Sequence[Any]],
        takes: tuple[tuple[str, Type], ...],
        result: type,
    ) -> LocalFunction:
        """A client function that ends in `data`, is given `ctx` and `abort`, and prints the learner in plans."""
        parameters = (*takes, ("data", ObjectType("Dataset")))
        fitting = self.learner.inner if isinstance(self.learner, Standardised) else self.learner
        batched = many if isinstance(fitting, BatchLearner) else None
        return LocalFunction(one, name, parameters, to_type(result), frozenset({"ctx", "abort"}), batched, about=self.about)

    def fit_many(
        self, models: Sequence[Tree], data: Sequence[Dataset], configs: Sequence[FitConfig], contexts: Sequence[FLContext]
    ) -> Sequence[Update]:
        """The updates of many clients in one call of the learner."""
        learner = cast(BatchLearner, self.learner)  # client_function gives a batched form to batch learners only
        return learner.fit_many(models, [training(d) for d in data], configs, rngs=[ctx.rng("fit") for ctx in contexts])

    def step(self, delta: Tree, update: Update) -> ClientStep:
        """What leaves the client after an update."""
        return ClientStep(delta, self.weight(update.examples), {"train_loss": update.loss, "examples": float(update.examples)})

    def steps(self, updates: Stacked) -> Stacked:
        """The same for many clients, as columns."""
        update, rows = updates.whole, updates.whole.examples
        said = {"train_loss": update.loss, "examples": rows.astype(np.float64)}
        weights = rows if self.options.get("weighting", self.weighting) == "examples" else np.ones_like(rows)
        return Stacked(ClientStep(update.delta, weights, said), len(updates))

    def round_of(self, name: str, train: LocalFunction, server: Callable[[State, Tree], State]) -> Computation:
        """The round of an algorithm that is a pair of functions: what a site does, and what the server makes of the changes.

        The shared leaves and the number of finished rounds go out to `train`; its changes come back combined to `server`.
        """
        if self.composed is not None:
            return composed_round(
                self.composed, functools.partial(self.trained, train), server, name=name, weight_cap=self.weight_cap
            )

        def next_round(state: Server[State], data: Clients[Dataset]) -> Server[State]:
            shared, step = self.trained(train, state, data)
            delta = federated_aggregate(step.delta, self.aggregator, weight=step.weight, like=shared, weight_cap=self.weight_cap)
            return federated_map(server, (state, delta))

        next_round.__name__ = name
        return federated_computation(next_round)

    def trained(self, train: LocalFunction, state: State, data: Dataset) -> tuple[Tree, ClientStep]:
        """While a round is traced: the shared leaves of the model, and what the clients make of them."""
        shared = federated_map(self.shared, state.model)
        return shared, federated_map(train, (federated_broadcast(shared), federated_broadcast(state.round), data))

    def advanced(
        self, state: State, delta: Tree, *, lr: float = 1.0, optimizer: Optimizer | None = None, extra: Tree | None = None
    ) -> State:
        """The state after a round whose shared leaves moved along `delta`; `extra` replaces what the optimizer would keep."""
        slots = {} if optimizer is None else state.extra
        shared, kept = advance(self.shared(state.model), delta, lr=lr, optimizer=optimizer, state=slots, number=state.round + 1)
        # A personal leaf stays as it started: the server never learns what became of it.
        model = trees.merge(state.model, shared) if self.personal.patterns else shared
        return State(model, state.round + 1, kept if extra is None else extra)

    def initialize(self, extra: Callable[[Tree], Tree] = lambda _: {}, *, alone: bool = False) -> Computation:
        """The computation that makes the first state; `extra` is what the algorithm keeps besides the model.

        `alone` says that no layer needs to be shared.
        """

        def state_of(model: Tree) -> State:
            self.personal.check(model, may_cover=alone)
            return State(model, 0, extra(self.shared(model)))

        def first_state(*, ctx: FLContext) -> State:
            return state_of(self.personal.start(ctx.seed))

        @federated_computation
        def initialize() -> Server[State]:
            return federated_eval(first_state, SERVER)

        if isinstance(self.learner, Standardised) and not self.personal.own_statistics:
            initialize = standardised_start(self.personal.start, state_of, State)
        return initialize if self.composed is None else with_aggregator(initialize, self.composed)

    def rounds(
        self,
        step: Computation,
        initialize: Computation,
        *,
        rounds: int,
        cohort: int | None,
        name: str,
        server_lr: Checked | None = None,
        settings: Sequence[str] = (),
    ) -> Rounds:
        """The rounds of an algorithm whose `next` is `step`; `server_lr` and `settings` are the algorithm's own, for its plan."""
        o = self.options
        named = self.learner.metrics if o.get("metrics") is None else o["metrics"] or ()
        on_site, learner = isinstance(self.learner, SiteLearner), cast(Learner, self.learner)  # one is asked for `predict` first
        metrics = reported(named) if on_site else resolve(named)

        def values(sums: Tree) -> dict[str, float]:
            return {metric.name: metric.value(cast(Tree, sums[metric.name])) for metric in metrics}

        def with_model(state: State, model: Tree) -> State:
            if self.personal.patterns:
                self.personal.check_init(state.model, model)
            return state._replace(model=trees.copy(model))

        process = Process(
            initialize=initialize,
            next=step,
            evaluate=evaluation(self.personal, "valid", metrics),
            test=evaluation(self.personal, "test", metrics),
            model=lambda state: state.model,
            with_model=with_model,
            values=values,
            higher={metric.name: metric.higher_is_better for metric in metrics},
            score=scorer(learner, o.get("test"), metrics),
        )
        policy = Policy(
            cohort=cohort,
            quorum=o.get("quorum", 1),
            deadline_s=o.get("deadline_s"),
            over_select=o.get("over_select", 0.0),
            attempts=o.get("attempts", 1),
        )
        watch = Watch(
            o.get("evaluate_every", 1),
            o.get("evaluate_sites", "none" if on_site and not metrics else "cohort"),
            o.get("monitor"),
            o.get("patience"),
        )
        stepped = server_lr is not None and server_lr.schedule != Constant(1.0)
        own = [*settings, *([f"server_lr={server_lr!r}"] if stepped else [])]
        said = [f"{name}, {rounds} rounds", *own, *changed(policy), *changed(watch), self.about, *option.given_data(o)]
        made = Rounds(process, rounds, policy, watch, learner, ", ".join(said), o.get("init"))
        for schedule in (self.schedule, server_lr):
            if schedule is not None:
                schedule.check(rounds)
        return made


def admitted(reply: object) -> int:
    """While a round is traced: how many sites sent this and were admitted. The server counts: no site can claim to be several."""
    return federated_aggregate(reply, 0, _one_more, _both, _count)


def _one_more(count: int, reply: object) -> int:  # noqa: ARG001  whatever a site claims, it is one
    return count + 1


def _both(left: int, right: int) -> int:
    return left + right


def _count(count: int) -> int:
    return count


def training(data: Dataset) -> Dataset:
    """The training rows of a site.

    Raises:
        DataError: there are none.
    """
    rows = data.part("train")
    if len(rows) == 0:
        raise DataError("the site has no training rows", hint="give it more rows, or another split")
    return rows
