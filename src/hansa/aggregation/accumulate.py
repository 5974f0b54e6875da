"""The sequential float64 fold that Mean and Sum share: one term after another in the order they come, one cast at the end.

For each entry the arithmetic is `acc = fl(w_1 u_1); acc = fl(acc + fl(w_i u_i))`, then one division and one cast. The running form
(`add`, `finish`) and the form with all updates at hand (`fold`) do these same operations, so they give the same bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from hansa.core import trees
from hansa.core.trees import Array, Leaf, Spec, Tree
from hansa.errors import RunError, SpecError, WeightError

BLOCK = 16_384  # float64 entries: an accumulator block and a term block are 256 KiB, which stay in a second-level cache
FOLD_BLOCK = 4 * BLOCK  # 1 MiB for both, in cache throughout a fold; long blocks let two threads meet less often at the GIL
SPAN = 16 * FOLD_BLOCK  # entries a thread takes at a time
_ALIGN = 64  # bytes


class Accumulator(msgspec.Struct, frozen=True):
    """A sum under way: `sums[path]` is flat float64 (re, im, re, im, ... for a complex leaf), unset until the first update.

    `weight` is the sum of the weights, `count` the number of updates; `room` is one block, for terms. The sums of a small model
    are views of one `line`, and `parts` are views of `room` in the leaves' shapes: one call then moves all leaves. Only the
    accumulator that `add` or `merge` returned last is good: they reuse the memory of the one they were given.
    """

    spec: Spec
    sums: dict[str, Array]
    room: Array
    line: Array | None = None
    parts: dict[str, Array] = {}
    weight: float = 0.0
    count: int = 0


def zero(like: Tree) -> Accumulator:
    """An empty accumulator for updates with the leaves of `like`; 8 bytes an entry, 16 for complex.

    Raises:
        SpecError: a leaf's dtype does not fit into float64 or complex128 (objects, strings, times, long doubles).
    """
    check_dtypes(like)
    sizes = {path: np.size(leaf) * _width(leaf.dtype) for path, leaf in trees.leaves(like)}
    total = sum(sizes.values())
    if total > BLOCK:
        room = np.empty(min(BLOCK, max(sizes.values())))
        return Accumulator(
            Spec.of(like), _in_one({path: Leaf(np.dtype(np.float64), (size,)) for path, size in sizes.items()}), room
        )
    line, room = np.empty(total), np.empty(total)
    ends = dict(zip(sizes, itertools.accumulate(sizes.values()), strict=True))
    sums = {path: line[ends[path] - size : ends[path]] for path, size in sizes.items()}
    parts = {
        path: room[ends[path] - np.size(leaf) * _width(leaf.dtype) : ends[path]].view(_wide(leaf.dtype)).reshape(np.shape(leaf))
        for path, leaf in trees.leaves(like)
    }
    return Accumulator(Spec.of(like), sums, room, line, parts)


def add(acc: Accumulator, update: Tree, weight: float) -> Accumulator:
    """The accumulator with `weight` times the update added, in the memory of `acc`; the update is only read.

    Raises:
        SpecError: the update has other leaves than the accumulator; nothing was added.
        WeightError: the weight is not finite or not positive; nothing was added.
        RunError: a sum left the range of float64; the accumulator is spoilt.
    """
    acc.spec.check(update)
    weight = checked_weight(weight)
    heavier = total_weight(acc.weight, weight)
    if acc.line is not None:
        _add_small(acc, update, weight, acc.line)
        return Accumulator(acc.spec, acc.sums, acc.room, acc.line, acc.parts, heavier, acc.count + 1)
    at = [""]
    with overflow_named(at):
        for at[0], leaf in trees.leaves(update):
            line, total, width = _line(leaf), acc.sums[at[0]], _width(leaf.dtype)
            for start, stop in _blocks(0, leaf.size, BLOCK // width):
                into = total[width * start : width * stop]
                if acc.count == 0:
                    _term(line, start, stop, weight, into)
                else:
                    np.add(into, _term(line, start, stop, weight, acc.room[: into.size]), out=into)
    return Accumulator(acc.spec, acc.sums, acc.room, None, acc.parts, heavier, acc.count + 1)


def add_many(acc: Accumulator, updates: Tree, weights: Sequence[float]) -> Accumulator:
    """The accumulator with several updates added in turn; each leaf of `updates` has a first axis over them.

    Raises:
        SpecError, WeightError: as `add`, of any of them; nothing was added. RunError: as `add`.
    """
    heavier = acc.weight
    for weight in weights:
        heavier = total_weight(heavier, checked_weight(weight))
    rows = {path: leaf for path, leaf in trees.leaves(updates) if len(leaf) == len(weights)}
    acc.spec.check(trees.unflatten({path: leaf[0, ...] for path, leaf in rows.items()}))
    if acc.line is None:
        for i, weight in enumerate(weights):
            acc = add(acc, trees.unflatten({path: leaf[i, ...] for path, leaf in rows.items()}), weight)
        return acc
    pairs = [(acc.parts[path], leaf) for path, leaf in rows.items()]
    try:
        with np.errstate(over="raise", invalid="ignore"):
            for i, weight in enumerate(weights):
                for part, leaf in pairs:
                    np.copyto(part, leaf[i, ...], casting="unsafe")
                _sum_small(acc.room, weight, acc.line, first=acc.count + i == 0)
    except FloatingPointError as error:
        raise _spoilt(acc, error) from None
    return Accumulator(acc.spec, acc.sums, acc.room, acc.line, acc.parts, heavier, acc.count + len(weights))


def _add_small(acc: Accumulator, update: Tree, weight: float, line: Array) -> None:
    """Add to all leaves at once: for a small model the calls cost more than the arithmetic."""
    try:
        with np.errstate(over="raise", invalid="ignore"):
            for path, leaf in trees.leaves(update):
                np.copyto(acc.parts[path], leaf, casting="unsafe")
            _sum_small(acc.room, weight, line, first=acc.count == 0)
    except FloatingPointError as error:
        raise _spoilt(acc, error) from None


def _sum_small(room: Array, weight: float, line: Array, *, first: bool) -> None:
    """Add the update in `room`, which is used up."""
    if first:
        np.multiply(room, weight, out=line)
        return
    if weight != 1.0:
        np.multiply(room, weight, out=room)
    np.add(line, room, out=line)


def _spoilt(acc: Accumulator, error: FloatingPointError) -> RunError:
    spoilt = [path for path, total in acc.sums.items() if not (np.isfinite(acc.parts[path]).all() and np.isfinite(total).all())]
    return _out_of_range(spoilt[0], error)


def merge(left: Accumulator, right: Accumulator) -> Accumulator:
    """The accumulator of both, in the memory of `left`.

    Raises:
        SpecError: they are for different leaves.
        RunError: a sum left the range of float64.
    """
    if left.spec != right.spec:
        raise SpecError("accumulators of different leaves cannot be merged", expected=left.spec, got=right.spec)
    at = [""]
    with overflow_named(at):
        for at[0], line in left.sums.items() if right.count else ():
            if left.count:
                np.add(line, right.sums[at[0]], out=line)
            else:
                np.copyto(line, right.sums[at[0]])
    return msgspec.structs.replace(left, weight=total_weight(left.weight, right.weight), count=left.count + right.count)


def finish(acc: Accumulator, divisor: float) -> dict[str, Any]:
    """The sums over `divisor`, cast once to the dtypes of the updates; `acc` is only read.

    Raises:
        RunError: nothing was added, or a result is out of its leaf's range.
    """
    if acc.count == 0:
        raise RunError("nothing was added to this aggregate", expected="at least one update", got="none")
    shapes = dict(acc.spec.items)
    out = _in_one({path: shapes[path] for path in acc.sums})
    at = [""]
    with overflow_named(at):
        for at[0], line in acc.sums.items():
            for start, stop in _blocks(0, line.size, BLOCK):
                wide = np.divide(line[start:stop], divisor, out=acc.room[: stop - start])
                narrow(wide, _flat(out[at[0]])[start:stop], at[0])
    return trees.unflatten(out)


def fold(
    updates: Sequence[Tree],
    weights: Sequence[float],
    divisor: float,
    *,
    like: Tree | None = None,
    threads: int = 1,
    after: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What zero, add, add, ..., finish give, bit for bit, from all updates at hand: block by block over all of them.

    Memory beyond the updates: the result, and two blocks a thread. The threads live as long as the call. `after` is called after
    each span of 4 million entries or less, so that updates which lie in files need not stay in memory. `like` has the dtypes of the
    result (None: those of the updates); an update may have narrower ones that lose nothing in it.
    """
    if not updates:
        raise RunError("nothing was added to this aggregate", expected="at least one update", got="none")
    model = updates[0] if like is None else like
    check_dtypes(model)
    spec = Spec.of(model)
    for update in updates:
        spec.check(update if like is None else _outline(update, dict(spec.items)))
    lines = [{path: _line(leaf) for path, leaf in trees.leaves(update)} for update in updates]
    out = trees.unflatten(_in_one({path: Leaf(leaf.dtype, leaf.shape) for path, leaf in trees.leaves(model)}))

    def fill(span: tuple[str, Array, int, int]) -> None:
        path, leaf, start, stop = span
        _fold_span([line[path] for line in lines], weights, divisor, leaf, start=start, stop=stop, path=path)
        after()

    spans = [(path, leaf, start, stop) for path, leaf in trees.leaves(out) for start, stop in _blocks(0, leaf.size, SPAN)]
    if threads == 1:
        for span in spans:
            fill(span)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, spans))
    return out


