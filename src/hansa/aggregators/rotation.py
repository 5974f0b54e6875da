"""Random rotations of each tensor, undone after the inner aggregation: entries come near to one another in size.

What rounds or clips entries in between loses less of a rotated tensor (Suresh 2017, https://arxiv.org/abs/1611.00429). A rotation
keeps a tensor's shape: vectors whose length is no power of two are rotated in blocks, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hansa.aggregators.leaves import floats, is_float, local, process, run, start, tree_of, value_of
from hansa.core import trees
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_zip
from hansa.core.rng import generator
from hansa.core.round import is_count
from hansa.core.trees import Array
from hansa.core.types import SERVER, TensorType, Type
from hansa.errors import ConfigError
from hansa.templates import AggregationProcess, MeasuredProcessOutput, UnweightedAggregationFactory

SEED = TensorType(np.int64, [2])


@dataclass(frozen=True)
class HadamardTransformFactory(UnweightedAggregationFactory):
    """The inner aggregation of tensors rotated by random signs and the Walsh-Hadamard transform, `num_repeats` times.

    The signs are drawn anew in each round, from a seed in the state: the run's own seed, and a count of the rounds.

    >>> from hansa.aggregators.means import SumFactory
    >>> process = HadamardTransformFactory(SumFactory()).create(TensorType(np.float32, [4]))
    >>> print(process.next(process.initialize(), [[1, 2, 3, 4]] * 2).result.round(5))
    [2. 4. 6. 8.]

    Raises:
        ConfigError: `num_repeats` is no count.
    """

    inner_agg_factory: UnweightedAggregationFactory
    num_repeats: int = 1

    def __post_init__(self) -> None:
        _check(self.num_repeats)

    def create(self, value_type: Type) -> AggregationProcess:
        """The process; its state is (the inner one's, seed)."""
        return _rotated("hadamard", hadamard, self.inner_agg_factory, self.num_repeats, value_type)


@dataclass(frozen=True)
class DiscreteFourierTransformFactory(UnweightedAggregationFactory):
    """As HadamardTransformFactory, by the discrete Fourier transform in its real form (Hartley's): of any length, in one block."""

    inner_agg_factory: UnweightedAggregationFactory
    num_repeats: int = 1

    def __post_init__(self) -> None:
        _check(self.num_repeats)

    def create(self, value_type: Type) -> AggregationProcess:
        """The process; its state is (the inner one's, seed)."""
        return _rotated("fourier", hartley, self.inner_agg_factory, self.num_repeats, value_type)


def hadamard(line: Array) -> Array:
    """The orthonormal Walsh-Hadamard transform of a vector, in float64, block by block; it undoes itself.

    >>> hadamard(np.array([1.0, 1.0, 2.0])).round(3)
    array([1.414, 0.   , 2.   ])
    """
    out = line.astype(np.float64)
    begin = 0
    for size in _blocks(len(out)):
        block = out[begin : begin + size]
        other = np.empty_like(block)
        for _ in range(size.bit_length() - 1):  # each step takes the highest bit of the places, and puts it last
            low, high = block[: size // 2], block[size // 2 :]
            np.add(low, high, out=other[0::2])
            np.subtract(low, high, out=other[1::2])
            block, other = other, block
        out[begin : begin + size] = block / np.sqrt(size)
        begin += size
    return out


def hartley(line: Array) -> Array:
    """The orthonormal Hartley transform of a vector, in float64: real minus imaginary part of Fourier's; it undoes itself."""
    if not len(line):
        return line.astype(np.float64)
    spectrum = np.fft.fft(line.astype(np.float64))
    return np.asarray((spectrum.real - spectrum.imag) / np.sqrt(len(line)))


def _blocks(length: int) -> Iterator[int]:
    """The powers of two that add up to the length, largest first."""
    return (1 << bit for bit in range(length.bit_length() - 1, -1, -1) if length >> bit & 1)


def _rotated(
    name: str, transform: Callable[[Array], Array], factory: UnweightedAggregationFactory, repeats: int, value_type: Type
) -> AggregationProcess:
    inner = factory.create(floats(value_type))

    def there(value: Any, seed: Any) -> Any:
        def turn(line: Array, signs: list[Array]) -> Array:
            for each in signs:
                line = transform(line * each)
            return line

        return _each(value, seed, value_type, turn, repeats)

    def back(value: Any, seed: Any) -> Any:
        def turn(line: Array, signs: list[Array]) -> Array:
            for each in reversed(signs):
                line = transform(line) * each
            return line

        return _each(value, seed, value_type, turn, repeats)

    takes = {"value": value_type, "seed": SEED}
    rotate, undo = local(name, there, takes, value_type), local(f"un_{name}", back, takes, value_type)
    first = local("rotation_seed", lambda *, ctx: np.array([ctx.seed, 0], np.int64), {}, SEED, "ctx")
    following = local("next_seed", lambda seed: np.array([seed[0], seed[1] + 1], np.int64), {"seed": SEED}, SEED)

    def initialize() -> Any:
        return federated_zip((start(inner), federated_eval(first, SERVER)))

    def step(state: Any, value: Any) -> MeasuredProcessOutput:
        done = run(inner, state[0], federated_map(rotate, (value, federated_broadcast(state[1]))))
        result = federated_map(undo, (done.result, state[1]))
        return MeasuredProcessOutput(federated_zip((done.state, federated_map(following, state[1]))), result, done.measurements)

    return process(initialize, step, value_type)


def _each(value: Any, seed: Any, kind: Type, turn: Callable[[Array, list[Array]], Array], repeats: int) -> Any:
    """Each floating-point tensor turned as a vector, with signs of its own."""
    turned = {}
    for path, leaf in trees.leaves(tree_of(value)):
        rng = generator(int(seed[0]), round=int(seed[1]), purpose=f"rotation/{path}")
        signs = [_signs(rng, leaf.size) for _ in range(repeats)]
        turned[path] = turn(leaf.ravel(), signs).reshape(leaf.shape).astype(leaf.dtype) if is_float(leaf) else leaf
    return value_of(trees.unflatten(turned), kind)


def _signs(rng: np.random.Generator, count: int) -> Array:
    bits = np.unpackbits(np.frombuffer(rng.bytes((count + 7) // 8), np.uint8), count=count)
    return 1.0 - 2.0 * bits


def _check(repeats: object) -> None:
    if not is_count(repeats):
        raise ConfigError("num_repeats counts rotations", path="num_repeats", expected="at least 1", got=repr(repeats))
