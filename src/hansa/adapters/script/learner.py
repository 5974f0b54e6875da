"""ScriptLearner and ScriptExecutor: a training script in processes of its own, one for each site."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from hansa import tensors
from hansa.adapters.script.process import GRACE_S, Killed, Script
from hansa.client import arrays
from hansa.client.line import Do, Tracked, Wants
from hansa.core import trees
from hansa.core.executor import Executor
from hansa.core.protocols import FitConfig, Part, Update
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import ConfigError, InputError

LIVES: Final = 3  # of a script, in which one task must be done
_TERMS: Final = ("proximal", "clip", "correction")  # of FitConfig: what an algorithm adds to a step


class _Asked(NamedTuple):
    """What a task is besides its arrays."""

    name: str
    config: Mapping[str, Any] = {}
    wants: Wants = "any"


class Scripts:
    """The processes of one script: one for each site, kept from task to task; of more than `keep` sites, of those asked last.

    Settings alone are copied to other processes: a process is at home where it was started.

    Raises:
        InputError: there is no such file. ConfigError: a setting is out of range.
    """

    def __init__(
        self, script: str | os.PathLike[str], arguments: Sequence[str], *, keep: int, threads: int | None, timeout_s: float | None
    ) -> None:
        for path, value, least in (("keep", keep, 1), ("threads", threads, 1)):
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError("not a whole number in range", path=path, got=repr(value), expected=f"at least {least}")
        if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ConfigError("not a time", path="timeout_s", got=repr(timeout_s), expected="seconds > 0, or None")
        if isinstance(arguments, str):
            raise ConfigError("arguments are a list of words", path="arguments", got=repr(arguments), hint='["--lr", "0.1"]')
        self.path = beside(script)
        self._arguments, self._keep, self._threads, self._timeout_s = tuple(arguments), keep, threads, timeout_s
        self._alive: OrderedDict[tuple[str, int], Script] = OrderedDict()
        self._home, self._number = os.getpid(), 0

    def ask(self, asked: _Asked, body: Shareable, ctx: FLContext, abort: Signal, load: Callable[[str], object]) -> Shareable:
        """The reply of the site's script. One that a signal ended is started again, and the task done anew.

        Raises:
            ClientError: it raised, ended, or was too late; or a signal ended it each time. Aborted: `abort` was triggered.
        """
        lives = LIVES
        while True:
            self._number += 1
            do = Do(
                number=self._number,
                name=asked.name,
                round=ctx.round,
                seed=int(ctx.rng(f"script {asked.name}").integers(1 << 63)),
                site=ctx.site,
                slot=ctx.slot,
                sites=ctx.population,
                job=ctx.job,
                run=ctx.run,
                config=dict(asked.config),
                wants=asked.wants,
            )
            script = self._of(ctx)
            try:
                return script.ask(do, body, abort=abort, load=load, track=partial(_track, ctx), timeout_s=self._timeout_s)
            except Killed:
                lives -= 1
                if lives == 0:
                    raise
            finally:
                if not script.up:
                    self._alive.pop((ctx.run, ctx.slot), None)

    def close(self) -> None:
        """End all processes: they are told that nothing more comes, and then killed."""
        if self._home != os.getpid():
            return
        for script in self._alive.values():
            script.hang_up()
        until = time.monotonic() + GRACE_S
        while self._alive:
            self._alive.popitem()[1].close(max(0.0, until - time.monotonic()))

    def _of(self, ctx: FLContext) -> Script:
        """The site's process, started if need be."""
        if self._home != os.getpid():  # a fork: those that are alive are the parent's
            self._alive, self._home = OrderedDict(), os.getpid()
        where = (ctx.run, ctx.slot)
        if where not in self._alive:
            while len(self._alive) >= self._keep:
                self._alive.popitem(last=False)[1].close()
            self._alive[where] = Script(self.path, self._arguments, threads=self._threads)
        self._alive.move_to_end(where)
        return self._alive[where]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_alive": OrderedDict()}

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]
        said = {"arguments": list(self._arguments) or None, "timeout_s": self._timeout_s}
        more = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        return ", ".join([f"{self.path.name} {digest}", *more, *([f"threads={self._threads}"] if self._threads != 1 else [])])


