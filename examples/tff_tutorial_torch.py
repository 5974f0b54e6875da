"""A federated learning algorithm of one's own, typed, in PyTorch: TensorFlow Federated's best known tutorial without TensorFlow.

python tff_tutorial_torch.py --data FOLDER   (or HANSA_DATA=FOLDER; MNIST, fifteen rounds, then the tutorial's three exercises)
python tff_tutorial_torch.py --small         (seconds; without a folder on scikit-learn's digits, enlarged to 28x28)

FOLDER holds mnist.npz from https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz, or MNIST's four IDX files.
examples/heavy/tff_tutorial.py is the same program in TensorFlow and Keras, as written for TensorFlow Federated.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import hansa as hs
from hansa.core.protocols import Dataset
from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.data.rows import Rows
from hansa.templates import IterativeProcess

CLIENTS, BATCH, LR, SEED = 10, 20, 0.05, 0  # clients in each round
Weights = list[torch.Tensor]  # (784, 10) and (10,)
Batch = tuple[Array, Array]  # pictures (n, 784) float32, labels (n, 1) int32

# Types: what a value is, and where it lives ------------------------------------------------------------------------------------

print(hs.FederatedType(np.float32, hs.CLIENTS))


@hs.federated_computation(hs.FederatedType(np.float32, hs.CLIENTS))
def get_average_temperature(client_temperatures: Any) -> Any:
    return hs.federated_mean(client_temperatures)


print(get_average_temperature.type_signature, get_average_temperature([68.5, 70.3, 69.8]))


@hs.local_computation(np.float32, backend="torch")
def add_half(x: torch.Tensor) -> Any:
    return torch.add(x, 0.5)


@hs.federated_computation(hs.FederatedType(np.float32, hs.CLIENTS))
def add_half_on_clients(x: Any) -> Any:
    return hs.federated_map(add_half, x)


print(add_half.type_signature)
print(add_half_on_clients.type_signature, add_half_on_clients([1.0, 3.0, 2.0]))

# The four parts of an algorithm: start, broadcast, train at clients, aggregate --------------------------------------------------


@hs.local_computation(backend="torch")
def server_init() -> Any:
    weight = torch.empty(784, 10)
    torch.nn.init.xavier_uniform_(weight, generator=torch.Generator().manual_seed(SEED))
    return [weight, torch.zeros(10)]


dataset_type = hs.SequenceType(((np.float32, [None, 784]), (np.int32, [None, 1])))
model_weights_type = server_init.type_signature.result
print(server_init.type_signature, dataset_type, model_weights_type, sep="\n")


def loss(weights: Sequence[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(x @ weights[0] + weights[1], y[:, 0].long())


def train(batches: Iterable[Any], weights: Weights, lr: Any, *, norm: float = float("inf")) -> Weights:
    """One pass of stochastic gradient descent; a gradient of more than `norm` is scaled down to it."""
    for x, y in batches:
        weights = [w.detach().requires_grad_() for w in weights]
        gradients = torch.autograd.grad(loss(weights, x, y), weights)
        size = torch.sqrt(sum((g.square().sum() for g in gradients), start=torch.zeros(())))
        step = lr * torch.clamp(norm / size, max=1.0)
        weights = [w - step * g for w, g in zip(weights, gradients, strict=True)]
    return [w.detach() for w in weights]


@hs.local_computation(dataset_type, model_weights_type, backend="torch")
def client_update_fn(tf_dataset: Iterable[Any], server_weights: Weights) -> Any:
    return train(tf_dataset, server_weights, LR)


@hs.local_computation(model_weights_type, backend="torch")
def server_update_fn(mean_client_weights: Weights) -> Any:
    return mean_client_weights


print(client_update_fn.type_signature, server_update_fn.type_signature, sep="\n")

federated_server_type = hs.FederatedType(model_weights_type, hs.SERVER)
federated_dataset_type = hs.FederatedType(dataset_type, hs.CLIENTS)


@hs.federated_computation
def initialize_fn() -> Any:
    return hs.federated_eval(server_init, hs.SERVER)


@hs.federated_computation(federated_server_type, federated_dataset_type)
def next_fn(server_weights: Any, federated_dataset: Any) -> Any:
    server_weights_at_client = hs.federated_broadcast(server_weights)
    client_weights = hs.federated_map(client_update_fn, (federated_dataset, server_weights_at_client))
    mean_client_weights = hs.federated_mean(client_weights)
    return hs.federated_map(server_update_fn, mean_client_weights)


federated_algorithm = IterativeProcess(initialize_fn=initialize_fn, next_fn=next_fn)
print(federated_algorithm.initialize.type_signature, federated_algorithm.next.type_signature, sep="\n")

# Exercise 1: the server goes half of the way to the clients' mean ---------------------------------------------------------------


@hs.local_computation(model_weights_type, model_weights_type, backend="torch")
def midpoint(mean_client_weights: Weights, server_weights: Weights) -> Any:
    return [(new + old) / 2 for new, old in zip(mean_client_weights, server_weights, strict=True)]


@hs.federated_computation(federated_server_type, federated_dataset_type)
def midpoint_next(server_weights: Any, federated_dataset: Any) -> Any:
    client_weights = hs.federated_map(client_update_fn, (federated_dataset, hs.federated_broadcast(server_weights)))
    return hs.federated_map(midpoint, (hs.federated_mean(client_weights), server_weights))


# Exercise 2: clients clip their gradients ---------------------------------------------------------------------------------------


@hs.local_computation(dataset_type, model_weights_type, backend="torch")
def clipped_update(tf_dataset: Iterable[Any], server_weights: Weights) -> Any:
    return train(tf_dataset, server_weights, LR, norm=1.0)


@hs.federated_computation(federated_server_type, federated_dataset_type)
def clipped_next(server_weights: Any, federated_dataset: Any) -> Any:
    client_weights = hs.federated_map(clipped_update, (federated_dataset, hs.federated_broadcast(server_weights)))
    return hs.federated_map(server_update_fn, hs.federated_mean(client_weights))


# Exercise 3: the clients' step size decays from round to round: the server's state carries it, so the types change --------------


@hs.local_computation(backend="torch")
def decay_init() -> Any:
    return {"weights": server_init(), "learning_rate": torch.tensor(4 * LR)}


state_type = decay_init.type_signature.result


@hs.local_computation(dataset_type, state_type, backend="torch")
def decaying_update(tf_dataset: Iterable[Any], state: dict[str, Any]) -> Any:
    return train(tf_dataset, state["weights"], state["learning_rate"])


@hs.local_computation(model_weights_type, state_type, backend="torch")
def decayed(mean_client_weights: Weights, state: dict[str, Any]) -> Any:
    return {"weights": mean_client_weights, "learning_rate": 0.9 * state["learning_rate"]}


@hs.federated_computation
def decay_initialize() -> Any:
    return hs.federated_eval(decay_init, hs.SERVER)


@hs.federated_computation(hs.FederatedType(state_type, hs.SERVER), federated_dataset_type)
def decay_next(state: Any, federated_dataset: Any) -> Any:
    client_weights = hs.federated_map(decaying_update, (federated_dataset, hs.federated_broadcast(state)))
    return hs.federated_map(decayed, (hs.federated_mean(client_weights), state))


midpoint_algorithm = IterativeProcess(initialize_fn=initialize_fn, next_fn=midpoint_next)
clipped_algorithm = IterativeProcess(initialize_fn=initialize_fn, next_fn=clipped_next)
decaying_algorithm = IterativeProcess(initialize_fn=decay_initialize, next_fn=decay_next)
print(decaying_algorithm.next.type_signature)

# The data, and the rounds -------------------------------------------------------------------------------------------------------


def pictures(folder: str | None, *, small: bool) -> Rows:
    """MNIST; without a folder, at small size, scikit-learn's 8x8 digits enlarged threefold with a margin of two."""
    if folder is not None or not small:
        return datasets.mnist(folder=folder)
    rows = datasets.digits()
    large = np.pad(np.kron(rows.x, np.ones((1, 3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))
    return Rows(large, rows.y, parts=np.where(np.arange(len(rows)) % 5 == 0, 2, 0))


def batches(rows: Dataset) -> list[Batch]:
    """The rows in their order, in batches of 20; the last may be smaller."""
    x, y = rows.x.reshape(-1, 784), rows.y[:, None].astype(np.int32)
    return [(x[k : k + BATCH], y[k : k + BATCH]) for k in range(0, len(x), BATCH)]


def accuracy(weights: Sequence[Array], rows: Rows) -> float:
    scores = rows.x.reshape(-1, 784) @ weights[0] + weights[1]
    return float(np.mean(scores.argmax(axis=1) == rows.y))


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with MNIST")
    given = cli.parse_args()
    rounds = 3 if given.small else 15

    rows = pictures(given.data, small=given.small)
    sites = partition.dirichlet(rows, sites=CLIENTS if given.small else 500, alpha=0.3, seed=SEED, split=(1, 0, 0))
    federated_train_data = [batches(sites.load(slot).part("train")) for slot in range(CLIENTS)]
    test = rows.part("test")
    print(f"{sum(len(y) for client in federated_train_data for _, y in client)} pictures at {CLIENTS} clients of unlike labels")

    algorithms = {
        "as in the tutorial": federated_algorithm,
        "exercise 1, midpoint": midpoint_algorithm,
        "exercise 2, clipped gradients": clipped_algorithm,
        "exercise 3, decaying step size": decaying_algorithm,
    }
    for name, algorithm in algorithms.items():
        server_state = algorithm.initialize()
        before = accuracy(weights_of(server_state), test)
        for _ in range(rounds):
            server_state = algorithm.next(server_state, federated_train_data)
        after = accuracy(weights_of(server_state), test)
        print(f"{name:32} accuracy {before:.4f} before, {after:.4f} after {rounds} rounds")


def weights_of(state: Any) -> Sequence[Array]:
    weights: Sequence[Array] = state["weights"] if isinstance(state, dict) else state
    return weights


if __name__ == "__main__":
    main()
