"""Rounds: train a cohort, evaluate the new model, keep the best one, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from hansa.core.computation import Computation
from hansa.core.plan import plan
from hansa.core.protocols import Federation, Learner
from hansa.core.rng import generator
from hansa.core.round import Policy, is_count, select
from hansa.core.run import Round, Unmet, run
from hansa.core.task import Reply
from hansa.core.trees import Spec, Tree
from hansa.core.types import FederatedType
from hansa.core.values import pack, unpack
from hansa.core.workflow import Outcome, Process
from hansa.errors import ConfigError, NotFiniteError
from hansa.learning.composed import measured

# What may befall every evaluation of a round without a metric being at fault: the model has diverged, the sites are gone.
_PASSING = (NotFiniteError.code, "lost")


@dataclass(frozen=True)
class Watch:
    """What is looked at after a round, and when to stop.

    every: evaluate each that many rounds (and the last). sites: who evaluates: the round's cohort, all, or nobody. They are asked
    under the round's policy, but one is enough.
    monitor: the metric that chooses the best model (None: the first one named). patience: evaluations without a better value after
    which training stops (None: never).
    """

    every: int = 1
    sites: Literal["cohort", "all", "none"] = "cohort"
    monitor: str | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if not is_count(self.every):
            raise ConfigError("evaluate_every counts rounds", path="evaluate_every", expected="at least 1", got=repr(self.every))
        if self.sites not in ("cohort", "all", "none"):
            raise ConfigError("no such choice", path="evaluate_sites", expected="cohort, all or none", got=repr(self.sites))
        if not (self.patience is None or is_count(self.patience)):
            raise ConfigError("patience counts evaluations", path="patience", expected="at least 1", got=repr(self.patience))
        object.__setattr__(self, "every", int(self.every))  # NumPy's integers print, and so hash, as Python's
        object.__setattr__(self, "patience", None if self.patience is None else int(self.patience))


@dataclass(frozen=True)
class Best:
    """The best model so far, the latest until one is valued; `since` counts evaluations without a better one."""

    model: Tree
    round: int = 0
    value: float = math.nan
    since: int = 0


def together(process: Process, federation: Federation, state: Any, number: int, policy: Policy) -> Round:
    """One round of a cohort that trains at the same time."""
    slots = select(len(federation.sites), policy, generator(federation.seed, round=number, purpose="cohort"))
    return run(process.next, federation, state, round=number, slots=slots, policy=policy)


@dataclass(frozen=True)
class Rounds:
    """Rounds of a process: train a sampled cohort, `together` or in another way, evaluate the new model, checkpoint.

    `learner` and `about` say what is trained, for predictions and for people. `init` is a model to start from.
    """

    process: Process
    rounds: int
    policy: Policy = field(default_factory=Policy)
    watch: Watch = field(default_factory=Watch)
    learner: Learner | None = None
    about: str = ""
    init: Tree | None = None
    train: Callable[[Process, Federation, Any, int, Policy], Round] = together

    def __post_init__(self) -> None:
        if not is_count(self.rounds):
            raise ConfigError("a job trains at least one round", path="rounds", expected="at least 1", got=repr(self.rounds))
        object.__setattr__(self, "rounds", int(self.rounds))  # NumPy's are no JSON
        if self.watch.monitor is not None and self.watch.monitor not in self.process.higher:
            raise ConfigError(
                "not a metric of this job", path="monitor", got=self.watch.monitor, expected=sorted(self.process.higher)
            )
        if (self.watch.sites == "none" and self.process.score is None) or not self.process.higher:
            for path in ("monitor", "patience"):
                if getattr(self.watch, path) is not None:
                    raise ConfigError("nobody evaluates", path=path, hint="let sites evaluate a metric, or give `test` data")

    def but(self, **changes: Any) -> Rounds:
        """The same with other fields."""
        return replace(self, **changes)

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
        done, state, best, first = self._start(federation)
        while done < self.rounds and not self._enough(best):
            number = done + 1
            trained, record = self._train(federation, state, number)
            if first is not None:
                missed(record, self.process.initialize, first.refused, [reply.site for reply in first.lost])
            state, first = trained.result, None
            if self._due(number):
                best = self._evaluate(federation, trained, number, record, best)
            if math.isnan(best.value):
                best = Best(self.process.model(state), number)
            federation.report(record)
            federation.checkpoint(number, self._saved(state, best, number), _notes(best))
            done = number
        return Outcome(self.process.model(state), best.model, best.round, done, state)

    def _start(self, federation: Federation) -> tuple[int, Any, Best, Round | None]:
        """Where to go on: finished rounds, state, best model, and how the first state was made if it was now."""
        saved = federation.restore()
        if saved is not None:
            number, tree, notes = saved
            kind = self.process.next.parameters[0].type
            state = unpack(tree["state"], kind.member if isinstance(kind, FederatedType) else kind)
            model = cast(Tree, tree["best"]) if "best" in tree else self.process.model(state)
            value = notes["best_value"]
            best = Best(model, int(notes["best_round"]), math.nan if value is None else float(value), int(notes["since"]))
            return number, state, best, None
        first = run(self.process.initialize, federation, policy=replace(self.policy, cohort=None))
        state = first.result
        if self.init is not None:
            Spec.of(self.process.model(state)).check(self.init, path="init")
            state = self.process.with_model(state, self.init)
        return 0, state, Best(self.process.model(state)), first

    def _train(self, federation: Federation, state: Any, number: int) -> tuple[Round, dict[str, Any]]:
        done = self.train(self.process, federation, state, number, self.policy)
        after, told = measured(done.result)
        done = replace(done, result=after)
        sites = {site: dict(values) for site, values in done.metrics.items()}
        record: dict[str, Any] = {"round": number, "global": {**_pooled(sites), **told}, "sites": sites, "refused": [], "lost": []}
        missed(record, None, done.refused, [reply.site for reply in done.lost])
        return done, record

    def _due(self, number: int) -> bool:
        return number % self.watch.every == 0 or number == self.rounds

    def _evaluate(self, federation: Federation, trained: Round, number: int, record: dict[str, Any], best: Best) -> Best:
        """Add the metrics of the model after the round to the record; the best model with this one taken into account."""
        model = self.process.model(trained.result)
        if self.watch.sites != "none":
            slots = trained.admitted if self.watch.sites == "cohort" else tuple(range(len(federation.sites)))
            policy = replace(self.policy, cohort=None, quorum=1)
            try:
                done = run(self.process.evaluate, federation, model, round=number, slots=slots, policy=policy)
            except Unmet as error:  # nobody could: the round stands without metrics, unless a metric is what is wrong
                if any(reply.failure is None or reply.failure.code not in _PASSING for reply in error.refused):
                    raise
                done = Round({}, refused=error.refused)
                lost = [federation.sites[slot] for slot in slots if slot not in {reply.slot for reply in done.refused}]
            else:
                lost = [reply.site for reply in done.lost]
                record["global"].update(self.process.values(done.result))
            missed(record, self.process.evaluate, done.refused, lost)
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


def missed(record: dict[str, Any], computation: Computation | None, refused: Sequence[Reply], lost: Sequence[str]) -> None:
    """Add to the record who was missing; the task is named where it is not the training (None)."""
    task = {} if computation is None or not refused else {"task": plan(computation).stages[0].task}
    record["refused"] += [
        {"site": r.site, "code": r.failure.code, "path": r.failure.path, "message": r.failure.message, **task}
        for r in refused
        if r.failure is not None
    ]
    record["lost"] += [site for site in lost if site not in record["lost"]]


def _pooled(sites: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What training reported (`train_loss`, ...) over the cohort, weighted by examples; of each, over the sites that report it."""
    said: dict[str, list[tuple[float, float]]] = {}
    for values in sites.values():
        for name, value in values.items():
            if name.startswith("train_"):
                said.setdefault(name, []).append((value, values.get("examples", 1.0)))
    totals = {name: math.fsum(n for _, n in each) for name, each in said.items()}
    return {name: math.fsum(value * n for value, n in said[name]) / total for name, total in totals.items() if total}
