"""Workflows: plain, deterministic Python over a Federation. `Rounds` is the synchronous one, which learning algorithms use.

A workflow takes time, randomness and results from the federation alone, so that a crashed run can be replayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

from hansa.core.computation import Computation
from hansa.core.protocols import Federation, Learner
from hansa.core.rng import generator
from hansa.core.round import Policy, select
from hansa.core.run import Round, run
from hansa.core.trees import Spec, Tree
from hansa.core.types import FederatedType
from hansa.core.values import pack, unpack
from hansa.errors import ConfigError, QuorumError


class Workflow(Protocol):
    """Server-side work over a federation; what it returns is the run's result."""

    def __call__(self, federation: Federation) -> Any: ...


@dataclass(frozen=True)
class Process:
    """A learning algorithm: its computations, and how to reach the model in its state.

    initialize: `( -> S@SERVER)` or `({D}@CLIENTS -> S@SERVER)`; next: `(<S@SERVER,{D}@CLIENTS> -> S@SERVER)`;
    evaluate: `(<Tree@SERVER,{D}@CLIENTS> -> sums@SERVER)` on the validation part, `test` the same on the test part.
    values: the metrics that summed statistics stand for. higher: for each metric, whether more is better.
    score: the metrics of a model on data held at the server, where there is such data.
    """

    initialize: Computation
    next: Computation
    evaluate: Computation
    test: Computation
    model: Callable[[Any], Tree]
    with_model: Callable[[Any, Tree], Any]
    values: Callable[[Tree], Mapping[str, float]]
    higher: Mapping[str, bool] = field(default_factory=dict)
    score: Callable[[Tree], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Watch:
    """What is looked at after a round, and when to stop.

    every: evaluate each that many rounds (and the last). sites: who evaluates: the round's cohort, all, or nobody.
    monitor: the metric that chooses the best model (None: the first one named). patience: evaluations without a better value after
    which training stops (None: never).
    """

    every: int = 1
    sites: Literal["cohort", "all", "none"] = "cohort"
    monitor: str | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError("evaluate_every counts rounds", path="evaluate_every", expected="at least 1", got=self.every)
        if self.sites not in ("cohort", "all", "none"):
            raise ConfigError("no such choice", path="evaluate_sites", expected="cohort, all or none", got=repr(self.sites))
        if self.patience is not None and self.patience < 1:
            raise ConfigError("patience counts evaluations", path="patience", expected="at least 1", got=self.patience)


@dataclass(frozen=True)
class Outcome:
    """What `Rounds` returns: the final and the best model, when the best was, and how many rounds were trained."""

    model: Tree
    best: Tree
    best_round: int
    rounds: int
    state: Any


@dataclass(frozen=True)
class Best:
    """The best model so far; `since` counts evaluations without a better one."""

    model: Tree
    round: int = 0
    value: float = math.nan
    since: int = 0


@dataclass(frozen=True)
class Rounds:
    """Synchronous rounds of a process: sample a cohort, train, evaluate the new model, checkpoint.

    `learner` and `about` say what is trained, for predictions and for people. `init` is a model to start from.
    """

    process: Process
    rounds: int
    policy: Policy = field(default_factory=Policy)
    watch: Watch = field(default_factory=Watch)
    learner: Learner | None = None
    about: str = ""
    init: Tree | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError("a job trains at least one round", path="rounds", expected="at least 1", got=self.rounds)
        if self.watch.monitor is not None and self.watch.monitor not in self.process.higher:
            raise ConfigError(
                "not a metric of this job", path="monitor", got=self.watch.monitor, expected=sorted(self.process.higher)
            )

    @property
    def computations(self) -> Sequence[Computation]:
        """All computations whose client stages a site serves."""
        return (self.process.initialize, self.process.next, self.process.evaluate, self.process.test)

    def __call__(self, federation: Federation) -> Outcome:
        """Train; goes on from the last checkpoint where there is one.

        Raises:
            QuorumError: a round had too few usable replies.
            SpecError: `init` does not fit the model.
        """
        done, state, best = self._start(federation)
        while done < self.rounds and not self._enough(best):
            number = done + 1
            trained, record = self._train(federation, state, number)
            state = trained.result
            if self._due(number):
                best = self._evaluate(federation, trained, number, record, best)
            federation.report(record)
            federation.checkpoint(number, self._saved(state, best, number), _notes(best))
            done = number
        return Outcome(self.process.model(state), best.model, best.round, done, state)

    def _start(self, federation: Federation) -> tuple[int, Any, Best]:
        saved = federation.restore()
        if saved is not None:
            number, tree, notes = saved
            kind = self.process.next.parameters[0].type
            state = unpack(tree["state"], kind.member if isinstance(kind, FederatedType) else kind)
            model = cast(Tree, tree["best"]) if "best" in tree else self.process.model(state)
            value = notes["best_value"]
            best = Best(model, int(notes["best_round"]), math.nan if value is None else float(value), int(notes["since"]))
            return number, state, best
        state = run(self.process.initialize, federation, policy=Policy(quorum=self.policy.quorum)).result
        if self.init is not None:
            Spec.of(self.process.model(state)).check(self.init, path="init")
            state = self.process.with_model(state, self.init)
        return 0, state, Best(self.process.model(state))

    def _train(self, federation: Federation, state: Any, number: int) -> tuple[Round, dict[str, Any]]:
        slots = select(len(federation.sites), self.policy, generator(federation.seed, round=number, purpose="cohort"))
        done = run(self.process.next, federation, state, round=number, slots=slots, policy=self.policy)
        sites = {site: dict(values) for site, values in done.metrics.items()}
        record: dict[str, Any] = {
            "round": number,
            "global": _pooled_loss(sites),
            "sites": sites,
            "refused": [
                {"site": r.site, "code": r.failure.code, "path": r.failure.path, "message": r.failure.message}
                for r in done.refused
                if r.failure is not None
            ],
            "lost": [r.site for r in done.lost],
        }
        return done, record

    def _due(self, number: int) -> bool:
        return number % self.watch.every == 0 or number == self.rounds

    def _evaluate(self, federation: Federation, trained: Round, number: int, record: dict[str, Any], best: Best) -> Best:
        """Add the metrics of the model after the round to the record; the best model with this one taken into account."""
        model = self.process.model(trained.result)
        if self.watch.sites != "none":
            slots = trained.admitted if self.watch.sites == "cohort" else None
            try:
                done = run(self.process.evaluate, federation, model, round=number, slots=slots)
            except QuorumError:  # nobody could evaluate: the round stands, it has no metrics, and the best model stays
                return best
            record["global"].update(self.process.values(done.result))
            for site, values in done.metrics.items():
                record["sites"].setdefault(site, {}).update(values)
        if self.process.score is not None:
            record["global"].update({f"test_{name}": value for name, value in self.process.score(model).items()})
        return self._better(model, number, record["global"], best)

    def _better(self, model: Tree, number: int, values: Mapping[str, float], best: Best) -> Best:
        name = self.watch.monitor or next(iter(self.process.higher), None)
        value = values.get(name, values.get(f"test_{name}", math.nan)) if name else math.nan
        if math.isnan(value):
            return best
        higher = self.process.higher[name or ""]
        if math.isnan(best.value) or (value > best.value if higher else value < best.value):
            return Best(model, number, value)
        return Best(best.model, best.round, best.value, best.since + 1)

    def _enough(self, best: Best) -> bool:
        return self.watch.patience is not None and best.since >= self.watch.patience

    def _saved(self, state: Any, best: Best, number: int) -> Tree:
        tree: dict[str, Any] = {"state": pack(state)}
        if best.round != number:
            tree["best"] = pack(best.model)
        return tree


def _notes(best: Best) -> dict[str, Any]:
    return {"best_round": best.round, "best_value": None if math.isnan(best.value) else best.value, "since": best.since}


def _pooled_loss(sites: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The training loss over the cohort, weighted by examples; nothing when no site reports one."""
    pairs = [(v["train_loss"], v.get("examples", 1.0)) for v in sites.values() if "train_loss" in v]
    total = math.fsum(n for _, n in pairs)
    return {"train_loss": math.fsum(loss * n for loss, n in pairs) / total} if total else {}
