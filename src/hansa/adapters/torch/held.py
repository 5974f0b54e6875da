"""A module whose state is found once: to walk over a small module costs as much as a step of its training."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hansa.adapters.torch import leaves
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError, SpecError


class Held:
    """A module, with its leaves at hand. What a forward pass replaces (a buffer, a layer, a weight's memory) is noticed."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._find()

    def _find(self) -> None:
        own: list[Mapping[str, Any]] = [
            entries for layer in self.module.modules() for entries in (layer._parameters, layer._buffers, layer._modules)
        ]
        self._seen = [(entries, tuple(entries.values())) for entries in own]
        self._params = list(self.module.named_parameters())
        live = self.module.state_dict(keep_vars=True)
        self._memory = [(value, value.data_ptr()) for value in live.values()]
        self._leaves = {name: (value, leaves.array(value)) for name, value in self.module.state_dict().items()}
        # A module may make entries of its state anew each time it is asked: those cannot be kept.
        owned = {id(value) for _, values in self._seen for value in values}
        self._lasting = all(id(value) in owned for value in live.values())

    def state(self) -> dict[str, tuple[Tensor, Array]]:
        """Each leaf of the module as it is now: the tensor, and it as an array, which on the CPU is the same memory."""
        if not (self._lasting and self._unchanged()):
            self._find()
        return self._leaves

    def _unchanged(self) -> bool:
        for entries, values in self._seen:
            if len(entries) != len(values) or (values and not all(map(operator.is_, entries.values(), values))):
                return False
        for value, at in self._memory:  # noqa: SIM110  a generator would cost more than what it looks at
            if value.data_ptr() != at:
                return False
        return True

    def load(self, model: Tree) -> None:
        """Write every leaf into the module. Of tied weights, which share memory, the last name wins, as in `load_state_dict`.

        Raises:
            SpecError: the tree is not one of this module.
        """
        state = self.state()
        if model.keys() != state.keys():
            leaves.check(self.module, model)
        for name, (value, array) in state.items():
            leaf = model[name]
            if not isinstance(leaf, np.ndarray | np.generic) or leaf.shape != array.shape or leaf.dtype != array.dtype:
                leaves.check(self.module, model)
            if value.device.type == "cpu":
                np.copyto(array, leaf)  # type: ignore[arg-type]  # checked: a leaf, not a branch
            else:
                value.copy_(leaves.tensor(leaf))  # type: ignore[arg-type]  # the same

    def delta(self, before: Tree) -> dict[str, Array]:
        """What has changed since `before`: after - before in each leaf's dtype; a boolean leaf says which entries flipped.

        Raises:
            SpecError: the module has other leaves now; a user's own loop replaced a layer.
        """
        state = self.state()
        if state.keys() != before.keys():
            raise SpecError("training changed the model's leaves", path=min(state.keys() ^ before.keys()))
        return {
            name: leaves.difference(array if value.device.type == "cpu" else leaves.array(value), before[name])
            for name, (value, array) in state.items()
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that ask for a gradient, each once, by the first of its names.

        Raises:
            ConfigError: there are none.
        """
        params = {name: p for name, p in self._params if p.requires_grad}
        if not params:
            raise ConfigError("the model has no parameter to train", path="model", hint="requires_grad is False everywhere")
        return params

    def floating(self) -> torch.dtype:
        """The dtype of the model's first floating-point parameter: what its inputs ought to be."""
        return next((p.dtype for _, p in self._params if p.dtype.is_floating_point), torch.float32)
