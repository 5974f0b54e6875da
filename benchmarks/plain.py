"""The baseline: federated averaging as one writes it by hand in torch, on one thread, without any platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Shard = tuple[Tensor, Tensor]


def softmax_net() -> nn.Module:
    """784 inputs, 10 classes, no hidden layer."""
    return nn.Linear(784, 10)


def cnn() -> nn.Module:
    """Convolution 32 of 3x3 (same), relu, max-pool 2, dense 256, relu, dense 10."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 14 * 14, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def federated_averaging(
    build: Callable[[], nn.Module],
    shards: Sequence[Shard],
    *,
    rounds: int,
    cohort: int,
    batch: int,
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
    round_done: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """The weights after the rounds: one epoch at each sampled client, then the mean weighted by rows."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    model = build()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(rounds):
        sums = {name: torch.zeros_like(value) for name, value in weights.items()}
        total = 0
        for client in torch.randperm(len(shards), generator=draw)[:cohort].tolist():
            x, y = shards[client]
            model.load_state_dict(weights)
            steps = optimizer(model.parameters())
            for index in torch.randperm(len(x), generator=draw).split(batch):  # type: ignore[no-untyped-call]  # torch leaves it untyped
                steps.zero_grad()
                loss = cross_entropy(model(x[index]), y[index])
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                steps.step()
            for name, value in model.state_dict().items():
                sums[name].add_(value, alpha=len(x))
            total += len(x)
        weights = {name: value / total for name, value in sums.items()}
        round_done()
    return weights
