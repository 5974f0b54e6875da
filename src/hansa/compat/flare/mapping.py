"""`import nvflare`, mapped to this package in the process that runs an app, for as long as it does; and the app's own modules."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

OURS: Final = "hansa.compat.flare"
THEIRS: Final = "nvflare"


class _Same(Loader):
    """Gives the module of ours that stands for theirs, as it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        found = importlib.import_module(self._name)
        self._spec = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of the other name there


class _Finder(MetaPathFinder):
    """Finds `nvflare.x.y` where `hansa.compat.flare.x.y` is."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if not _theirs(fullname):
            return None
        name = ours(fullname)
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return None
        return ModuleSpec(fullname, _Same(name), is_package=found.submodule_search_locations is not None)


finder: Final = _Finder()  # for a process that is a script's, to its end


def ours(name: str) -> str:
    """The module of ours for a dotted name of theirs; other names stay as they are.

    >>> ours("nvflare.apis.dxo"), ours("torch.nn")
    ('hansa.compat.flare.apis.dxo', 'torch.nn')
    """
    first, _, rest = name.partition(".")
    return name if first != THEIRS else f"{OURS}.{rest}" if rest else OURS


@contextlib.contextmanager
def mapped(*folders: Path) -> Iterator[None]:
    """While it lasts, `nvflare` is this package, and the modules in the folders can be imported. Afterwards neither is known."""
    own, paths = _Finder(), [str(each.resolve()) for each in folders if each.is_dir()]
    real = [name for name, module in sys.modules.items() if _theirs(name) and _theirs(str(getattr(module, "__name__", "")))]
    hidden = {name: sys.modules.pop(name) for name in real}
    before = set(sys.modules)
    sys.meta_path.insert(0, own)
    sys.path[:0] = paths
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.meta_path.remove(own)
        for each in paths:
            sys.path.remove(each)
        for name in set(sys.modules) - before:
            if _theirs(name) or _below(sys.modules[name], paths):
                del sys.modules[name]
        sys.modules.update(hidden)


def _theirs(name: str) -> bool:
    return name == THEIRS or name.startswith(f"{THEIRS}.")


def _below(module: ModuleType, folders: Sequence[str]) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(Path(file).resolve().is_relative_to(each) for each in folders)
