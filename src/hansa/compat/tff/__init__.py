"""TensorFlow Federated's names, so that a program written for it runs with one line changed.

`import hansa.compat.tff as tff`. Names only: types, operators and templates are Hansa's own, local computations are TensorFlow's
through Hansa's backend. TensorFlow is imported when the first local computation is defined or the first data set is made.
Which names there are, and which are not: docs/tff.md.
"""

from hansa.compat.tff import (
    aggregators,
    backends,
    jax,
    learning,
    simulation,
    templates,
    tensorflow,
    types,
)
from hansa.compat.tff.tensorflow import computation as tf_computation
from hansa.compat.tff.types import at_clients as type_at_clients
from hansa.compat.tff.types import at_server as type_at_server
from hansa.core.computation import federated_computation
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
from hansa.core.types import (
    CLIENTS,
    SERVER,
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    infer_type,
    to_type,
)
from hansa.sequences import federated_secure_select, federated_select, sequence_map, sequence_reduce, sequence_sum

__all__ = [
    "CLIENTS",
    "SERVER",
    "AbstractType",
    "FederatedType",
    "FunctionType",
    "PlacementType",
    "SequenceType",
    "StructType",
    "TensorType",
    "Type",
    "aggregators",
    "backends",
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
    "infer_type",
    "jax",
    "jax_computation",
    "learning",
    "sequence_map",
    "sequence_reduce",
    "sequence_sum",
    "simulation",
    "templates",
    "tensorflow",
    "tf_computation",
    "to_type",
    "type_at_clients",
    "type_at_server",
    "types",
]

jax_computation = jax.computation
