"""Workflows one after the other, in one run: each may go on from what those before it gave."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from hansa.core.computation import Computation
from hansa.core.plan import Plan, plan
from hansa.core.protocols import Federation, Replies
from hansa.core.round import Policy
from hansa.core.task import Task
from hansa.core.trees import Tree
from hansa.core.workflow import Outcome, Training, Workflow
from hansa.errors import ConfigError, RunError

Saved = tuple[int, Tree, Mapping[str, Any]]

_SEQUENCE = "sequence"  # what it adds to a checkpoint's state and notes


@runtime_checkable
class Following(Protocol):
    """A workflow that goes on from the results of those before it."""

    def after(self, results: tuple[Any, ...]) -> Workflow: ...


class Sequence:
    """`Sequence(fedavg(...), cross_site(...))`: the steps in order; the result is a tuple with each step's.

    A training goes on from the model of a training before it, unless it has an `init` of its own. Rounds are counted through. A
    step that makes no checkpoints comes last, or the run could not be resumed. Tasks of one name are told apart by the step's
    number: `local_train`, `local_train@2`.

    >>> from hansa.adapters.numpy import logistic
    >>> from hansa.learning import cyclic, fedavg
    >>> learner = logistic(features=4)
    >>> Sequence(cyclic(learner, rounds=2), fedavg(learner, rounds=3)).rounds(sites=4)
    5

    Raises:
        ConfigError: there is no step, or something is none.
    """

    def __init__(self, *steps: Workflow) -> None:
        for number, step in enumerate(steps):
            if not callable(step):
                raise ConfigError("not a workflow", path=f"steps[{number}]", got=type(step).__name__)
        if not steps:
            raise ConfigError("a sequence has at least one step", path="steps")
        self.steps = steps
        taken: set[str] = set()
        self._names: list[dict[str, str]] = []  # for each step, what its tasks are called
        for number, step in enumerate(steps, 1):
            own = [stage.task for each in _computations(step) for stage in plan(each).stages]
            self._names.append({task: f"{task}@{number}" if task in taken else task for task in own})
            taken.update(self._names[-1].values())
        self.computations = tuple(
            _renamed(each, names) for step, names in zip(steps, self._names, strict=True) for each in _computations(step)
        )
        self.about = ", then ".join(getattr(step, "about", "") or type(step).__name__ for step in steps)
        self.learner = next((step.learner for step in reversed(steps) if isinstance(step, Training)), None)
        self.files = tuple(file for step in steps for file in getattr(step, "files", ()))

    def __repr__(self) -> str:
        return f"Sequence({', '.join(map(repr, self.steps))})"

    def rounds(self, sites: int) -> int:
        """How many rounds all steps have, with so many sites; patience may end one earlier."""
        total, trained = 0, False
        for step in self.steps:
            told = getattr(step, "rounds", 0)
            total += told(sites) if callable(told) else told
            total += 2 if trained and isinstance(step, Following) else 0  # its final and its best model
            trained = trained or isinstance(step, Training)
        return total

    def __call__(self, federation: Federation) -> tuple[Any, ...]:
        """Each step's result; goes on with the step that was under way."""
        log = _Log(federation)
        results: list[Any] = []
        for number, step in enumerate(self.steps):
            view = _View(federation, log, number, self._names[number], before=log.round)
            results.append(_following(step, tuple(results))(view))
        return tuple(results)


def _following(step: Workflow, results: tuple[Any, ...]) -> Workflow:
    """The step as it goes on from the results before it."""
    if isinstance(step, Following):
        return step.after(results)
    models = [each.model for each in results if isinstance(each, Outcome)]
    if isinstance(step, Training) and getattr(step, "init", None) is None and models:
        return step.but(init=models[-1])
    return step


def _computations(step: Workflow) -> tuple[Computation, ...]:
    return tuple(getattr(step, "computations", ()))


def _renamed(computation: Computation, names: Mapping[str, str]) -> Computation:
    """The computation with its tasks called otherwise."""
    made = plan(computation)
    if all(names[stage.task] == stage.task for stage in made.stages):
        return computation
    copied = copy.copy(computation)
    copied.__dict__["plan"] = Plan(copied, tuple(replace(stage, task=names[stage.task]) for stage in made.stages))
    return copied


class _Log:
    """What the steps have checkpointed, each its last: restored once, and part of every later step's checkpoints."""

    def __init__(self, federation: Federation) -> None:
        self.round = 0  # the last that was reported or restored
        self.kept: dict[int, Saved] = {}  # by step: its own round, state and notes
        saved = federation.restore()
        if saved is not None:
            number, tree, notes = saved
            own = notes[_SEQUENCE]
            states: Any = tree.get(_SEQUENCE, {})
            self.kept = {step: (done, states.get(str(step), {}), said) for step, (done, said) in enumerate(own["before"])}
            rest = ({k: v for k, v in each.items() if k != _SEQUENCE} for each in (tree, notes))
            self.kept[len(self.kept)] = (number - own["rounds"], next(rest), next(rest))

    def keep(self, view: _View, round: int, state: Tree, notes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: A002
        """The state and the notes of a checkpoint: the step's own, and those of the steps before.

        Raises:
            ConfigError: they use our name. RunError: a step before makes no checkpoints.
        """
        if _SEQUENCE in state or _SEQUENCE in notes:
            raise ConfigError("this name is the sequence's own", path=_SEQUENCE, round=round, hint="call it something else")
        if missing := [number for number in range(view.step) if number not in self.kept]:
            raise RunError(f"step {missing[0] + 1} of the sequence makes no checkpoints, so nothing may follow it that does")
        before = [self.kept[number] for number in range(view.step)]
        self.kept[view.step] = (round, state, notes)
        states = {str(number): tree for number, (_, tree, _) in enumerate(before)}
        own = {"rounds": view.before, "before": [[done, dict(said)] for done, _, said in before]}
        return {**state, **({_SEQUENCE: states} if states else {})}, {**notes, _SEQUENCE: own}


@dataclass
class _View:
    """The federation as one step sees it: own task names, rounds and checkpoints. `before` counts the rounds of earlier steps."""

    federation: Federation
    log: _Log
    step: int
    names: Mapping[str, str]
    before: int

    @property
    def sites(self) -> Any:
        """The run's sites by slot."""
        return self.federation.sites

    @property
    def seed(self) -> int:
        """The seed of all random streams."""
        return self.federation.seed

    def task(self, task: Task, slots: Any, policy: Policy) -> Replies:
        """The replies to the step's task; sites see the run's round."""
        named = replace(task, name=self.names.get(task.name, task.name), round=task.round + self.before)
        return self.federation.task(named, slots, policy)

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002  the protocol's word
        """Make the state durable, with those of the steps before."""
        self.federation.checkpoint(self.before + round, *self.log.keep(self, round, state, notes))

    def restore(self) -> Saved | None:
        """The step's own last checkpoint."""
        saved = self.log.kept.get(self.step)
        self.log.round = self.before + (0 if saved is None else saved[0])
        return saved

    def report(self, record: Mapping[str, Any]) -> None:
        """Record a finished round, under its number in the run."""
        own = int(record.get("round", self.log.round - self.before + 1))
        self.log.round = self.before + own
        self.federation.report({**record, "round": self.log.round})
