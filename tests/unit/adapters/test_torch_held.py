"""A module whose leaves are found once, and found again where the module changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hansa.adapters.torch.held import Held
from hansa.adapters.torch.rows import Rows
from hansa.core.trees import Array
from hansa.errors import SpecError


class Counting(torch.nn.Module):
    """Replaces its buffer in each forward pass."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, bias=False)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + len(x)
        y: torch.Tensor = self.layer(x)
        return y


def model(weight: float, seen: float = 0.0) -> dict[str, Array]:
    return {"seen": np.array([seen], np.float32), "layer.weight": np.array([[weight]], np.float32)}


def test_a_buffer_that_a_forward_pass_replaces_is_read_and_written_where_it_is_now() -> None:
    module = Counting()
    held = Held(module)
    held.load(model(1.0))
    module(torch.zeros(3, 1))
    assert held.delta(model(1.0))["seen"].tolist() == [3.0]
    held.load(model(2.0, seen=5.0))
    assert module.seen.tolist() == [5.0]


def test_a_weight_with_new_memory_is_read_and_written_where_it_is_now() -> None:
    module = Counting()
    held = Held(module)
    held.load(model(1.0))
    module.layer.weight.data = torch.full((1, 1), 4.0)
    assert held.delta(model(1.0))["layer.weight"].tolist() == [[3.0]]


def test_a_layer_that_was_replaced_is_found_and_another_one_is_refused() -> None:
    module = Counting()
    held = Held(module)
    module.layer = torch.nn.Linear(1, 1, bias=False)
    held.load(model(7.0))
    assert module.layer.weight.item() == 7.0
    module.layer = torch.nn.Linear(1, 1)
    with pytest.raises(SpecError, match=r"layer\.bias"):
        held.load(model(7.0))


def test_rows_that_are_gathered_for_several_steps_are_those_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa.adapters.torch.rows._WINDOW_BYTES", 48)  # two steps of two rows of 12 bytes
    x, y = np.arange(7, dtype=np.float32)[:, None], np.arange(7)
    rows = Rows(x, y, floats=torch.float32, device=torch.device("cpu"), targets="labels")
    got = [b.tolist() for _, b in rows.batches([np.array([6, 5, 4, 3, 2, 1, 0]), np.array([1, 2, 3])], size=2)]
    assert got == [[6, 5], [4, 3], [2, 1], [0], [1, 2], [3]]
