"""Dense layers with their gradients, written out for C models at once: parameters are rows of one (C, size) array."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from hansa.core import trees
from hansa.core.trees import Array, Leaf, Tree
from hansa.errors import SpecError

Head: TypeAlias = Literal["sigmoid", "softmax"]
Layers: TypeAlias = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Net:
    """Layers of `widths` (features, hidden ..., outputs) with a relu between two, and a sigmoid or softmax at the end.

    A layer is x @ weight + bias, with weight (in, out) and bias (out,). `prefixes` are what stands before the names
    of each layer's two leaves: "0." makes "0.weight" and "0.bias".

    Inside, a weight is kept as (out, in) and activations as (units, rows): with few outputs the product of the gradient is
    twice as fast that way round.
    """

    widths: tuple[int, ...]
    prefixes: tuple[str, ...]
    head: Head

    @staticmethod
    def of(model: Tree, *, prefixes: tuple[str, ...], head: Head) -> Net:
        """The net whose parameters a tree holds; its widths are read from the weights.

        Raises:
            SpecError: a leaf is missing, extra, or does not fit the layer before it.
        """
        widths: list[int] = []
        for prefix in prefixes:
            weight = model.get(prefix + "weight")
            if not isinstance(weight, np.ndarray) or weight.ndim != 2 or weight.dtype.kind != "f":
                got = Leaf(weight.dtype, weight.shape) if isinstance(weight, np.ndarray) else type(weight).__name__
                raise SpecError("not a model of this learner", path=prefix + "weight", expected="float[in,out]", got=got)
            widths += weight.shape[:1] if not widths else ()
            widths.append(weight.shape[1])
        net = Net.kept(tuple(widths), prefixes, head)
        net.check(model)
        return net

    @staticmethod
    @lru_cache(maxsize=64)
    def kept(widths: tuple[int, ...], prefixes: tuple[str, ...], head: Head) -> Net:
        """The net, made once: its tables cost more than a small client's step."""
        return Net(widths, prefixes, head)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each leaf by path, in the order of the parameters."""
        shapes: dict[str, tuple[int, ...]] = {}
        for prefix, (width_in, width_out) in zip(self.prefixes, pairwise(self.widths), strict=True):
            shapes[prefix + "weight"] = (width_in, width_out)
            shapes[prefix + "bias"] = (width_out,)
        return shapes

    @cached_property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Where each leaf begins and ends in a row of parameters."""
        ranges, first = {}, 0
        for path, shape in self.shapes.items():
            ranges[path] = (first, first + math.prod(shape))
            first = ranges[path][1]
        return ranges

    @cached_property
    def size(self) -> int:
        """How many parameters there are."""
        return max(last for _, last in self.ranges.values())

    def check(self, tree: Tree, *, partial: bool = False) -> None:
        """Return if the tree has this net's leaves (or, where `partial`, some of them) and no others.

        Raises:
            SpecError: names the first leaf that is missing, extra or of another shape.
        """
        for path, shape in self.shapes.items():
            leaf = tree.get(path)
            if leaf is None and partial:
                continue
            if not isinstance(leaf, np.ndarray) or leaf.shape != shape:
                got = str(leaf.shape) if isinstance(leaf, np.ndarray) else type(leaf).__name__
                raise SpecError("a leaf does not fit", path=path, expected=str(shape), got=got)
        if extra := tree.keys() - self.shapes.keys():
            raise SpecError("a leaf is not expected", path=min(extra), hint=f"this learner has {', '.join(self.shapes)}")

    def flatten(self, tree: Tree, row: Array) -> None:
        """Write the leaves into one row of parameters; leaves that are not in the tree leave zeros."""
        leaves = trees.flatten(tree)
        for path, (first, last) in self.ranges.items():
            row[first:last] = leaves[path].T.ravel() if path in leaves else 0.0

    def unflatten(self, rows: Array, less: Array, into: Mapping[str, Array], places: Sequence[int]) -> None:
        """Write rows (C, size) of parameters, less those of another model each, into stacked leaves at these places.

        `rows` are used up.
        """
        rows -= less  # where they lie: to subtract while turning the weights round takes twice as long
        together = list(places) == list(range(places[0], places[0] + len(places)))
        where = slice(places[0], places[0] + len(places)) if together else list(places)
        for path, (first, last) in self.ranges.items():
            into[path][where] = rows[:, first:last].reshape(-1, *self.shapes[path][::-1]).swapaxes(1, -1)

    def layers(self, rows: Array) -> Layers:
        """Views of (C, size) parameters: (C, out, in) weights and (C, out, 1) biases, layer by layer."""
        views = [rows[:, first:last].reshape(-1, *self.shapes[path][::-1]) for path, (first, last) in self.ranges.items()]
        return [(weight, bias[:, :, None]) for weight, bias in zip(views[::2], views[1::2], strict=True)]

    def logits(self, layers: Layers, x: Array) -> tuple[Array, list[Array]]:
        """(C, outputs, n) of rows (C, n, features), and the input (C, in, n) of each layer."""
        inputs = [x.swapaxes(1, 2)]
        for i, (weight, bias) in enumerate(layers):
            z = np.matmul(weight, inputs[i])
            z += bias
            if i + 1 < len(layers):
                inputs.append(np.maximum(z, 0.0, out=z))
        return z, inputs

    def gradient(self, layers: Layers, into: Layers, x: Array, labels: Array, weights: Array, scale: Array | None) -> Array:
        """Write each model's gradient of its weighted loss, times its `scale` (C, 1), into `into`; return the losses (C,).

        x: (C, n, features). labels: (C, n). weights: (C, n), what each row counts for; a row of padding counts 0.
        """
        z, inputs = self.logits(layers, x)
        losses, error = self.losses(z, labels)
        error *= (weights if scale is None else weights * scale)[:, None]
        for i in range(len(layers) - 1, -1, -1):
            grad_weight, grad_bias = into[i]
            np.matmul(error, inputs[i].swapaxes(1, 2), out=grad_weight)
            np.einsum("ckn->ck", error, out=grad_bias[:, :, 0])
            if i:
                error = np.matmul(layers[i][0].swapaxes(1, 2), error)
                error *= inputs[i] > 0
        loss: Array = np.einsum("cn,cn->c", losses, weights)
        return loss

    def losses(self, z: Array, labels: Array) -> tuple[Array, Array]:
        """Each row's log loss (C, n), and its derivative by the logits (C, outputs, n). `z`, C-contiguous, is used up."""
        if self.head == "sigmoid":
            targets = labels[:, None].astype(z.dtype)
            return (np.logaddexp(0.0, z) - targets * z)[:, 0], self.scores(z) - targets
        z -= np.maximum.reduce(z, axis=1, keepdims=True)
        models, _, n = z.shape
        line, at = z.reshape(-1), labels * n + (np.arange(models)[:, None] * z[0].size + np.arange(n))  # of each row's own label
        chosen = line[at]
        np.exp(z, out=z)
        total = np.add.reduce(z, axis=1, keepdims=True)
        z /= total
        line[at] -= 1.0
        return np.log(total[:, 0]) - chosen, z

    def scores(self, z: Array) -> Array:
        """The probabilities of logits (C, outputs, n), in the same shape. `z` is left alone."""
        if self.head == "sigmoid":
            return np.asarray(1.0 / (1.0 + np.exp(-z)))
        p: Array = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return p
