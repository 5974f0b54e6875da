"""A Job is what is submitted: a workflow, the label of its data, and what a site needs to run it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from hansa.core.computation import Computation
from hansa.core.executor import Executor, FunctionExecutor
from hansa.core.plan import Plan, plan, without_addresses
from hansa.core.protocols import Filter
from hansa.core.registry import nearest
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.workflow import Workflow
from hansa.errors import ConfigError, HansaError, JobReferenceError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@dataclass(frozen=True)
class Job:
    """What is submitted.

    data: the label of the data set that each site maps to its own. filters: run at the site on each reply before it leaves.
    executor: serves tasks of a workflow that asks for them by name. requires: distributions a site must have. include: further
    files of the bundle. seed: of all random streams; a runner's argument wins.
    """

    name: str
    workflow: Workflow
    data: str = "data"
    filters: Sequence[Filter] = field(default=(), kw_only=True)
    executor: Executor | None = field(default=None, kw_only=True)
    requires: Sequence[str] = field(default=(), kw_only=True)
    include: Sequence[str] = field(default=(), kw_only=True)
    seed: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for path, holds, what in (
            ("name", _text(self.name) and _NAME.match(self.name), "a job name: letters, digits, . _ - (at most 63)"),
            ("workflow", callable(self.workflow), "a workflow, which is called with a federation"),
            ("data", _text(self.data), "the label of a data set"),
            ("filters", _several(callable, self.filters), "a list of filters"),
            ("executor", self.executor is None or hasattr(self.executor, "execute"), "an Executor"),
            ("requires", _several(_text, self.requires), "a list of distributions"),
            ("include", _several(_text, self.include), "a list of files"),
        ):
            if not holds:
                raise ConfigError(f"not {what}", path=path, got=repr(getattr(self, path)))

    @property
    def computations(self) -> Sequence[Computation]:
        """The workflow's federated computations."""
        return tuple(getattr(self.workflow, "computations", ()))

    @property
    def plans(self) -> list[Plan]:
        """The plan of each computation."""
        return [plan(computation) for computation in self.computations]

    def describe(self) -> str:
        """What will run where and what leaves, as text."""
        about = getattr(self.workflow, "about", "") or type(self.workflow).__name__
        lines = [f"job {self.name} on {self.data!r}: {about}", *map(str, self.plans)]
        return without_addresses("\n".join(lines + [f"filter at each site: {f!r}" for f in self.filters]))

    @property
    def hash(self) -> str:
        """SHA-256 of the description."""
        return hashlib.sha256(self.describe().encode()).hexdigest()

    def serve(self) -> Executor:
        """The executor of a site: the job's own tasks by name, those of its computations otherwise."""
        functions = FunctionExecutor(self.computations)
        return functions if self.executor is None else Router(functions, self.executor)


def _text(given: object) -> bool:
    return isinstance(given, str) and given != ""


def _several(what: Callable[[object], bool], given: object) -> bool:
    return isinstance(given, list | tuple) and all(map(what, given))


class Router(Executor):
    """Tasks of computations go to their functions, all others to the job's own executor."""

    def __init__(self, functions: FunctionExecutor, other: Executor) -> None:
        self._functions, self._other = functions, other

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The reply of whoever serves the task."""
        chosen = self._functions if task_name in self._functions.tasks else self._other
        return chosen.execute(task_name, shareable, fl_ctx, abort_signal)


def load_reference(reference: str, *, base: Path | None = None) -> object:
    """The object that `file.py:name` or `package.module:name` leads to. Relative files stand beside `base`, or here.

    A file is run once while it stays as it is. Its neighbours are imported by name, as when it is run: of two files in different
    folders with a neighbour of the same name, loaded by one process, both see the first one's.

    Raises:
        JobReferenceError: there is no such file, module or name (the nearest one is named), or importing it failed: says where.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise JobReferenceError("not a reference", got=repr(reference), expected="file.py:name or package.module:name")
    module = _file_module(place, base) if place.endswith(".py") else _named_module(place, reference)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise JobReferenceError(f"{place} has no {name!r}", hint=nearest(name, public) if public else "the module is empty")
    return getattr(module, name)


FILE_MODULE = "hansa_job_"


def _file_module(place: str, base: Path | None) -> ModuleType:
    path = Path(place) if base is None else base / place
    if not path.is_file():
        raise JobReferenceError("no such file", path=str(path), hint="a job is file.py:name or package.module:name")
    path = path.resolve()
    name = f"{FILE_MODULE}{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    content = hashlib.blake2b(path.read_bytes()).hexdigest()
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__content__", None) == content:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise JobReferenceError("not a Python file", path=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # the file's neighbours can be imported, as when it is run
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)  # half of a module is none
        raise _not_imported(error, str(path), path.parent) from error
    finally:
        sys.path.remove(str(path.parent))
    vars(module)["__content__"] = content
    return module


def _named_module(place: str, reference: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise JobReferenceError(
            f"no module {error.name!r}", got=reference, expected="file.py:name or package.module:name"
        ) from None
    except BaseException as error:
        raise _not_imported(error, reference, Path("/")) from error


def _not_imported(error: BaseException, where: str, folder: Path) -> BaseException:
    """What is raised for what a job's own code raised while it was imported: names the last line of that code, in its folder."""
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, HansaError) and not isinstance(error, ImportError)):
        return error  # it says itself what is wrong
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or where, error.lineno))
    own = [f"{file}:{line}" for file, line in frames if Path(file).is_relative_to(folder)]
    says = "it ended the program" if isinstance(error, SystemExit) else traceback.format_exception_only(error)[-1].strip()
    hint = 'what runs goes below `if __name__ == "__main__":`' if isinstance(error, SystemExit) else getattr(error, "hint", None)
    return JobReferenceError(f"importing it failed: {says}", path=own[-1] if own else where, hint=hint)
