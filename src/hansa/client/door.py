"""A script's end of the line: tasks come in, results go out, one at a time."""

from __future__ import annotations

import contextlib
import math
import operator
import os
import random
import select
import socket
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hansa.client import arrays
from hansa.client.line import (
    Abort,
    Asks,
    Do,
    FromScript,
    Given,
    Kind,
    Needs,
    Sent,
    ToScript,
    Tracked,
    data_file,
    encode,
    reply_file,
    task_file,
    to_script,
)
from hansa.core.task import Shareable
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import DataError, InputError, RunError


@dataclass(frozen=True, slots=True)
class Rows:
    """x (n, ...) and y (n, ...); they can be written to, which changes nothing for others."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class SiteRows:
    """A site's rows in their parts."""

    train: Rows
    valid: Rows
    test: Rows


@dataclass(frozen=True)
class Task:
    """What a script is asked for.

    name: "train", "evaluate", or one of the job's own. round: 1, 2, ... site, slot, sites: who and where this is, of how many.
    seed: of this task, the same whenever and wherever it is done. config: what the job and the algorithm ask for ("epochs", "lr").
    """

    name: str
    round: int
    site: str
    slot: int
    sites: int
    seed: int
    job: str
    run: str
    config: Mapping[str, Any]
    _file: Path = field(repr=False)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The model as arrays by name, as it came: {} where the task brings none. They are the script's to change."""
        return dict(arrays.read(self._file).body)

    def state_dict(self, device: str = "cpu") -> dict[str, Any]:
        """The model as torch tensors by name: `model.load_state_dict(task.state_dict())`.

        Raises:
            MissingExtraError: torch is not installed.
        """
        return arrays.state_dict(self._file, device)


class Door:
    """The line of one script. One thread uses it. Files stand in `folder`, which both sides know."""

    def __init__(self, channel: socket.socket, folder: Path) -> None:
        self._channel, self._folder = channel, folder
        self._buffer, self._come = bytearray(), deque[ToScript]()
        self._task: Do | None = None  # that has no reply yet
        self._spec: Spec | None = None
        self._taken = self._unwanted = 0  # the last task, and the last that was aborted
        self._given: dict[str, Any] = {}
        self._ended = False
        # A child of the script (a loader of batches) has no part in this; its copy would keep the line open after the script.
        os.register_at_fork(after_in_child=channel.close)

    def receive(self, *, seed: bool = True) -> Task | None:
        """The next task; None when there is none any more. With `seed`, the global generators begin at the task's seed.

        Raises:
            InputError: the last task has no reply yet.
        """
        if self._task is not None and not self.aborted():
            hint = "call hansa.client.send(...) once for each task, whatever its name"
            raise InputError("the last task was not answered", task=self._task.name, round=self._task.round, hint=hint)
        self._task = None
        self.tell(Asks(after=self._taken))
        while (message := self._next()) is not None:
            if isinstance(message, Do):
                return self._begun(message, seed=seed)
        return None

    def send(
        self,
        params: object = None,
        metrics: Mapping[str, Any] | None = None,
        *,
        examples: int | None = None,
        kind: Kind = "weights",
    ) -> None:
        """Answer the task. Nothing is sent if it was aborted meanwhile.

        Raises:
            InputError: there is no task; it wants parameters and got none, or none and got some; `examples` is no count.
            SpecError: the parameters have not the names, dtypes and shapes that came: names the first that differs.
        """
        task, aborted = self._task, self.aborted()
        if task is None:
            hint = "while task := hansa.client.receive(): ..., and send once for each"
            raise InputError("there is no task to answer", hint=hint)
        if not aborted:
            made = arrays.tree({} if params is None else params)
            self._check(task, made, kind)
            headers: dict[str, Any] = {"kind": kind} | ({} if examples is None else {"examples": _count(examples)})
            message = Shareable(made, _numbers({} if metrics is None else metrics), headers)
            arrays.write(reply_file(self._folder, task.number), message)
            self.tell(Sent(number=task.number))
        self._task = None

    def data(self, label: str = "") -> Any:
        """What the site's loader of that label gives; without a label, the job's own data.

        Raises:
            DataError: the site has no such data, or none that a script can be given.
        """
        if label not in self._given:
            self.tell(Needs(label=label))
            self._given[label] = self._loaded(label)
        return self._given[label]

    def track(self, values: Mapping[str, Any], step: int | None, of: int | None) -> None:
        """Tell where training is; nothing where there is no task.

        Raises:
            InputError: a value is no number.
        """
        numbers = {name: value if math.isfinite(value) else None for name, value in _numbers(values).items()}
        if self._task is not None:
            self.tell(Tracked(values=numbers, step=step, of=of))

    def aborted(self) -> bool:
        """Whether the present task is not wanted any more."""
        while not self._ended and select.select([self._channel], [], [], 0)[0]:
            self._read()
        for message in [each for each in self._come if isinstance(each, Abort)]:
            self._come.remove(message)
            self._unwanted = max(self._unwanted, message.number)
        return self._ended or (self._taken > 0 and self._unwanted == self._taken)

    def tell(self, message: FromScript) -> None:
        """Say something; nothing if nobody listens any more."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(encode(message))

    def _begun(self, message: Do, *, seed: bool) -> Task:
        self._task, self._taken = message, message.number
        named = {
            name: getattr(message, name) for name in ("name", "round", "site", "slot", "sites", "seed", "job", "run", "config")
        }
        task = Task(**named, _file=task_file(self._folder, message.number))
        self._spec = Spec.of(task.params) if message.wants == "params" else None
        if seed:
            _seed_all(message.seed)
        return task

    def _check(self, task: Do, made: Tree, kind: object) -> None:
        if kind not in ("weights", "delta"):
            raise InputError("no such kind of parameters", path="kind", got=repr(kind), expected="weights or delta")
        if task.wants == "metrics" and made:
            raise InputError("this task asks for metrics alone", task=task.name, hint="hansa.client.send(metrics={...})")
        if self._spec is not None:
            if not made:
                raise InputError("this task asks for parameters", task=task.name, hint="hansa.client.send(params, metrics)")
            self._spec.check(made, path="params")

    def _loaded(self, label: str) -> Any:
        given = self._given_next()
        if given.form == "none":
            raise DataError(given.why, path=label or None)
        if given.form == "path":
            return Path(given.path)
        body = arrays.read(data_file(self._folder, label)).body
        if given.form == "arrays":
            return body
        parts: Any = body
        return SiteRows(*(Rows(parts[name]["x"], parts[name]["y"]) for name in ("train", "valid", "test")))

    def _given_next(self) -> Given:
        """What comes of the data that were asked for; tasks that come before it are kept."""
        later: list[ToScript] = []
        while not isinstance(message := self._next(), Given):
            if message is None:
                raise RunError("the run has ended; nobody gives data any more")
            later.append(message)
        self._come.extendleft(reversed(later))
        return message

    def _next(self) -> ToScript | None:
        """The next message; None when the line was closed."""
        while not self._come and not self._ended:
            self._read()
        return self._come.popleft() if self._come else None

    def _read(self) -> None:
        """Take in what has come; waits for the first byte."""
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self._ended = not data
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._come.extend(to_script(bytes(line)) for line in lines)
        self._buffer = rest


_doors: list[Door] = []  # at most one: that of this process


def connect(channel: socket.socket, folder: Path) -> Door:
    """Make this process a script's; called by what starts it."""
    _doors[:] = [Door(channel, folder)]
    return _doors[0]


