"""Between a pytree and a Tree: leaves under the names that the pytree's containers give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from hansa.core import trees
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import ConfigError, SpecError

_ALONE = "value"  # the name of a model that is one array


@dataclass(frozen=True)
class Names:
    """The paths of a pytree's leaves in its own order, and what puts it together again. `floats` says which leaves are trained."""

    paths: tuple[str, ...]
    spec: Spec
    structure: Any
    floats: tuple[bool, ...]

    @staticmethod
    def of(params: Any) -> Names:
        """The names of a pytree: keys of dicts, fields of records, places in sequences, joined by '/'.

        Raises:
            ConfigError: there is no leaf, or a key holds a '/', or two leaves have one path.
        """
        found, structure = jax.tree_util.tree_flatten_with_path(params)
        if not found:
            raise ConfigError("the model has no parameters", path="init", got=type(params).__name__, hint="return a dict of arrays")
        paths = tuple("/".join(map(_name, path)) or _ALONE for path, _ in found)
        if len(set(paths)) < len(paths):
            raise ConfigError("two parameters have one name", path=max(paths, key=paths.count))
        tree = trees.unflatten({path: np.empty(leaf.shape, leaf.dtype) for path, (_, leaf) in zip(paths, found, strict=True)})
        floats = tuple(bool(jnp.issubdtype(leaf.dtype, jnp.floating)) for _, leaf in found)
        if not any(floats):
            raise ConfigError("the model has no parameter to train", path="init", hint="parameters are floats")
        return Names(paths, Spec.of(tree), structure, floats)

    def tree(self, leaves: list[Any]) -> dict[str, Any]:
        """Leaves in the pytree's order as a Tree with arrays of its own."""
        return trees.unflatten({path: np.array(leaf) for path, leaf in zip(self.paths, leaves, strict=True)})

    def leaves(self, tree: Tree) -> list[Array]:
        """The Tree's arrays in the pytree's order.

        Raises:
            SpecError: the tree is not one of this model; names the first leaf.
        """
        self.spec.check(tree)
        flat = trees.flatten(tree)
        return [flat[path] for path in self.paths]

    def correction(self, tree: Tree | None) -> list[Array] | None:
        """A correction for each trained leaf, zeros where the tree has none; None where there is none at all.

        Raises:
            SpecError: a leaf has another shape than its parameter.
        """
        if tree is None:
            return None
        flat, known = trees.flatten(tree), dict(self.spec.items)
        out = []
        for path in (path for path, trained in zip(self.paths, self.floats, strict=True) if trained):
            leaf = flat.get(path, np.zeros(known[path].shape, known[path].dtype))
            if np.shape(leaf) != known[path].shape:
                raise SpecError("a correction does not fit", path=path, expected=known[path].shape, got=np.shape(leaf))
            out.append(np.asarray(leaf, known[path].dtype))
        return out


def _name(key: object) -> str:
    match key:
        case DictKey(key=name) | FlattenedIndexKey(key=name):
            pass
        case SequenceKey(idx=name):
            pass
        case GetAttrKey(name=name):
            pass
        case _:
            raise ConfigError("a parameter's container gives it no name", path="init", got=type(key).__name__)
    if "/" in str(name) or str(name) == "":
        raise ConfigError("a parameter's name is a non-empty text without '/'", path="init", got=repr(name))
    return str(name)
