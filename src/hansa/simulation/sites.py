"""Simulated sites: their memory, and the one place where a site's own code is called and may fail."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import msgspec
import numpy as np

from hansa.core import half
from hansa.core.executor import Executor
from hansa.core.graph import member_of
from hansa.core.job import Job
from hansa.core.protocols import FederatedData
from hansa.core.task import Failure, FLContext, Shareable, Signal, Task
from hansa.core.trees import Tree
from hansa.core.types import ObjectType
from hansa.data.rows import Rows
from hansa.errors import ClientError, DataError, HansaError, SpecError
from hansa.registry import nearest
from hansa.schema import misfits, schema_of

OWN = "data"  # the label by which any job's functions may call the job's own data set
_NO_NUMBERS = "OSUMm"  # numpy's kinds of objects, strings and times
_NUMBERS = (int, float, np.integer, np.floating)


class Call(NamedTuple):
    """One attempt of one site at a task."""

    slot: int
    attempt: int


class Answer(msgspec.Struct, frozen=True):
    """What came of a call: a reply or a failure, and what the site would keep in its memory if the reply is admitted.

    tracked: what the site's code told of its work meanwhile.
    """

    reply: Shareable
    failure: Failure | None = None
    puts: Mapping[str, Tree] = {}
    tracked: Sequence[Tracked] = ()


class Tracked(NamedTuple):
    """Numbers of one moment of a site's work."""

    values: Mapping[str, float]
    step: int | None
    of: int | None


class Tracks(list[Tracked]):
    """A Tracker that collects what it is told."""

    def track(self, values: Mapping[str, float], step: int | None, of: int | None) -> None:
        """Keep the numbers."""
        self.append(Tracked(values, step, of))


class SlotMemory:
    """A site's memory during one task: reads what was kept before, collects what is put."""

    def __init__(self, kept: Mapping[str, Tree]) -> None:
        self._kept = kept
        self.puts: dict[str, Tree] = {}

    def get(self, name: str) -> Tree | None:
        """The tree of that name, as this task has put it or an earlier one kept it."""
        return self.puts.get(name, self._kept.get(name))

    def put(self, name: str, tree: Tree) -> None:
        """Keep a tree, if the reply is admitted.

        Raises:
            SpecError: the name is no key of a tree, or something in the tree is no array.
        """
        require_tree({name: tree}, path="memory")
        self.puts[name] = tree


@dataclass(frozen=True)
class Sites:
    """What all workers of a run share: the job, its executor and data, and the run's name and seed."""

    job: Job
    executor: Executor
    data: Mapping[str, FederatedData]
    names: Sequence[str]
    seed: int
    run: str = ""
    checked: set[str] = field(default_factory=set, compare=False)  # labels of which one site was looked at

    def context(self, task: Task, slot: int, memory: SlotMemory, tracks: Tracks) -> FLContext:
        """Where and when a task runs at one site."""
        return FLContext(
            job=self.job.name,
            run=self.run,
            site=self.names[slot],
            slot=slot,
            round=task.round,
            seed=self.seed,
            population=len(self.names),
            data=self.job.data,
            load=partial(self._load, slot),
            memory=memory,
            tracker=tracks,
        )

    def _load(self, slot: int, label: str) -> Any:
        """The site's data of a label; its arrays cannot be written to: what one round did to them, the next would train on."""
        data = self.data[label_of(label, self.job.data, self.data)].load(slot)
        if label not in self.checked:
            self.checked.add(label)
            self._check(label, data, slot)
        return _sealed(data)

    def _check(self, label: str, data: Any, slot: int) -> None:
        """Return if the data are of the type that the job's computations say; of each label the first site asked is looked at.

        Raises:
            DataError: they are not; names the path, as `hansa job check` does for deployed sites.
        """
        wanted = [node.type for made in self.job.plans for stage in made.stages for node in stage.parameters if node.name == label]
        if all(isinstance(member_of(kind), ObjectType) for kind in wanted):
            return
        found = schema_of(data)
        for misfit in (each for kind in wanted for each in misfits(member_of(kind), found, label)):
            error = "the site's data are not of the type that the job takes"
            raise DataError(error, site=self.names[slot], path=misfit.path, expected=misfit.expected, got=misfit.got)

    def serve(self, task: Task, slot: int, kept: Mapping[str, Tree], abort: Signal) -> Answer:
        """One site's answer. What its code raises becomes a failure with the traceback: the simulation's client call."""
        memory, tracks = SlotMemory(kept), Tracks()
        ctx = self.context(task, slot, memory, tracks)
        try:
            reply = self.executor.execute(task.name, half.restored(task.shareable), ctx, abort)
            return Answer(self.filtered(reply, ctx), puts=memory.puts, tracked=tuple(tracks))
        except (Exception, SystemExit) as error:  # a site may raise anything, or exit; it becomes a Failure in the run's record
            return Answer(Shareable(), failure_of(error), tracked=tuple(tracks))

    def close(self) -> None:
        """End what the job's learner or executor has started here, such as a script's processes."""
        for made in self.job.workers:
            if (close := getattr(made, "close", None)) is not None:
                close()

    def filtered(self, reply: Shareable, ctx: FLContext) -> Shareable:
        """The reply after the job's filters at the site.

        Raises:
            DataError: the executor or a filter returned something else than a Shareable. SpecError: something in it cannot be sent.
        """
        _require_shareable(reply, "an executor")
        for each in self.job.filters:
            reply = each(reply, ctx)
            _require_shareable(reply, "a filter")
        require_tree(reply.body)
        for metric, value in reply.metrics.items():
            if not isinstance(value, _NUMBERS):
                raise SpecError("a metric is a number", path=f"metrics/{metric}", got=type(value).__name__)
        return reply