class ScriptLearner:
    """A learner from a script that asks for tasks by `hansa.client`. Each site's script is a process of its own.

    script: its file, found as `import` finds a neighbour: beside the job's file. It travels with the job.
    init: the model to start from: a mapping of arrays or a state dict; a `.safetensors` file, found as the script is; or a function
        that gives a mapping or a torch module, with torch seeded from the job's seed (or handed `rng`, a numpy generator).
    metrics: what the script reports on the task "evaluate"; without names it gets the task "train" alone.
    config: plain values for `task.config`. An algorithm's lr, epochs, steps and batch come on top, where it asks for any.
    arguments: for the script's command line.
    honours: which of "proximal" and "clip" the script takes from its config and does; an algorithm that asks for more is refused.
    keep: how many sites' processes one machine's process keeps alive. threads: of each (None: as many as libraries take).
    timeout_s: how long one task may take.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "train.py"
    >>> _ = file.write_text("import hansa.client as hc")
    >>> ScriptLearner(file, init={"w": np.zeros(2)}, config={"epochs": 2})
    ScriptLearner(train.py b6db68fe995b, init=<w=float64[2]>, config={'epochs': 2})

    Raises:
        InputError: there is no such file. ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        script: str | os.PathLike[str],
        *,
        init: Mapping[str, Any] | str | os.PathLike[str] | Callable[..., Any],
        metrics: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        honours: Sequence[str] = (),
        keep: int = 16,
        threads: int | None = 1,
        timeout_s: float | None = None,
    ) -> None:
        if isinstance(metrics, str):
            raise ConfigError("metrics are a sequence of names", path="metrics", got=repr(metrics))
        if isinstance(honours, str) or not set(honours) <= {"proximal", "clip"}:
            raise ConfigError("no such term", path="honours", got=repr(honours), expected="some of proximal, clip")
        self._scripts = Scripts(script, arguments, keep=keep, threads=threads, timeout_s=timeout_s)
        given: object = init
        self._init: Any = beside(init) if isinstance(init, str | os.PathLike) else init
        if not (isinstance(given, Mapping | str | os.PathLike) or callable(given)):
            expected = "a mapping of arrays, a .safetensors file, or a function that gives a mapping or a torch module"
            raise ConfigError("no model to start from", path="init", got=type(init).__name__, expected=expected)
        self._metrics, self._config, self._honours = tuple(metrics), dict(config or {}), tuple(honours)
        _require_plain(self._config)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the script reports on "evaluate"."""
        return self._metrics

    @property
    def files(self) -> list[Path]:
        """The files that travel with the job."""
        return [self._scripts.path, *([self._init] if isinstance(self._init, Path) else [])]

    def init(self, rng: np.random.Generator) -> Tree:
        """The model to start from.

        Raises:
            InputError: `init` gives something else. CheckpointError: the file is damaged.
        """
        if isinstance(self._init, Path):
            return tensors.load_tree(self._init)[0]
        return trees.copy(arrays.tree(self._init if isinstance(self._init, Mapping) else _made(self._init, rng), path="init"))

    def fit_at(
        self, model: Tree, data: Any, config: FitConfig, *, ctx: FLContext, abort: Signal
    ) -> tuple[Update, Mapping[str, float]]:
        """What the site's script makes of the model, and what it reports; where it tells no number of rows, it counts as one.

        Raises:
            ClientError: the script raised, ended or was too late. SpecError: its reply does not fit the model.
            ConfigError: the algorithm asks for what the script does not honour. Aborted: `abort` was triggered.
        """
        asked = _Asked("train", {**self._config, **self._terms(config)}, "params")
        reply = self._scripts.ask(asked, Shareable(model), ctx, abort, _loader(data, ctx))
        Spec.of(model).check(reply.body, path="params")
        delta = reply.body if reply.headers.get("kind") == "delta" else trees.map(_change, reply.body, model)
        loss = reply.metrics.get("loss", reply.metrics.get("train_loss", math.nan))
        said = {name if name.startswith("train_") else f"train_{name}": value for name, value in reply.metrics.items()}
        return Update(delta, int(reply.headers.get("examples", 1)), 0, config.lr or math.nan, loss), said

    def evaluate_at(self, model: Tree, data: Any, part: Part, *, ctx: FLContext, abort: Signal) -> tuple[Mapping[str, float], int]:
        """What the site's script reports of the model on one part of its rows, and on how many.

        Raises:
            ClientError: the script raised, ended or was too late. Aborted: `abort` was triggered.
        """
        asked = _Asked("evaluate", {**self._config, "part": part}, "metrics")
        reply = self._scripts.ask(asked, Shareable(model), ctx, abort, _loader(data, ctx))
        return reply.metrics, int(reply.headers.get("examples", 1))

    def close(self) -> None:
        """End the processes."""
        self._scripts.close()

    def _terms(self, config: FitConfig) -> dict[str, Any]:
        """What the algorithm asks for, as plain values."""
        for term in _TERMS:
            if getattr(config, term) not in (None, 0.0) and term not in self._honours:
                hint = f"do it in the script, by task.config[{term!r}], and say honours=[{term!r}]"
                raise ConfigError(
                    f"the algorithm asks for {term}, and the script does not say that it does it",
                    path=term,
                    hint=None if term == "correction" else hint,
                )
        names = ("lr", "epochs", "steps", "batch", *self._honours)
        return {name: value for name in names if (value := getattr(config, name)) is not None}

    def __repr__(self) -> str:
        start = f"<{Spec.of(arrays.tree(self._init))}>".strip("<>") if isinstance(self._init, Mapping) else ""
        init = f"<{start}>" if start else getattr(self._init, "__name__", None) or f"{Path(str(self._init)).name}"
        said = {"config": self._config, "metrics": self._metrics, "honours": self._honours}
        return ", ".join([f"ScriptLearner({self._scripts!r}", f"init={init}", *[f"{k}={v}" for k, v in said.items() if v]]) + ")"


