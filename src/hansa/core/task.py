"""Task, Shareable, Reply, Signal and FLContext: what crosses the wire, and what code at a site is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from hansa.core.rng import generator
from hansa.core.trees import Spec, Tree
from hansa.errors import RunError

if TYPE_CHECKING:
    from hansa.core.protocols import SiteMemory, Tracker

Header: TypeAlias = str | int | float | bool
LOCAL_MODEL = "local_model"  # the task that asks a site for its own model: whether it leaves is its policy's to say


@dataclass(frozen=True, slots=True)
class Shareable:
    """The one message: a tree of arrays, headers (plain scalars) and the numbers a site reports about itself."""

    body: Tree = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """What one part of a reply must be before it is added: the tree at `path` has `spec`, the scalar at `weight` is a weight.

    `weight` None means unweighted. `weight_cap` is the largest weight that a site may claim.
    """

    path: str
    spec: Spec | None = None
    weight: str | None = None
    weight_cap: float = float("inf")


@dataclass(frozen=True, slots=True)
class Task:
    """One request to each site of a cohort. `seq` numbers the workflow's requests; `round` is what the site sees.

    `secure` names the intrinsics of its plan that promise a secure protocol: a federation that has none refuses the task.
    """

    name: str
    shareable: Shareable = field(default_factory=Shareable)
    round: int = 0
    seq: int = 0
    expect: tuple[Expect, ...] = ()
    secure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a site gave no usable reply: a stable `code`, a sentence, and the site's traceback where its policy allows it."""

    code: str
    message: str
    path: str | None = None
    trace: str = ""


class Reply(msgspec.Struct, frozen=True):
    """One site's answer: a shareable, or the failure that stands in its place."""

    slot: int
    site: str
    shareable: Shareable
    failure: Failure | None = None


class Block(msgspec.Struct, frozen=True):
    """Replies of several sites as one: each array of `body` has a first axis over them."""

    slots: Sequence[int]
    sites: Sequence[str]
    body: Tree
    metrics: Sequence[Mapping[str, float]]

    def reply(self, i: int, *, body: bool = True) -> Reply:
        """The i-th reply; its arrays are views. Without `body` only what the site reports of itself."""
        return Reply(self.slots[i], self.sites[i], Shareable(_row(self.body, i) if body else {}, self.metrics[i]))


def _row(tree: Any, i: int) -> Any:
    return {name: _row(item, i) for name, item in tree.items()} if isinstance(tree, Mapping) else tree[i, ...]


class Aborted(RunError):
    """The run was aborted while this work was under way."""


class Signal:
    """Asks running work to stop: `trigger` it from any thread; work calls `check` now and then, or waits and is among `calls`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.calls: list[Callable[[], object]] = []  # what is called by the thread that asks
        self.reason = ""

    def trigger(self, reason: str = "aborted") -> None:
        """Ask for a stop; the first reason is kept."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            for call in tuple(self.calls):
                call()

    @property
    def triggered(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Aborted` if a stop was asked for."""
        if self._event.is_set():
            raise Aborted(self.reason)


def no_data(label: str) -> object:
    """The loader of a context without data."""
    raise RunError("this task was given no data", path=label)


class FLContext(msgspec.Struct, frozen=True):
    """Where and when code at a site runs. A typed record: there is no bag to put things into.

    `slot` is the site's place in the job's list; random streams key on it, never on the name. `population` is
    how many sites the job has. `load(label)` gives the site's data of that label, loaded when first asked for.
    """

    job: str = ""
    run: str = ""
    site: str = ""
    slot: int = 0
    round: int = 0
    seed: int = 0
    population: int = 0
    data: str = ""
    load: Callable[[str], Any] = no_data  # the site's own object: only the code that the job brings knows its type
    memory: SiteMemory | None = None
    tracker: Tracker | None = None

    def track(self, step: int | None = None, of: int | None = None, **values: float) -> None:
        """Tell how the work is going: `track(step=20, of=100, loss=0.3)`. People see it while the site still works, if its policy
        lets metrics out; a simulation writes it to live.jsonl. It is progress: the task is not given up.
        """
        if self.tracker is not None:
            self.tracker.track({name: float(value) for name, value in values.items()}, step, of)

    def rng(self, purpose: str) -> np.random.Generator:
        """The stream of this (seed, round, slot) for one purpose: the same wherever the task runs."""
        return generator(self.seed, round=self.round, slot=self.slot, purpose=purpose)
