"""ClientData: for each client id the function that makes its data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hansa.core.rng import generator
from hansa.core.types import SequenceType
from hansa.errors import DataError
from hansa.local import LocalComputation, local_computation


class ClientData:
    """Clients by id, each with a tf.data.Dataset that `create` makes of the id when it is asked for."""

    def __init__(self, client_ids: Sequence[str], create: Callable[[Any], Any]) -> None:
        if not client_ids:
            raise DataError("there is no client", path="client_ids")
        self._ids, self._create = list(client_ids), create
        self._known = frozenset(self._ids)

    @staticmethod
    def from_clients_and_tf_fn(client_ids: Sequence[str], serializable_dataset_fn: Callable[[Any], Any]) -> ClientData:
        """The clients whose data sets TensorFlow code makes from their ids."""
        return ClientData(client_ids, serializable_dataset_fn)

    from_clients_and_fn = from_clients_and_tf_fn

    @staticmethod
    def train_test_client_split(
        client_data: ClientData, num_test_clients: int, seed: int | None = None
    ) -> tuple[ClientData, ClientData]:
        """The clients in two, at random: to train with, and `num_test_clients` to test on.

        Raises:
            DataError: there are not so many clients and one more.
        """
        if not 0 < num_test_clients < len(client_data.client_ids):
            expected = f"1 to {len(client_data.client_ids) - 1}"
            raise DataError(
                "a split leaves clients on both sides", path="num_test_clients", got=num_test_clients, expected=expected
            )
        order = generator(seed or 0, purpose="tff/split").permutation(len(client_data.client_ids))
        test = {client_data.client_ids[k] for k in order[:num_test_clients].tolist()}
        parts = [[each for each in client_data.client_ids if (each in test) is asked] for asked in (False, True)]
        return ClientData(parts[0], client_data._create), ClientData(parts[1], client_data._create)

    @property
    def client_ids(self) -> list[str]:
        """The ids, in the data's own order."""
        return list(self._ids)

    @property
    def serializable_dataset_fn(self) -> Callable[[Any], Any]:
        """The function from an id to a data set."""
        return self._create

    @functools.cached_property
    def element_type_structure(self) -> Any:
        """The TensorSpecs of an element."""
        return self.create_tf_dataset_for_client(self._ids[0]).element_spec

    @functools.cached_property
    def dataset_computation(self) -> LocalComputation:
        """`(str -> T*)`: the data set of an id, made where the client is."""

        def client_data(client_id: str) -> Any:
            return self.create_tf_dataset_for_client(client_id)

        made: LocalComputation = local_computation(client_data, str, returns=SequenceType(self.element_type_structure))
        return made

    def create_tf_dataset_for_client(self, client_id: str) -> Any:
        """The data set of one client.

        Raises:
            KeyError: there is no such client.
        """
        if client_id not in self._known:
            raise KeyError(f"no client is called {client_id!r}")  # TensorFlow Federated's, which programs catch
        return self._create(client_id)

    def datasets(self, limit_count: int | None = None, seed: int | None = None) -> Iterator[Any]:
        """The data sets of the clients in random order, at most `limit_count`."""
        order = generator(seed or 0, purpose="tff/datasets").permutation(len(self._ids))
        return (self.create_tf_dataset_for_client(self._ids[k]) for k in order[:limit_count].tolist())

    def create_tf_dataset_from_all_clients(self, seed: int | None = None) -> Any:
        """The data of all clients after each other, clients in random order."""
        import tensorflow as tf

        every = list(self.datasets(seed=seed))
        sizes = [int(each.cardinality()) for each in every]  # below 0: not known, as of what was filtered
        whole = all(leaf.shape.is_fully_defined() for leaf in tf.nest.flatten(every[0].element_spec))
        if whole and min(sizes) > 0:  # a chain of hundreds is slow
            tables = [each.batch(size).get_single_element() for each, size in zip(every, sizes, strict=True)]
            return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *tables))
        return functools.reduce(lambda one, other: one.concatenate(other), every)

    def preprocess(self, preprocess_fn: Callable[[Any], Any]) -> ClientData:
        """The same clients, each data set changed by the function."""
        return ClientData(self._ids, lambda client_id: preprocess_fn(self._create(client_id)))


class TestClientData(ClientData):
    """Clients whose elements are given: a mapping from ids to what `tf.data.Dataset.from_tensor_slices` takes."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(self, tensor_slices_dict: Mapping[str, Any]) -> None:
        self._slices = dict(tensor_slices_dict)
        super().__init__(list(self._slices), self._slice)

    def _slice(self, client_id: str) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(self._slices[client_id])
