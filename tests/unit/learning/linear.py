"""A linear regression whose every number can be worked out by hand, and a federation that writes down what crosses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hansa.core import gate
from hansa.core.executor import FunctionExecutor
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.round import Policy
from hansa.core.task import FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Array, Tree
from hansa.core.workflow import Outcome
from hansa.data.rows import Rows
from hansa.learning.rounds import Rounds
from hansa.testing.fakes import InMemorySiteMemory


@dataclass(frozen=True)
class Linear:
    """y = x w + b with the mean squared error; w (d,) and b () start at zero, float64. Rows keep their order."""

    features: int = 2
    lr: float = 0.1
    epochs: int = 1
    batch: int = 1
    metrics: tuple[str, ...] = ("loss",)

    def init(self, rng: np.random.Generator) -> Tree:
        return {"w": np.zeros(self.features), "b": np.zeros(())}

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        rows = data.part("train")
        lr = self.lr if config.lr is None else config.lr
        batch = (self.batch if config.batch is None else config.batch) or len(rows)
        starts = list(range(0, len(rows), batch)) * (config.epochs or self.epochs)
        if config.steps is not None:
            starts = [starts[k % len(starts)] for k in range(config.steps)]
        first = self._vector(model)
        shift = np.zeros_like(first) if config.correction is None else self._vector(config.correction)
        now = first
        losses: list[float] = []
        for start in starts:
            abort.check()
            gradient, loss = self._gradient(now, rows.x[start : start + batch], rows.y[start : start + batch])
            gradient = gradient + config.proximal * (now - first) + shift
            size = float(np.linalg.norm(gradient))
            if config.clip is not None and size > config.clip:
                gradient = gradient * (config.clip / size)
            now, losses = now - lr * gradient, [*losses, loss]
        change = now - first
        return Update({"w": change[:-1], "b": change[-1].reshape(())}, len(rows), len(starts), lr, float(np.mean(losses)))

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        scores = self.predict(model, data.x)
        return Evaluation(scores, float(np.mean((scores - data.y) ** 2)) if len(data) else float("nan"))

    def predict(self, model: Tree, x: Array) -> Array:
        whole = self._vector(model)
        return np.asarray(np.asarray(x, dtype=np.float64) @ whole[:-1] + whole[-1])

    def _vector(self, model: Tree) -> Array:
        w, b = model["w"], model["b"]
        assert isinstance(w, np.ndarray)
        assert isinstance(b, np.ndarray | np.generic)
        return np.concatenate([w.astype(np.float64), np.atleast_1d(b)])

    def _gradient(self, at: Array, x: Array, y: Array) -> tuple[Array, float]:
        wide = np.concatenate([np.asarray(x, dtype=np.float64), np.ones((len(x), 1))], axis=1)
        apart = wide @ at - y
        return 2 * wide.T @ apart / len(x), float(np.mean(apart**2))


class Loss:
    """Mean squared error as sums."""

    name = "loss"
    higher_is_better = False

    def measure(self, y: Array, evaluation: Evaluation) -> Tree:
        return {"total": np.asarray(evaluation.loss * len(y) if len(y) else 0.0), "rows": np.asarray(len(y))}

    def value(self, sums: Tree) -> float:
        rows = float(np.asarray(sums["rows"]))
        return float(np.asarray(sums["total"])) / rows if rows else float("nan")


def site(*rows: tuple[Sequence[float], float]) -> Rows:
    """A site whose rows are all for training."""
    return Rows(np.array([x for x, _ in rows], dtype=np.float64), np.array([y for _, y in rows], dtype=np.float64))


# The data of TFF's goldens.
A = site(([1.0, 2.0], 5.0), ([3.0, 4.0], 6.0))
B = site(([1.0, 2.0], 5.0))


@dataclass
class Recorded:
    """A federation in this process: memories, the gate, and every body that crossed, down or up, with its task's name."""

    data: Sequence[Any]
    workflow: Rounds
    seed: int = 0
    sent: list[tuple[str, Tree]] = field(default_factory=list)
    came: list[tuple[str, int, Shareable]] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    memory: dict[int, InMemorySiteMemory] = field(default_factory=dict)
    states: list[tuple[int, Tree, Mapping[str, Any]]] = field(default_factory=list)

    @property
    def sites(self) -> Sequence[str]:
        return [f"s{slot}" for slot in range(len(self.data))]

    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> _Answers:
        self.sent.append((task.name, task.shareable.body))
        return _Answers(self, task, slots)

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002
        self.states.append((round, state, notes))

    def restore(self) -> None:
        return None

    def report(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def run(self) -> Outcome:
        return self.workflow(self)


class _Answers:
    refused: Sequence[Reply] = ()
    lost: Sequence[Reply] = ()

    def __init__(self, federation: Recorded, task: Task, slots: Sequence[int]) -> None:
        self._f, self._task, self._slots = federation, task, slots
        self._executor = FunctionExecutor(federation.workflow.computations)

    def __iter__(self) -> Iterator[Reply]:
        f = self._f
        for slot in self._slots:
            memory = f.memory.setdefault(slot, InMemorySiteMemory())
            ctx = FLContext(
                site=f.sites[slot],
                slot=slot,
                round=self._task.round,
                seed=f.seed,
                population=len(f.data),
                load=lambda _, slot=slot: f.data[slot],  # type: ignore[misc]  # a default pins the loop's variable
                memory=memory,
            )
            reply = self._executor.execute(self._task.name, self._task.shareable, ctx, Signal())
            gate.admit(reply, self._task.expect)
            memory.commit()
            f.came.append((self._task.name, slot, reply))
            yield Reply(slot, ctx.site, reply)

    def drop(self, reply: Reply) -> None:
        """Its memory stays: no test here looks at it."""


def models(workflow: Rounds, data: Sequence[Any], rounds: int) -> list[dict[str, Any]]:
    """The model after each of so many rounds, called directly on data at hand."""
    state = workflow.process.initialize()
    found = []
    for _ in range(rounds):
        state = workflow.process.next(state, list(data))
        found.append(dict(state.model))
    return found


def flat(model: Mapping[str, Any]) -> list[float]:
    """[w_1, ..., w_d, b]."""
    return [*np.asarray(model["w"]).tolist(), float(np.asarray(model["b"]))]
