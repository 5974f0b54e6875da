"""Federated learning in one typed system.

`import hansa as hs` is cheap: a name is imported from its module when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hansa import errors
    from hansa.admin.client import connect
    from hansa.core.computation import federated_computation
    from hansa.core.executor import Executor
    from hansa.core.intrinsics import (
        federated_aggregate,
        federated_apply,
        federated_broadcast,
        federated_collect,
        federated_eval,
        federated_map,
        federated_map_all_equal,
        federated_max,
        federated_mean,
        federated_min,
        federated_reduce,
        federated_secure_modular_sum,
        federated_secure_sum,
        federated_secure_sum_bitwidth,
        federated_sum,
        federated_value,
        federated_zip,
    )
    from hansa.core.job import Job, Resources
    from hansa.core.protocols import Federation, FitConfig, Learner, Update
    from hansa.core.round import Policy
    from hansa.core.run import run
    from hansa.core.task import FLContext, Shareable, Signal, Task
    from hansa.core.trees import Spec, Tree
    from hansa.core.types import (
        CLIENTS,
        SERVER,
        AbstractType,
        Clients,
        FederatedType,
        FunctionType,
        PlacementType,
        SequenceType,
        Server,
        StructType,
        TensorType,
        to_type,
    )
    from hansa.core.workflow import Outcome
    from hansa.errors import HansaError
    from hansa.learning.iterated import iterate
    from hansa.learning.once import once
    from hansa.learning.rounds import Rounds
    from hansa.learning.sequence import Sequence
    from hansa.local import local_computation
    from hansa.record.folder import load_model
    from hansa.sequences import federated_secure_select, federated_select, sequence_map, sequence_reduce, sequence_sum
    from hansa.simulation.engine import Result, Settings, simulate
    from hansa.simulation.evaluate import compare, evaluate
    from hansa.simulation.faults import Faults

    __version__: str

__all__ = [
    "CLIENTS",
    "SERVER",
    "AbstractType",
    "Clients",
    "Executor",
    "FLContext",
    "Faults",
    "FederatedType",
    "Federation",
    "FitConfig",
    "FunctionType",
    "HansaError",
    "Job",
    "Learner",
    "Outcome",
    "PlacementType",
    "Policy",
    "Resources",
    "Result",
    "Rounds",
    "Sequence",
    "SequenceType",
    "Server",
    "Settings",
    "Shareable",
    "Signal",
    "Spec",
    "StructType",
    "Task",
    "TensorType",
    "Tree",
    "Update",
    "compare",
    "connect",
    "errors",
    "evaluate",
    "federated_aggregate",
    "federated_apply",
    "federated_broadcast",
    "federated_collect",
    "federated_computation",
    "federated_eval",
    "federated_map",
    "federated_map_all_equal",
    "federated_max",
    "federated_mean",
    "federated_min",
    "federated_reduce",
    "federated_secure_modular_sum",
    "federated_secure_select",
    "federated_secure_sum",
    "federated_secure_sum_bitwidth",
    "federated_select",
    "federated_sum",
    "federated_value",
    "federated_zip",
    "iterate",
    "load_model",
    "local_computation",
    "once",
    "run",
    "sequence_map",
    "sequence_reduce",
    "sequence_sum",
    "simulate",
    "to_type",
]

_MODULE_OF = {  # the same names as in __all__ and above: a test compares the three
    "AbstractType": "hansa.core.types",
    "CLIENTS": "hansa.core.types",
    "Clients": "hansa.core.types",
    "Executor": "hansa.core.executor",
    "FLContext": "hansa.core.task",
    "Faults": "hansa.simulation.faults",
    "FederatedType": "hansa.core.types",
    "Federation": "hansa.core.protocols",
    "FitConfig": "hansa.core.protocols",
    "FunctionType": "hansa.core.types",
    "HansaError": "hansa.errors",
    "Job": "hansa.core.job",
    "Resources": "hansa.core.job",
    "Learner": "hansa.core.protocols",
    "Outcome": "hansa.core.workflow",
    "PlacementType": "hansa.core.types",
    "Policy": "hansa.core.round",
    "Result": "hansa.simulation.engine",
    "Rounds": "hansa.learning.rounds",
    "SERVER": "hansa.core.types",
    "Sequence": "hansa.learning.sequence",
    "SequenceType": "hansa.core.types",
    "Server": "hansa.core.types",
    "Settings": "hansa.simulation.engine",
    "Shareable": "hansa.core.task",
    "Signal": "hansa.core.task",
    "Spec": "hansa.core.trees",
    "StructType": "hansa.core.types",
    "Task": "hansa.core.task",
    "TensorType": "hansa.core.types",
    "Tree": "hansa.core.trees",
    "Update": "hansa.core.protocols",
    "compare": "hansa.simulation.evaluate",
    "connect": "hansa.admin.client",
    "errors": "hansa.errors",
    "evaluate": "hansa.simulation.evaluate",
    "federated_aggregate": "hansa.core.intrinsics",
    "federated_apply": "hansa.core.intrinsics",
    "federated_broadcast": "hansa.core.intrinsics",
    "federated_collect": "hansa.core.intrinsics",
    "federated_computation": "hansa.core.computation",
    "federated_eval": "hansa.core.intrinsics",
    "federated_map": "hansa.core.intrinsics",
    "federated_map_all_equal": "hansa.core.intrinsics",
    "federated_max": "hansa.core.intrinsics",
    "federated_mean": "hansa.core.intrinsics",
    "federated_min": "hansa.core.intrinsics",
    "federated_reduce": "hansa.core.intrinsics",
    "federated_secure_modular_sum": "hansa.core.intrinsics",
    "federated_secure_select": "hansa.sequences",
    "federated_secure_sum": "hansa.core.intrinsics",
    "federated_secure_sum_bitwidth": "hansa.core.intrinsics",
    "federated_select": "hansa.sequences",
    "federated_sum": "hansa.core.intrinsics",
    "federated_value": "hansa.core.intrinsics",
    "federated_zip": "hansa.core.intrinsics",
    "iterate": "hansa.learning.iterated",
    "load_model": "hansa.record.folder",
    "local_computation": "hansa.local",
    "once": "hansa.learning.once",
    "run": "hansa.core.run",
    "sequence_map": "hansa.sequences",
    "sequence_reduce": "hansa.sequences",
    "sequence_sum": "hansa.sequences",
    "simulate": "hansa.simulation.engine",
    "to_type": "hansa.core.types",
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