def by_label(job: Job, data: FederatedData | Mapping[str, FederatedData]) -> dict[str, FederatedData]:
    """The data sets of a job by label; a lone one has the job's.

    Raises:
        DataError: the job's own, or one that its functions name, is missing; or one is not what it should be: names the label.
    """
    sets = dict(data) if isinstance(data, Mapping) else {job.data: data}
    if job.data not in sets:
        raise DataError("the job's data is missing", job=job.name, expected=f"label {job.data!r}", got=sorted(sets))
    for label, each in cast(dict[str, object], sets).items():
        if not isinstance(each, FederatedData):
            hint = "a FederatedData has `sites` and `load(slot)`; see hansa.data"
            raise DataError("not a federated data set", job=job.name, path=label, got=type(each).__name__, hint=hint)
    names = sets[job.data].sites
    if len(names) == 0:
        raise DataError("the federated data set has no sites", job=job.name, path=job.data)
    # Names that are made when asked for, as those of a million clients, are their maker's to keep apart.
    if isinstance(names, list | tuple) and len(set(names)) < len(names):
        twice = next(name for slot, name in enumerate(names) if name in names[:slot])
        raise DataError("two sites have one name", job=job.name, path=job.data, got=repr(twice), hint="sums and records name sites")
    for label, each in sets.items():
        if len(each.sites) != len(names):
            got, expected = f"{len(each.sites)} sites", f"{len(names)}, as {job.data!r} has"
            raise DataError("the data sets of a job have the same sites", job=job.name, path=label, expected=expected, got=got)
    for stage in (stage for each in job.plans for stage in each.stages):
        for node in stage.parameters:
            label_of(node.name, job.data, sets)
    return sets


def label_of(label: str, own: str, sets: Mapping[str, FederatedData]) -> str:
    """Which data set a label means: the one of that name; the job's `own` where there is no other, and for the word `data`.

    Raises:
        DataError: there is no such data set; names the nearest.
    """
    if label in sets:
        return label
    if label != OWN and len(sets) > 1:
        raise DataError("no such data set", path=label, expected=", ".join(sorted(sets)), hint=nearest(label, sorted(sets)))
    return own


def _sealed(data: Any) -> Any:
    if type(data) is not Rows:
        return data
    sealed = object.__new__(Rows)  # they were checked when they were made; once more would cost 25 us a load
    for name in Rows.__slots__:
        value = getattr(data, name)
        object.__setattr__(sealed, name, read_only(value) if type(value) is dict else _read_only(value))
    return sealed


def read_only(tree: Tree) -> dict[str, Any]:
    """The tree with views that cannot be written to: what one reader did to it, the next would be given."""
    return {
        key: read_only(item) if type(item) is not np.ndarray and isinstance(item, Mapping) else _read_only(item)
        for key, item in tree.items()
    }


def _read_only(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.flags.writeable:  # a NumPy scalar cannot be written to anyway
        leaf = leaf.view()
        leaf.setflags(write=False)
    return leaf


def _require_shareable(reply: object, who: str) -> None:
    if not isinstance(reply, Shareable):
        raise DataError(f"{who} returns a Shareable", got=type(reply).__name__)


def require_tree(tree: object, *, path: str = "") -> None:
    """Return if it is a tree of arrays, as it must be to leave a site or to be stored.

    Raises:
        SpecError: it is not; names the first path.
    """
    if type(tree) is not dict and not isinstance(tree, Mapping):
        numbers = isinstance(tree, np.ndarray | np.generic) and tree.dtype.kind not in _NO_NUMBERS
        if not (numbers and path):
            got = tree.dtype if isinstance(tree, np.ndarray | np.generic) else type(tree).__name__
            raise SpecError("not an array of numbers" if path else "not a tree", path=path or None, got=got)
        return
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise SpecError("a key is a non-empty string without '/'", path=path or None, got=repr(key))
        if type(value) is not np.ndarray or value.dtype.kind in _NO_NUMBERS:
            require_tree(value, path=f"{path}/{key}" if path else key)


def failure_of(error: BaseException) -> Failure:
    """A failure that says what was raised, and where in the site's code unless it is one of our errors, which say so themselves."""
    if isinstance(error, HansaError):
        return Failure(error.code, str(error), error.path, error.trace if isinstance(error, ClientError) else "")
    trace = "".join(traceback.format_exception(error))
    return Failure(ClientError.code, traceback.format_exception_only(error)[-1].strip(), None, trace)


class Crew(Protocol):
    """Answers the calls of a task. `begin` says which calls are coming, in the order in which they will be asked for."""

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None: ...
    def answer(self, call: Call) -> Answer: ...
    def close(self) -> None: ...
