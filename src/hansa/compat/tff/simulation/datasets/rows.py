"""Hansa's federated rows as ClientData."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hansa.compat.tff.simulation.datasets.client_data import ClientData
from hansa.core.protocols import Dataset, Part
from hansa.data.federated import FederatedRows


def client_data(sites: FederatedRows, part: Part, elements: Callable[[Dataset], dict[str, Any]]) -> ClientData:
    """A client for each site that has rows of this part; `elements` gives the arrays of an element, one entry a row."""

    def create(client_id: str) -> Any:
        import tensorflow as tf

        rows = sites.load(list(sites.sites).index(client_id)).part(part)
        return tf.data.Dataset.from_tensor_slices(elements(rows))

    filled = [name for slot, name in enumerate(sites.sites) if len(sites.load(slot).part(part))]
    return ClientData(filled, create)
