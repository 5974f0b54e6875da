"""Federated learning in one typed system.

`import hansa as hs` is cheap: a name is imported from its module when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hansa import errors
    from hansa.core.protocols import FitConfig, Learner, Update
    from hansa.core.task import FLContext, Shareable, Signal, Task
    from hansa.core.trees import Spec, Tree
    from hansa.errors import HansaError

    __version__: str

__all__ = [
    "FLContext",
    "FitConfig",
    "HansaError",
    "Learner",
    "Shareable",
    "Signal",
    "Spec",
    "Task",
    "Tree",
    "Update",
    "errors",
]

_MODULE_OF = {  # the same names as in __all__ and above: a test compares the three
    "FLContext": "hansa.core.task",
    "FitConfig": "hansa.core.protocols",
    "HansaError": "hansa.errors",
    "Learner": "hansa.core.protocols",
    "Shareable": "hansa.core.task",
    "Signal": "hansa.core.task",
    "Spec": "hansa.core.trees",
    "Task": "hansa.core.task",
    "Tree": "hansa.core.trees",
    "Update": "hansa.core.protocols",
    "errors": "hansa.errors",
}

if not TYPE_CHECKING:  # a type checker would otherwise accept every name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("hansa")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'hansa' has no attribute {name!r}")
        module = importlib.import_module(_MODULE_OF[name])
        value = module if module.__name__ == f"hansa.{name}" else getattr(module, name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
