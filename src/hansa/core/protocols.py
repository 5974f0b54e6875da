"""The seams: what other packages implement and `core` only calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from hansa.core.round import Policy
from hansa.core.task import FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Array, Tree
from hansa.core.types import Type

Part = Literal["train", "valid", "test"]
A = TypeVar("A")


@runtime_checkable
class Dataset(Protocol):
    """One site's rows: `x` (n, ...) and `y` (n, ...), with the same n. `part` gives the rows of one split, in a fixed order."""

    @property
    def x(self) -> Array: ...
    @property
    def y(self) -> Array: ...
    def __len__(self) -> int: ...
    def part(self, name: Part) -> Dataset: ...


@runtime_checkable
class FederatedData(Protocol):
    """Sites by slot. `sites[slot]` is a name; nothing is loaded before `load(slot)`. Either may stand for a million sites."""

    @property
    def sites(self) -> Sequence[str]: ...
    def load(self, slot: int) -> Any: ...  # a Dataset, or whatever the job's own functions take


@dataclass(frozen=True, slots=True)
class FitConfig:
    """What an algorithm asks of one local training. None leaves the learner's own setting.

    `lr`: step size. `epochs` or `steps`: how long; `steps` wins. `batch`: rows a step, 0 means all rows at once.
    `clip`: the L2 norm that a step's gradient is scaled down to. `proximal`: FedProx's mu, which adds mu (w - w0) to each
    gradient. `correction`: a tree added to each gradient (SCAFFOLD's c - c_i); leaves that are not in it get nothing.
    """

    lr: float | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    clip: float | None = None
    proximal: float = 0.0
    correction: Tree | None = None


class Update(NamedTuple):
    """What a local training gives back.

    delta: w_after - w_before, with the model's own leaves and dtypes (buffers too).
    examples: rows in the training part. steps: gradient steps taken. lr: the step size they used.
    loss: mean training loss over the steps.
    """

    delta: Tree
    examples: int
    steps: int
    lr: float
    loss: float


class Evaluation(NamedTuple):
    """scores: the model's prediction for each row; loss: the mean loss over the rows (nan when there are none)."""

    scores: Array
    loss: float


class LocalBackend(Protocol):
    """A framework that local computations are written in: the module that an entry point of `hansa.local_backends` names.

    It is imported when a computation first asks for it. `type_of` also serves `to_type`, for specifications of the framework's own
    classes; None is not one of them. `begun(fn, parameters)`, and `folded(fn, parameters)` of (total, items), may
    stand beside `compiled`: a call of what they give begins, and what that call gives waits for the result.
    """

    def result_type(self, fn: Callable[..., Any], parameters: Sequence[Type], /) -> Type: ...  # without running on data
    def compiled(self, fn: Callable[..., Any], parameters: Sequence[Type], /) -> Callable[..., Any]: ...  # NumPy in, NumPy out
    def type_of(self, spec: object, /) -> Type | None: ...


class Learner(Protocol):
    """A framework's model as pure functions over Trees. It holds settings, never weights.

    scores are (n, k) class probabilities, (n,) the probability of class 1 for a binary model, or (n, ...) values of a
    regression. `metrics` are the metric names reported when the job names none.
    """

    @property
    def metrics(self) -> tuple[str, ...]: ...
    def init(self, rng: np.random.Generator) -> Tree: ...
    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update: ...
    def evaluate(self, model: Tree, data: Dataset) -> Evaluation: ...
    def predict(self, model: Tree, x: Array) -> Array: ...


@runtime_checkable
class BatchLearner(Learner, Protocol):
    """A learner that can fit many clients in one call; used by the vectorised engine only when a user asks for it.

    Client i gets the result of fit(models[i], datasets[i], configs[i], rng=rngs[i]) within 1e-5 relative. The configs may differ in
    `lr` and `correction` alone.
    """

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Update]: ...  # a list, or a hansa.stacked.Stacked: then the engine need not take them apart


