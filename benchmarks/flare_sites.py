"""The training of W9: one function, that a learner of ours calls and an executor of a FLARE app."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hansa.core.trees import Array, Tree

ROWS, BATCH, INPUTS = 640, 32, 256


def net(hidden: int) -> nn.Module:
    """Two layers; `hidden` of 1000 makes 1.07 MB, of 7500 about 8 MB."""
    return nn.Sequential(nn.Linear(INPUTS, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def start(hidden: int) -> dict[str, Array]:
    """The weights to begin with, the same each time."""
    rng = np.random.Generator(np.random.Philox(0))
    return {name: rng.normal(0, 0.05, value.shape).astype(np.float32) for name, value in net(hidden).state_dict().items()}


@functools.cache
def rows() -> tuple[Tensor, Tensor]:
    """Inputs and labels of a site: noise, of which the labels are a function."""
    rng = np.random.Generator(np.random.Philox(1))
    x = rng.normal(size=(ROWS, INPUTS)).astype(np.float32)
    return torch.as_tensor(x), torch.as_tensor(x[:, :10].argmax(1))


def trained(weights: Mapping[str, Any]) -> Tree:
    """How the weights change in one epoch of SGD."""
    before = {name: torch.as_tensor(np.array(value)) for name, value in weights.items()}
    model = net(before["0.bias"].shape[0])
    model.load_state_dict(before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = rows()
    for at in range(0, ROWS, BATCH):
        optimizer.zero_grad()
        loss = cross_entropy(model(x[at : at + BATCH]), y[at : at + BATCH])
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    return {name: (value - before[name]).numpy() for name, value in model.state_dict().items()}
