"""Objects by reference: what `file.py:name` or `package.module:name` leads to. References are typed by people, never received."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from hansa.errors import HansaError, JobReferenceError
from hansa.registry import nearest


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
_FILE_MODULE = re.compile(rf"\b{FILE_MODULE}(\w+)_[0-9a-f]{{8}}\b")


def plainly(text: str) -> str:
    """The text with the modules of files that were loaded by reference under the files' own names, wherever the files lie.

    >>> plainly("hansa_job_digits_0a1b2c3d:local_step")
    'digits:local_step'
    """
    return _FILE_MODULE.sub(r"\1", text)


def module_of(what: object) -> str:
    """The name of the module that something was made in; the program's own, which runs as `__main__`, by its file or package."""
    name = plainly(str(getattr(what, "__module__", None) or "?"))
    main = sys.modules.get("__main__")
    if name != "__main__" or main is None:
        return name
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return str(spec.name) if spec is not None else Path(file).stem if file else name


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