class Metric(Protocol):
    """A metric whose per-site statistics add up: value(measure(all rows)) = value(sum over sites of measure(site's rows))."""

    @property
    def name(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    def measure(self, y: Array, evaluation: Evaluation) -> Tree: ...
    def value(self, sums: Tree) -> float: ...


class Aggregator(Protocol[A]):
    """A streaming, mergeable reduction over updates, fed in slot order.

    Laws: finish(add(add(zero(like), u), v)) depends on the sequence of (update, weight) alone; merge(add(z, u), add(z, v)) finishes
    as both added do, exactly where `exact` and to rounding otherwise. `add` and `merge` may reuse the left accumulator's memory,
    so that a round needs one; they never keep or change an update. What `finish` returns is its caller's.

    An aggregator whose result for an entry depends on that entry alone may have `fold(updates, weights, *, like, after) -> Tree`
    as well: the bits of zero, add, ..., finish from all updates at hand, block by block; `after` is called now and then. The result
    has the dtypes of `like`; an update may have narrower ones, of which each value is one of the wider.

    One may have `add_many(acc, updates, weights) -> A`: as adding one by one several updates whose leaves are stacked, each with a
    first axis over them; where it raises an UpdateError, nothing was added.
    """

    def zero(self, like: Tree) -> A: ...
    def add(self, acc: A, update: Tree, weight: float) -> A: ...
    def merge(self, left: A, right: A) -> A: ...
    def finish(self, acc: A) -> Tree: ...


class Filter(Protocol):
    """A step on task data or results, at either end."""

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable: ...


class SiteMemory(Protocol):
    """A site's own trees by name. What is put is kept only when the reply of the same task is; it never leaves the site."""

    def get(self, name: str) -> Tree | None: ...
    def put(self, name: str, tree: Tree) -> None: ...


class Clock(Protocol):
    """Seconds on a monotonic clock: the wall's, or a virtual one."""

    def now(self) -> float: ...


class Tracker(Protocol):
    """Is told, while a site works, how it goes: at `step` (of `of`, where that is known) these numbers."""

    def track(self, values: Mapping[str, float], step: int | None, of: int | None) -> None: ...


class Replies(Protocol):
    """The admitted replies of one task in slot order; after the last, who is missing and why."""

    def __iter__(self) -> Iterator[Reply]: ...
    @property
    def refused(self) -> Sequence[Reply]: ...
    @property
    def lost(self) -> Sequence[Reply]: ...
    # together() -> Iterator[Reply | Block]: instead of __iter__, by a federation that has several replies as one
    def drop(self, reply: Reply) -> None: ...  # admitted, but it could not be added: its site forgets what it put with it


class StoredReplies(Replies, Protocol):
    """Replies that are read from the disk, so that all can be kept: `release` gives back the memory that reading them took."""

    @property
    def release(self) -> Callable[[], None] | None: ...  # None: the bodies are small, and are read once


class Federation(Protocol):
    """Sites and a way to ask them, simulated or real. All that a workflow may take from outside comes through here."""

    @property
    def sites(self) -> Sequence[str]: ...
    @property
    def seed(self) -> int: ...
    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> Replies: ...
    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None: ...  # noqa: A002  DESIGN's word; notes are JSON
    def restore(self) -> tuple[int, Tree, Mapping[str, Any]] | None: ...
    def report(self, record: Mapping[str, Any]) -> None: ...  # a line of metrics.jsonl


class Arrived(NamedTuple):
    """What came of request `number` at time `at`: the site's reply, or a reply with the failure that stands in its place."""

    number: int
    reply: Reply
    at: float


class Exchange(Protocol):
    """Requests to single sites, any number under way, and what comes of each in the order in which it came.

    For workflows that are no synchronous rounds. `next` gives None at the time `until`, if nothing came before it. A request that
    is dropped gives nothing any more, and its site forgets what it had put into its memory with it.
    """

    def now(self) -> float: ...
    def send(self, task: Task, slot: int) -> int: ...
    def next(self, until: float | None = None) -> Arrived | None: ...
    def drop(self, number: int) -> None: ...


@runtime_checkable
class Exchanging(Protocol):
    """A federation that has an exchange beside its rounds."""

    def exchange(self) -> Exchange: ...
