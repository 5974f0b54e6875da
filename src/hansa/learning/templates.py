"""What learning algorithms share: options, client training, evaluation, and rounds composed of them.

An algorithm is one file: a client function and a server function in one typed computation, and `Setup.rounds`, which adds the
rest. See `fedavg.py`, the shortest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np

from hansa.aggregation.mean import Mean
from hansa.core import registry, trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_sum
from hansa.core.protocols import Aggregator, BatchLearner, Dataset, FitConfig, Learner, Metric, Part, Update
from hansa.core.round import Policy
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Tree
from hansa.core.types import SERVER, TREE, Clients, ObjectType, Server, TensorType, to_type
from hansa.core.workflow import Process, Rounds, Watch
from hansa.errors import ConfigError, DataError, RunError
from hansa.learning import schedules
from hansa.learning.schedules import Schedule
from hansa.learning.standardise import Standardised, standardised_start


class Options(TypedDict, total=False):
    """What every algorithm takes besides its own settings.

    client_lr: step size at the clients, a number or schedule of the finished rounds. epochs, steps, batch: replace the learner's.
    clip: L2 norm of a step's gradient. weighting: of updates, by training examples or uniform. weight_cap: the largest weight a
    site may claim. personal: path patterns of layers that stay at the site. standardise: impute and scale features by a federated
    statistics round. quorum, deadline_s, over_select, attempts: see core.round.Policy. metrics: names or Metric objects (None: the
    learner's). evaluate_every, evaluate_sites, monitor, patience: see core.workflow.Watch. aggregator: instead of the weighted
    mean. test: data held at the server, scored after each round (`test_*` metrics). init: a model to start from.
    """

    client_lr: float | Schedule | Mapping[str, Any] | None
    epochs: int | None
    steps: int | None
    batch: int | None
    clip: float | None
    weighting: Literal["examples", "uniform"]
    weight_cap: float
    personal: Sequence[str]
    standardise: bool
    quorum: int | float
    deadline_s: float | None
    over_select: float
    attempts: int
    metrics: Sequence[str | Metric] | None
    evaluate_every: int
    evaluate_sites: Literal["cohort", "all", "none"]
    monitor: str | None
    patience: int | None
    aggregator: Aggregator[Any]
    test: Dataset | Callable[[], Dataset] | None
    init: Tree | None


class State(NamedTuple):
    """The server's state: the model, the number of finished rounds, and what the algorithm keeps besides (may be empty)."""

    model: Tree
    round: int
    extra: Tree


class ClientStep(NamedTuple):
    """What leaves a client: the change of the shared leaves, its weight, and what it reports about itself."""

    delta: Tree
    weight: int
    metrics: dict[str, float]


class Scores(NamedTuple):
    """Additive statistics of each metric at one site, and the site's own values."""

    sums: Tree
    metrics: dict[str, float]


FitMany = Callable[[Sequence[Tree], Sequence[FitConfig], Sequence[Dataset], Sequence[FLContext], Signal], list[Update]]


@dataclass(frozen=True)
class Setup:
    """A learner with the options of an algorithm. `config` is what each local training is asked for besides its step size."""

    learner: Learner
    options: Options
    config: FitConfig = dataclasses.field(default_factory=FitConfig)

    @staticmethod
    def of(learner: Learner, options: Options, **config: Any) -> Setup:
        """The setup of a learner; `config` are the algorithm's own fields of FitConfig.

        Raises:
            ConfigError: an option is unknown or out of its range.
        """
        for name in options:
            if name not in Options.__annotations__:
                hint = registry.nearest(name, sorted(Options.__annotations__))
                raise ConfigError(f"no algorithm takes {name!r}", path=name, hint=hint)
        fields: dict[str, Any] = {name: options.get(name) for name in ("epochs", "steps", "batch", "clip")}
        for name, least in (("epochs", 1), ("steps", 1), ("batch", 0)):
            if fields[name] is not None and fields[name] < least:
                raise ConfigError(f"{name} is at least {least}", path=name, got=fields[name])
        if options.get("weighting", "examples") not in ("examples", "uniform"):
            raise ConfigError("no such weighting", path="weighting", expected="examples or uniform", got=options["weighting"])
        chosen: Learner = Standardised(learner) if options.get("standardise") else learner
        return Setup(chosen, options, FitConfig(**{**fields, **config}))

    @property
    def aggregator(self) -> Aggregator[Any]:
        """How updates are combined: the option's, else the weighted mean."""
        return self.options.get("aggregator") or Mean()

    @property
    def weight_cap(self) -> float:
        """The largest weight that a site may claim."""
        return self.options.get("weight_cap", float("inf"))

    @property
    def schedule(self) -> Schedule | None:
        """The clients' step size by finished rounds; None leaves the learner's own."""
        spec = self.options.get("client_lr")
        return None if spec is None else schedules.of(spec, path="client_lr")

    def weight(self, examples: int) -> int:
        """The weight of an update from a site with so many training rows."""
        return examples if self.options.get("weighting", "examples") == "examples" else 1

    def shared(self, model: Tree) -> Tree:
        """The leaves that cross between server and sites: all but the personal ones."""
        patterns = self.options.get("personal", ())
        return trees.split(model, patterns)[1] if patterns else model

    def at_site(self, model: Tree, ctx: FLContext) -> Tree:
        """The model that a site works with: the server's, with the site's own leaves where it has some."""
        if not self.options.get("personal"):
            return model
        own = memory_of(ctx).get("personal")
        return model if own is None else trees.merge(model, own)

    def keep(self, model: Tree, update: Update, ctx: FLContext) -> Tree:
        """The shared part of an update; the personal leaves are put into the site's memory."""
        patterns = self.options.get("personal", ())
        if not patterns:
            return update.delta
        before, _ = trees.split(model, patterns)
        change, shared = trees.split(update.delta, patterns)
        memory_of(ctx).put("personal", trees.add(before, change))
        return shared

    def fit_config(self, done: int, **more: Any) -> FitConfig:
        """What one local training is asked for after `done` rounds."""
        schedule = self.schedule
        lr = self.config.lr if schedule is None else schedule(done)
        return dataclasses.replace(self.config, lr=lr, **more)

    def local_training(self, name: str = "local_train") -> LocalFunction:
        """The client function `(model, round, data) -> ClientStep`, with its batched form where the learner has one."""

        def train(model: Tree, done: int, data: Dataset, *, ctx: FLContext, abort: Signal) -> ClientStep:
            start = self.at_site(model, ctx)
            update = self.learner.fit(start, training(data), self.fit_config(done), rng=ctx.rng("fit"), abort=abort)
            return self.step(self.keep(start, update, ctx), update)

        def train_many(rows: Sequence[tuple[Tree, int, Dataset]], contexts: Sequence[FLContext], _: Signal) -> list[ClientStep]:
            starts = [self.at_site(model, ctx) for (model, _, _), ctx in zip(rows, contexts, strict=True)]
            configs = [self.fit_config(rows[0][1])] * len(rows)
            updates = self.fit_many(starts, [data for *_, data in rows], configs, contexts)
            kept = [self.keep(s, u, ctx) for s, u, ctx in zip(starts, updates, contexts, strict=True)]
            return [self.step(delta, update) for delta, update in zip(kept, updates, strict=True)]

        return self.client_function(name, train, train_many, (("model", TREE), ("round", TensorType(np.int32))), ClientStep)

    def client_function(
        self,
        name: str,
        one: Callable[..., Any],
        many: Callable[..., list[Any]],
        takes: tuple[tuple[str, Any], ...],
        result: type,
    ) -> LocalFunction:
        """A client function that ends in `data`, is given `ctx` and `abort`, and prints the learner in plans."""
        parameters = (*takes, ("data", ObjectType("Dataset")))
        fitting = self.learner.inner if isinstance(self.learner, Standardised) else self.learner
        batched = many if isinstance(fitting, BatchLearner) else None
        about = f"{self.learner!r}, {self.config!r}, schedule {self.schedule!r}, personal {list(self.options.get('personal', ()))}"
        return LocalFunction(one, name, parameters, to_type(result), frozenset({"ctx", "abort"}), batched, about=about)

    def fit_many(
        self, models: Sequence[Tree], data: Sequence[Dataset], configs: Sequence[FitConfig], contexts: Sequence[FLContext]
    ) -> list[Update]:
        """The updates of many clients in one call of the learner."""
        learner = cast(BatchLearner, self.learner)  # client_function gives a batched form to batch learners only
        return learner.fit_many(models, [training(d) for d in data], configs, rngs=[ctx.rng("fit") for ctx in contexts])

    def step(self, delta: Tree, update: Update) -> ClientStep:
        """What leaves the client after an update."""
        return ClientStep(delta, self.weight(update.examples), {"train_loss": update.loss, "examples": float(update.examples)})

    def initialize(self, extra: Callable[[Tree], Tree] = lambda _: {}) -> Computation:
        """The computation that makes the first state; `extra` is what the algorithm keeps besides the model."""

        def first_state(*, ctx: FLContext) -> State:
            model = self.learner.init(ctx.rng("init"))
            return State(model, 0, extra(self.shared(model)))

        if isinstance(self.learner, Standardised):
            return standardised_start(self.learner, lambda model: State(model, 0, extra(self.shared(model))))

        @federated_computation
        def initialize() -> Server[State]:
            return federated_eval(first_state, SERVER)

        return initialize

    def evaluation(self, part: Part, metrics: Sequence[Metric]) -> Computation:
        """The computation that sums each metric's statistics over the sites' rows of one part."""

        def evaluate(model: Tree, data: Dataset, *, ctx: FLContext) -> Scores:
            rows = data.part(part)
            result = self.learner.evaluate(self.at_site(model, ctx), rows)
            sums = {metric.name: metric.measure(rows.y, result) for metric in metrics}
            values = {metric.name: metric.value(sums[metric.name]) for metric in metrics} if len(rows) else {}
            return Scores(sums, values)

        takes = (("model", TREE), ("data", ObjectType("Dataset")))
        local = LocalFunction(evaluate, f"evaluate_{part}", takes, to_type(Scores), frozenset({"ctx"}), loops=True)

        def sum_scores(model: Server[Tree], data: Clients[Dataset]) -> Server[Tree]:
            scores = federated_map(local, (federated_broadcast(model), data))
            return cast(Tree, federated_sum(scores.sums))

        sum_scores.__name__ = f"evaluation_on_{part}"
        return federated_computation(sum_scores)

    def rounds(self, step: Computation, initialize: Computation, *, rounds: int, cohort: int | None, name: str) -> Rounds:
        """The rounds of an algorithm whose `next` is `step`."""
        o = self.options
        metrics = resolve(self.learner.metrics if o.get("metrics") is None else o["metrics"] or ())

        def values(sums: Tree) -> dict[str, float]:
            return {metric.name: metric.value(cast(Tree, sums[metric.name])) for metric in metrics}

        process = Process(
            initialize=initialize,
            next=step,
            evaluate=self.evaluation("valid", metrics),
            test=self.evaluation("test", metrics),
            model=lambda state: state.model,
            with_model=lambda state, model: state._replace(model=model),
            values=values,
            higher={metric.name: metric.higher_is_better for metric in metrics},
            score=self._score(metrics),
        )
        policy = Policy(
            cohort=cohort,
            quorum=o.get("quorum", 1),
            deadline_s=o.get("deadline_s"),
            over_select=o.get("over_select", 0.0),
            attempts=o.get("attempts", 1),
        )
        watch = Watch(o.get("evaluate_every", 1), o.get("evaluate_sites", "cohort"), o.get("monitor"), o.get("patience"))
        about = f"{name}, {rounds} rounds, {policy!r}, {watch!r}, {self.learner!r}"
        return Rounds(process, rounds, policy, watch, self.learner, about, o.get("init"))

    def _score(self, metrics: Sequence[Metric]) -> Callable[[Tree], Mapping[str, float]] | None:
        held = self.options.get("test")
        if held is None:
            return None
        loaded: list[Dataset] = []

        def score(model: Tree) -> dict[str, float]:
            if not loaded:
                loaded.append(held if isinstance(held, Dataset) else held())
            result = self.learner.evaluate(model, loaded[0])
            return {metric.name: metric.value(metric.measure(loaded[0].y, result)) for metric in metrics}

        return score


def training(data: Dataset) -> Dataset:
    """The training rows of a site.

    Raises:
        DataError: there are none.
    """
    rows = data.part("train")
    if len(rows) == 0:
        raise DataError("the site has no training rows", hint="give it more rows, or another split")
    return rows


def memory_of(ctx: FLContext) -> Any:
    """The site's memory.

    Raises:
        RunError: the task runs where sites have none.
    """
    if ctx.memory is None:
        raise RunError("this algorithm keeps trees at the site, and there is no site memory here", site=ctx.site or None)
    return ctx.memory


def resolve(metrics: Sequence[str | Metric]) -> list[Metric]:
    """The metric objects; names are looked up among the entry points.

    Raises:
        ConfigError: a name is unknown or given twice.
    """
    found: list[Metric] = []
    for i, metric in enumerate(metrics):
        made = (
            cast(Callable[[], Metric], registry.find("metrics", metric, path=f"metrics[{i}]"))()
            if isinstance(metric, str)
            else metric
        )
        if made.name in [other.name for other in found]:
            raise ConfigError("a metric is named twice", path=f"metrics[{i}]", got=made.name)
        found.append(made)
    return found


def _metric(name: str, path: str) -> Metric:
    return cast(Callable[[], Metric], registry.find("metrics", name, path=path))()