def federated() -> bool:
    """Whether Hansa has started this script, so that tasks will come: a script may do something else where it runs alone."""
    return bool(_doors)


def receive(*, seed: bool = True) -> Task | None:
    """The next task; None when there is none any more: the run has ended, and so should the script.

    With `seed`, the global generators of `random`, numpy and torch begin at the task's seed: the same bits wherever it is done.

    Raises:
        InputError: the last task has no reply yet, or nobody gives tasks: the script runs by itself.
    """
    return _door().receive(seed=seed)


def send(
    params: object = None, metrics: Mapping[str, Any] | None = None, *, examples: int | None = None, kind: Kind = "weights"
) -> None:
    """Answer the task: the parameters after training (or by kind="delta" their change), and numbers about it.

    params: a state dict of torch, or a mapping from names to arrays: with the names, dtypes and shapes that came.
    examples: how many rows this rests on, its weight among the sites; where no number is given each site counts as one.

    Raises:
        InputError: there is no task, or it asks for something else. SpecError: the parameters do not fit; names the first.
    """
    _door().send(params, metrics, examples=examples, kind=kind)


def data(label: str = "") -> Any:
    """The site's data: what its loader gives for the label (none: the job's own). A path comes as a Path, a dataset as `SiteRows`,
    a mapping of arrays as a mapping.

    Raises:
        DataError: the site has no such data, or none that a script can be given.
    """
    return _door().data(label)


def track(step: int | None = None, of: int | None = None, **values: Any) -> None:
    """Tell how training goes while it goes on: `track(batch, batches, loss=loss)`. People see it while the site still works, if its
    policy lets metrics out; a simulation writes it to live.jsonl. It is progress: the task is not given up.

    Raises:
        InputError: a value is no number.
    """
    _door().track(values, step, of)


def aborted() -> bool:
    """Whether the present task is not wanted any more; ask now and then, stop training, and call `receive` for what comes next."""
    return _door().aborted()


def _door() -> Door:
    if not _doors:
        hint = (
            "name it in a job, ScriptLearner('train.py', ...), and type: hansa run job.py:job. "
            "What it does alone goes below `if not hansa.client.federated():`"
        )
        raise InputError("this script runs by itself, so no tasks come", path=sys.argv[0] or None, hint=hint)
    return _doors[0]


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002  the generators that scripts use
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _count(examples: object) -> int:
    try:
        count = operator.index(examples)  # type: ignore[arg-type]  # what is none raises
    except TypeError:
        count = 0
    if count < 1:
        raise InputError("examples count rows", path="examples", got=repr(examples), expected="a whole number, at least 1")
    return count


def _numbers(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        hint = 'send(params, {"loss": 0.1})'
        raise InputError("metrics are a mapping from names to numbers", path="metrics", got=type(metrics).__name__, hint=hint)
    made = {}
    for name, value in metrics.items():
        try:
            made[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise InputError("a metric is one number", path=f"metrics/{name}", got=type(value).__name__) from error
    return made