def _in_one(leaves: Mapping[str, Leaf]) -> dict[str, Array]:
    """New arrays in one piece of memory: the system backs it with large pages, all but its ends. Of fifty arrays of 8 MB each by
    itself a quarter was small pages, and to get those took a third of the time.
    """
    starts = list(itertools.accumulate((-(-_nbytes(leaf) // _ALIGN) * _ALIGN for leaf in leaves.values()), initial=0))
    room = np.empty(starts[-1], np.uint8)
    return {
        path: room[start : start + _nbytes(leaf)].view(leaf.dtype).reshape(leaf.shape)
        for start, (path, leaf) in zip(starts, leaves.items(), strict=False)
    }


def _nbytes(leaf: Leaf) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _outline(update: Tree, wanted: Mapping[str, Leaf]) -> Tree:
    """Names, dtypes and shapes of an update, with the wanted dtypes where its own lose nothing in them; it takes no memory."""

    def outline(path: str, leaf: Array) -> Array:
        fits = path in wanted and np.can_cast(leaf.dtype, wanted[path].dtype)
        return np.broadcast_to(np.zeros((), wanted[path].dtype), leaf.shape) if fits else leaf

    return trees.unflatten({path: outline(path, leaf) for path, leaf in trees.leaves(update)})


def _fold_span(
    lines: Sequence[Array], weights: Sequence[float], divisor: float, out: Array, *, start: int, stop: int, path: str
) -> None:
    width = _width(out.dtype)
    target = _flat(out)
    size = min(FOLD_BLOCK, width * (stop - start))
    acc, scratch = np.empty(size), np.empty(size)
    with overflow_named([path]):  # in the thread: numpy's error state does not cross threads
        for low, high in _blocks(start, stop, FOLD_BLOCK // width):
            wide, room = acc[: width * (high - low)], scratch[: width * (high - low)]
            _term(lines[0], low, high, weights[0], wide)
            for line, weight in zip(lines[1:], weights[1:], strict=True):
                np.add(wide, _term(line, low, high, weight, room), out=wide)
            np.divide(wide, divisor, out=wide)
            narrow(wide, target[width * low : width * high], path)


def _term(line: Array, start: int, stop: int, weight: float, out: Array) -> Array:
    """`weight` times entries start:stop, in float64, in `out`."""
    part = line[start:stop] if line.ndim == 1 else line.flat[start:stop]
    if part.dtype.kind == "c":
        part = np.ascontiguousarray(part).view(part.real.dtype)
    if part.dtype.char == "d":
        return np.multiply(part, weight, out=out)
    # Casting first is faster than a multiply that casts: numpy does the latter in buffers of its own.
    np.copyto(out, part, casting="unsafe")
    return out if weight == 1.0 else np.multiply(out, weight, out=out)


def narrow(wide: Array, out: Array, path: str) -> None:
    """Cast float64 values into `out`: one rounding for floats, half to even for integers and booleans. `wide` is used up.

    Raises:
        RunError: an integer is out of its dtype's range.
    """
    if out.dtype.kind in "iub":
        np.rint(wide, out=wide)
    if out.dtype.kind in "iu" and wide.size:
        info = np.iinfo(out.dtype)
        low, high = float(wide.min()), float(wide.max())
        if not (low >= float(info.min) and high < float(info.max) + 1.0):  # float(2^63 - 1) + 1 is 2^63
            raise RunError(
                "a result is out of its leaf's range",
                path=path,
                expected=f"{out.dtype.name}: {info.min} to {info.max}",
                got=f"{low:g} to {high:g}",
                hint="use a wider dtype for this leaf",
            )
    np.copyto(out, wide, casting="unsafe")


@contextmanager
def overflow_named(at: list[str]) -> Iterator[None]:
    """Turns an overflow inside the block into a RunError that names the leaf `at[0]`, which the block keeps up to date."""
    try:
        # An inf that the caller let in stays inf - inf = nan: only the gate refuses it.
        with np.errstate(over="raise", invalid="ignore"):
            yield
    except FloatingPointError as error:
        raise _out_of_range(at[0], error) from None


def _out_of_range(path: str, error: FloatingPointError) -> RunError:
    return RunError("a result is out of its leaf's range", path=path, got=str(error))


def checked_weight(weight: float) -> float:
    """The weight as a float.

    Raises:
        WeightError: it is not finite or not positive.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise WeightError("not a weight", expected="a finite number > 0", got=weight)
    return float(weight)


def total_weight(left: float, right: float) -> float:
    """left + right.

    Raises:
        WeightError: that is over the range of float64: a mean would be 0 or nan.
    """
    total = left + right
    if not math.isfinite(total):
        raise WeightError("the weights add up to infinity", expected="a finite total")
    return total


def check_dtypes(like: Tree) -> None:
    """Return if each leaf's dtype fits into float64 or complex128.

    Raises:
        SpecError: one does not; names it.
    """
    for path, leaf in trees.leaves(like):
        if not np.can_cast(leaf.dtype, np.complex128):
            raise SpecError("a leaf cannot be summed", path=path, got=leaf.dtype.name, expected="a number of at most 64 bits")


def _width(dtype: np.dtype[Any]) -> int:
    return 2 if dtype.kind == "c" else 1


def _wide(dtype: np.dtype[Any]) -> type[np.float64 | np.complex128]:
    return np.complex128 if dtype.kind == "c" else np.float64


def _line(leaf: Array) -> Array:
    """The leaf as a line where that is a view; a block of any other is copied when it is read."""
    leaf = np.asarray(leaf)
    return leaf.reshape(-1) if leaf.flags.c_contiguous else leaf


def _flat(out: Array) -> Array:
    """A view of an array of our own as a line of real numbers."""
    line = out.reshape(-1)
    return line.view(line.real.dtype) if line.dtype.kind == "c" else line


def _blocks(start: int, stop: int, size: int) -> Sequence[tuple[int, int]]:
    if 0 < stop - start <= size:
        return ((start, stop),)
    return [(low, min(low + size, stop)) for low in range(start, stop, size)]
