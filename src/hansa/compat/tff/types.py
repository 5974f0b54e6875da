"""`tff.types`: the constructors of types, and what is at the clients or at the server."""

from __future__ import annotations

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

__all__ = [
    "AbstractType",
    "FederatedType",
    "FunctionType",
    "PlacementType",
    "SequenceType",
    "StructType",
    "StructWithPythonType",
    "TensorType",
    "Type",
    "at_clients",
    "at_server",
    "infer_type",
    "to_type",
]

StructWithPythonType = StructType  # a StructType remembers its container


def at_clients(member: object, all_equal: bool = False) -> FederatedType:
    """The type of a value of type `member` at each client.

    >>> import numpy as np
    >>> print(at_clients(np.int32), at_clients(np.int32, all_equal=True))
    {int32}@CLIENTS int32@CLIENTS
    """
    return FederatedType(member, CLIENTS, all_equal)


def at_server(member: object) -> FederatedType:
    """The type of a value of type `member` at the server.

    >>> import numpy as np
    >>> print(at_server((np.float32, [10])))
    float32[10]@SERVER
    """
    return FederatedType(member, SERVER)