class ScriptExecutor(Executor):
    """An executor whose tasks a script serves: for workflows that ask by name. It answers with whatever the script sends.

    `task.params` is the task's tree and `task.config` its headers; the other arguments are those of `ScriptLearner`.

    Raises:
        InputError: there is no such file. ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        script: str | os.PathLike[str],
        *,
        arguments: Sequence[str] = (),
        keep: int = 16,
        threads: int | None = 1,
        timeout_s: float | None = None,
    ) -> None:
        self._scripts = Scripts(script, arguments, keep=keep, threads=threads, timeout_s=timeout_s)

    @property
    def files(self) -> list[Path]:
        """The files that travel with the job."""
        return [self._scripts.path]

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The script's reply; `kind` and `examples` are its headers.

        Raises:
            ClientError: the script raised, ended or was too late. Aborted: `abort_signal` was triggered.
        """
        asked = _Asked(task_name, shareable.headers)
        return self._scripts.ask(asked, shareable, fl_ctx, abort_signal, lambda label: fl_ctx.load(label or fl_ctx.data))

    def close(self) -> None:
        """End the processes."""
        self._scripts.close()

    def __repr__(self) -> str:
        return f"ScriptExecutor({self._scripts!r})"


def beside(file: str | os.PathLike[str]) -> Path:
    """The file, absolute: found as a module is that stands beside the one that is imported now.

    Raises:
        InputError: there is no such file.
    """
    places = [Path(place or ".") for place in sys.path]
    for place in places:
        if (found := place / file).is_file():
            return found.resolve()
    hint = "it is looked for beside the job's file, or give Path(__file__).with_name('train.py'); "
    hint += "a script that only another job of the file uses travels with --include"
    raise InputError("no such file", path=str(file), hint=hint)


def _track(ctx: FLContext, said: Tracked) -> None:
    if ctx.tracker is not None:
        values = {name: math.nan if value is None else value for name, value in said.values.items()}
        ctx.tracker.track(values, said.step, said.of)


def _loader(data: Any, ctx: FLContext) -> Callable[[str], object]:
    return lambda label: ctx.load(label) if label else data


def _made(make: Callable[..., Any], rng: np.random.Generator) -> Any:
    """What the function gives: handed `rng` if it takes one, with torch seeded from it otherwise."""
    if "rng" in inspect.signature(make).parameters:
        made = make(rng=rng)
    elif (torch := sys.modules.get("torch")) is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(1 << 63)))
            made = make()
    else:
        made = make()
    return made.state_dict() if hasattr(made, "state_dict") else made


def _change(after: Array, before: Any) -> Array:
    change: Array = np.logical_xor(after, before) if after.dtype == np.bool_ else np.subtract(after, before, dtype=after.dtype)
    return change


def _require_plain(config: Mapping[str, Any]) -> None:
    try:
        same = msgspec.json.decode(msgspec.json.encode(config)) == config
    except TypeError:
        same = False
    if not same:
        raise ConfigError("a script's config has plain values", path="config", got=repr(config), expected="as JSON has them")
