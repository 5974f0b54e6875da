"""A job at a site: the executor and the data, loaded once, and the one place where code that came with a bundle is called."""

from __future__ import annotations

import inspect
import mmap
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from hansa import codec, schema
from hansa.core import half
from hansa.core.executor import Executor
from hansa.core.job import Job
from hansa.core.task import FLContext, Shareable
from hansa.core.trees import Tree
from hansa.errors import ClientError, DataError, HansaError
from hansa.files import storage_error
from hansa.references import load_reference
from hansa.runtime.client.channel import Begin, Broken, Do, Done
from hansa.runtime.client.telling import Voice, Work
from hansa.runtime.manifest import load_job

_OFFERED: Final = ("slot", "site")  # what a loader may take


class Memory:
    """A site's memory during one task: reads what earlier tasks left, collects what this one puts."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self._kept = kept
        self.puts: dict[str, Tree] = {}

    def get(self, name: str) -> Tree | None:
        """The tree of that name, as this task has put it or an earlier one left it."""
        if name in self.puts or name not in self._kept:
            return self.puts.get(name)
        return codec.decode(_mapped(self._kept[name])).body

    def put(self, name: str, tree: Tree) -> None:
        """Keep a tree, if the reply is counted.

        Raises:
            SpecError: the name is no key of a tree, or something in the tree is no array.
        """
        codec.encode_parts(Shareable({name: tree}))
        self.puts[name] = tree


class Served:
    """A loaded job. Data is loaded when it is first asked for, and kept."""

    def __init__(self, begin: Begin, job: Job, executor: Executor, voice: Voice) -> None:
        self._begin, self._job, self._executor, self._voice = begin, job, executor, voice
        self._data: dict[tuple[str, int], Any] = {}
        self._work = Work(voice)

    def abort(self, reason: str) -> None:
        """Ask the task that is being done to stop; from any thread."""
        self._work.trigger(reason)

    def do(self, task: Do) -> Done:
        """What came of a task. What the job's code raises becomes a failure: the worker's outermost call."""
        begun = time.monotonic()
        self._work = Work(self._voice)
        try:
            memory = Memory(task.memory)
            names = self._done(task, memory)
        except (Exception, SystemExit) as error:
            code, message, path, trace = _told(error)
            sys.stderr.write(trace)  # the site's own log has it, whoever else may see it
            return Done(
                seq=task.seq, attempt=task.attempt, seconds=_since(begun), code=code, message=message, path=path, trace=trace
            )
        return Done(seq=task.seq, attempt=task.attempt, seconds=_since(begun), memory=names)

    def _done(self, task: Do, memory: Memory) -> list[str]:
        """Write the reply and what is to be remembered; the names of the latter."""
        ctx = FLContext(
            job=task.job,
            run=self._begin.run,
            site=self._begin.site,
            slot=task.slot,
            round=task.round,
            seed=task.seed,
            population=task.population,
            data=task.data,
            load=partial(self._load, task.slot),
            memory=memory,
            tracker=self._work,
        )
        reply = self._executor.execute(task.task, half.restored(codec.decode(_mapped(task.body))), ctx, self._work)
        _require_shareable(reply, "an executor")
        for each in self._job.filters:
            reply = each(reply, ctx)
            _require_shareable(reply, "a filter")
        _write(task.out, reply)
        for number, tree in enumerate(memory.puts.values()):
            _write(f"{task.out}.{number}", Shareable(tree))
        return list(memory.puts)

    def _load(self, slot: int, label: str) -> Any:
        """The site's data of that label, or the path of them; a label that the site does not know stands for the job's own."""
        places = self._begin.places
        name = label if label in self._begin.data or label in places else self._job.data
        if name in places:
            if not (place := Path(places[name])).exists():
                raise DataError("the site's data are not there", path=str(place), hint="see [data] in site.toml")
            return place
        if (name, slot) not in self._data:
            self._data[name, slot] = load_data(self._begin.data, name, Path(self._begin.base), slot=slot, site=self._begin.site)
        return self._data[name, slot]


def load(begin: Begin, voice: Voice) -> Served | Broken:
    """The job of a run. What its code raises when it is imported is told: this is an outermost call, too."""
    try:
        job = load_job(Path(begin.source), begin.reference)
        return Served(begin, job, job.serve(), voice)
    except (Exception, SystemExit) as error:
        code, message, _, trace = _told(error)
        return Broken(code=code, message=f"the job does not load: {message}", trace=trace)


def types_of(begin: Begin) -> dict[str, str]:
    """The types of the site's data by label, "" where a loader raises: its log says what. This is an outermost call, too."""
    found = dict.fromkeys(begin.places, "Path")
    for label in begin.data:
        try:
            data = load_data(begin.data, label, Path(begin.base), slot=0, site=begin.site)
            text = str(schema.schema_of(data, rows=begin.rows))
            found[label] = text if len(text) <= schema.LONGEST else ""
        except (Exception, SystemExit) as error:
            sys.stderr.write(f"the type of {label!r} is not known: {_told(error)[3]}")
            found[label] = ""
    return found


def load_data(loaders: Mapping[str, str], label: str, base: Path, *, slot: int, site: str) -> Any:
    """What the site's loader for a label gives. A loader may take `slot` and `site`.

    Raises:
        DataError: there is no loader for the label. JobReferenceError: the reference leads nowhere.
    """
    if label not in loaders:
        raise DataError("this site has no such data", path=label, expected=sorted(loaders), hint="see [data] in site.toml")
    loader = load_reference(loaders[label], base=base)
    if not callable(loader):
        raise DataError("a loader is a function", path=label, got=type(loader).__name__, hint="see [data] in site.toml")
    offered: dict[str, object] = {"slot": slot, "site": site}
    return loader(**{name: offered[name] for name in _taken(loader)})


def _taken(loader: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(loader).parameters
    return [name for name in _OFFERED if name in parameters]


def _require_shareable(reply: object, who: str) -> None:
    if not isinstance(reply, Shareable):
        raise DataError(f"{who} returns a Shareable", got=type(reply).__name__)


def _told(error: BaseException) -> tuple[str, str, str | None, str]:
    """Code, message, path and traceback of what was raised."""
    trace = (isinstance(error, ClientError) and error.trace) or "".join(traceback.format_exception(error))
    if isinstance(error, HansaError):
        return error.code, str(error), error.path, trace
    return ClientError.code, traceback.format_exception_only(error)[-1].strip(), None, trace


def _mapped(path: str) -> memoryview:
    """The file's content, read only; mapped for as long as an array looks at it."""
    try:
        with Path(path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise storage_error(error, path) from error


def _write(path: str, shareable: Shareable) -> None:
    """Write a message; durability is the agent's."""
    parts = codec.encode_parts(shareable)
    try:
        with Path(path).open("wb") as file:
            file.writelines(parts)
    except OSError as error:
        raise storage_error(error, path, size=sum(memoryview(part).nbytes for part in parts)) from error


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 6)
