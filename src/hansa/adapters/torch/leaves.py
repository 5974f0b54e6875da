"""Between a torch module and a Tree: leaves under torch's own names, moved without a spare copy."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from hansa.core.trees import Array, Spec, Tree
from hansa.errors import ConfigError

# numpy has no dtype of its own for these: the bits go through an integer of the same width.
_BITS: dict[torch.dtype, tuple[torch.dtype, np.dtype[Any]]] = {
    torch.bfloat16: (torch.int16, np.dtype(ml_dtypes.bfloat16)),
    torch.float8_e4m3fn: (torch.uint8, np.dtype(ml_dtypes.float8_e4m3fn)),
    torch.float8_e5m2: (torch.uint8, np.dtype(ml_dtypes.float8_e5m2)),
}
_BITS_OF = {theirs: (bits, ours) for ours, (bits, theirs) in _BITS.items()}


def array(tensor: Tensor) -> Array:
    """The tensor as an array; on the CPU it shares the tensor's memory."""
    tensor = tensor.detach().cpu()
    if (pair := _BITS.get(tensor.dtype)) is None:
        return tensor.numpy()
    bits, dtype = pair
    return tensor.view(bits).numpy().view(dtype)


def tensor(values: Array) -> Tensor:
    """The array as a CPU tensor of its own memory: the array may be read-only."""
    own = np.array(values, order="C")
    if (pair := _BITS_OF.get(own.dtype)) is None:
        return torch.from_numpy(own)
    bits, dtype = pair
    return torch.from_numpy(own.view(np.dtype(str(bits).removeprefix("torch.")))).view(dtype)


def require_leaves(module: nn.Module) -> None:
    """Return if each entry of the module's state can be a leaf of a Tree.

    Raises:
        ConfigError: an entry is no tensor, has no shape yet (a lazy layer), or has `/` in its name.
    """
    for name, value in module.state_dict(keep_vars=True).items():
        if "/" in name:
            raise ConfigError("a layer's name may not contain '/'", path=name, hint="'/' joins the keys of nested trees")
        if not isinstance(value, Tensor):
            raise ConfigError("the model's state holds something else than tensors", path=name, got=type(value).__name__)
        if torch.nn.parameter.is_lazy(value):
            raise ConfigError("a lazy layer has no shape yet", path=name, hint="give the layer its input size")


def tree(module: nn.Module) -> dict[str, Array]:
    """A copy of the module's parameters and persistent buffers."""
    return {name: np.array(array(value)) for name, value in module.state_dict().items()}


def check(module: nn.Module, model: Tree) -> None:
    """Return if the tree has exactly the module's leaves.

    Raises:
        SpecError: names the first leaf that is missing, extra, or of another dtype or shape.
    """
    Spec.of({name: array(value) for name, value in module.state_dict().items()}).check(model)


def difference(after: Array, before: Any) -> Array:  # Any: a leaf; that it is no branch was checked when it was loaded
    """after - before in after's dtype, as a new array."""
    out: Array = np.empty(after.shape, after.dtype)
    (np.logical_xor if after.dtype == np.bool_ else np.subtract)(after, before, out=out)
    return out


def transient(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Each buffer that the state leaves out (`persistent=False`), with a copy of what it is now."""
    kept = {id(value) for value in module.state_dict(keep_vars=True).values()}
    return [(buffer, buffer.clone()) for buffer in module.buffers() if id(buffer) not in kept]


class threads:  # noqa: N801  reads as a function; a generator's context would cost a small step's time
    """Torch's intra-op threads set for the block, and restored; None leaves them."""

    def __init__(self, count: int | None) -> None:
        self._count = count

    def __enter__(self) -> None:
        if self._count is not None:
            self._before = torch.get_num_threads()
            # Even where it is the same number: torch tells OpenMP's, and in a forked worker MKL still has the parent's.
            torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        if self._count is not None:
            torch.set_num_threads(self._before)


class seeded:  # noqa: N801  as `threads`
    """Torch's generators seeded for the block (dropout, initial weights), and put back as they were."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._there = seed, _GENERATORS.get(device.type)

    def __enter__(self) -> None:
        # What torch.random.fork_rng does, without its cost: it and manual_seed ask every kind of accelerator.
        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)
        if self._there is not None:
            self._before_there = self._there.get_rng_state()
            self._there.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self._before)
        if self._there is not None:
            self._there.set_rng_state(self._before_there)


def gradients() -> AbstractContextManager[None]:
    """Gradients are recorded in the block; nothing is done where they are already."""
    return _AS_IT_IS if torch.is_grad_enabled() else torch.enable_grad()


_GENERATORS: dict[str, Any] = {"cuda": torch.cuda, "mps": torch.mps}
_AS_IT_IS: AbstractContextManager[None] = nullcontext()
