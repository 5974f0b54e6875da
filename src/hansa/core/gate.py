"""What an update must be before it is added: the one check, for simulation and deployment alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from hansa.core import half
from hansa.core.task import Block, Expect, Shareable
from hansa.core.trees import Array, Leaf, Tree, leaves
from hansa.errors import NotFiniteError, SpecError, UpdateError, WeightError

BLOCK = 65_536  # entries whose squares are summed at a time; they stay in cache for the exact look that may follow


def admit(reply: Shareable, expects: Sequence[Expect]) -> None:
    """Return if every expected part of the reply can be added; nothing is changed, whether it returns or raises.

    The order is: all specs, all weights, then the entries, so that the cheap checks come first.

    >>> admit(Shareable({"w": np.ones(2), "n": np.array(3.0)}), [Expect("w", weight="n")])
    >>> admit(Shareable({"w": np.array([1.0, np.inf]), "n": np.array(3.0)}), [Expect("w", weight="n")])
    Traceback (most recent call last):
        ...
    hansa.errors.NotFiniteError: an entry is not finite; at path w; expected finite numbers; got inf at [1]

    Raises:
        SpecError: a part is missing, or its leaves have other names, dtypes or shapes, or are not arrays of numbers.
        WeightError: a weight is not a real scalar, not finite, not positive, or over the cap.
        NotFiniteError: an entry is inf or NaN; names the leaf and the first such index.
    """
    parts = [(expect, _locate(reply.body, expect.path)) for expect in expects]
    arrays = [_checked_arrays(expect, part, half.outlined(part, reply.headers)) for expect, part in parts]
    for expect in expects:
        if expect.weight is not None:
            _check_weight(_locate(reply.body, expect.weight), path=expect.weight, cap=expect.weight_cap)
    for expect, leaves_of in zip(expects, arrays, strict=True):
        for path, leaf in leaves_of:
            if not is_finite(leaf):
                _refuse(leaf, path=_join(expect.path, path))


def admits_all(block: Block, expects: Sequence[Expect]) -> bool:
    """Whether each reply of a block can be added; False says of none what is wrong with it: `admit` does, one by one."""
    try:
        admit(block.reply(0).shareable, expects)  # arrays are stacked: names, dtypes and shapes are those of all
    except UpdateError:
        return False
    for expect in expects:
        weights = np.ones(1) if expect.weight is None else _locate(block.body, expect.weight)
        if not (is_finite(weights) and weights.min() > 0 and weights.max() <= expect.weight_cap):
            return False
        if not all(is_finite(leaf) for _, leaf in leaves({"": _locate(block.body, expect.path)})):
            return False
    return True


def is_finite(leaf: Array) -> bool:
    """Whether every entry is finite."""
    if leaf.dtype.kind in "iub":
        return True
    line = leaf.ravel(order="K")  # finiteness does not care for order; a transposed leaf needs no copy this way
    if line.dtype.kind == "c":
        line = line.view(line.real.dtype)
    narrow = line.dtype.kind != "f" or line.dtype.itemsize < 4  # float16 and its kin: their squares soon overflow
    for block in (line[start : start + BLOCK] for start in range(0, line.size, BLOCK)) if line.size > BLOCK else (line,):
        if narrow:
            block = block.astype(np.float32)
        # A finite sum of squares has finite terms, and a dot product runs at the speed of memory. The sum of finite squares may
        # overflow, of which `vdot` says nothing: only then are the entries looked at one by one.
        if not math.isfinite(np.vdot(block, block)) and not np.isfinite(block).all():
            return False
    return True


def _refuse(leaf: Array, *, path: str) -> NoReturn:
    index = np.unravel_index(int(np.argmin(np.isfinite(leaf))), leaf.shape)
    where = f" at [{','.join(str(i) for i in index)}]" if leaf.ndim else ""
    raise NotFiniteError("an entry is not finite", path=path or None, expected="finite numbers", got=f"{leaf[index]}{where}")


def _locate(body: Tree, path: str) -> Any:
    """What stands at the path; "" is the whole body."""
    node: Any = body
    for key in path.split("/") if path else ():
        if (type(node) is not dict and not isinstance(node, Mapping)) or key not in node:
            raise SpecError("a part of the reply is missing", path=path, hint="the site ran another version of this task")
        node = node[key]
    return node


def _checked_arrays(expect: Expect, part: Any, outline: Any) -> list[tuple[str, Array]]:
    """The arrays of a part, each with its path below it, when all are what was expected, and numbers.

    `outline` is the part with the dtypes that it had before it was narrowed for the transfer.
    """
    # A scalar or a single array stands at its path without a tree around it: its spec has the one path "".
    single = type(part) is not dict and not isinstance(part, Mapping)
    if expect.spec is not None:
        if single and [path for path, _ in expect.spec.items] == [""]:
            want = expect.spec.items[0][1]
            if not isinstance(part, np.ndarray | np.generic):
                raise SpecError("not an array", path=expect.path or None, expected=want, got=type(part).__name__)
            if (got := Leaf(outline.dtype, part.shape)) != want:
                raise SpecError("an array does not fit", path=expect.path or None, expected=want, got=got)
        else:
            expect.spec.check(outline, path=expect.path)
    arrays = [("", part)] if single else list(leaves(part))
    for path, leaf in arrays:
        if type(leaf) is not np.ndarray and not isinstance(leaf, np.ndarray | np.generic):
            raise SpecError("not an array", path=_join(expect.path, path), expected="an array", got=type(leaf).__name__)
        if leaf.dtype.kind not in "biufc" and not np.can_cast(leaf.dtype, np.float64):  # ml_dtypes are of kind V
            got = Leaf(leaf.dtype, leaf.shape)
            raise SpecError("not an array of numbers", path=_join(expect.path, path), expected="numbers", got=got)
    return arrays


def _check_weight(value: Any, *, path: str, cap: float) -> None:
    expected = "a finite number > 0" + (f" and <= {cap:g}" if math.isfinite(cap) else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray | np.generic):
        raise WeightError("not a weight", path=path, expected=expected, got=type(value).__name__)
    if value.shape != () or value.dtype.kind not in "iuf":
        raise WeightError("not a weight", path=path, expected=expected, got=Leaf(value.dtype, value.shape))
    weight = float(value)
    if not (math.isfinite(weight) and 0 < weight <= cap):
        raise WeightError("not a weight", path=path, expected=expected, got=f"{weight:g}")


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
