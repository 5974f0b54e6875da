"""A Keras model, its weights as the leaves of a Tree, and the state that no Tree holds."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state  # the counter of layers' names is nowhere public

from hansa.core import trees
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import ConfigError, SpecError

_SEED = "seed_generator_state"  # what Keras calls the variable from which dropout draws


class Held:
    """A built model. `paths` are its weights' in Keras's order, such as "dense/kernel"; `trained` are its trainable variables.

    Raises:
        ConfigError: the user's function gives no model, or one that has nothing to train yet.
    """

    def __init__(self, build: Callable[[], Any], seed: int) -> None:
        with _as_in_a_new_process(seed):
            model = build()
        if not isinstance(model, keras.Model):
            raise ConfigError("the model's function must return a Keras model", path="model", got=type(model).__name__)
        if not model.built:
            hint = "begin with keras.Input(shape), or call the model once on rows of zeros before you return it"
            raise ConfigError("the model does not know its inputs yet, so it has no weights", path="model", hint=hint)
        if not model.trainable_variables:
            raise ConfigError("the model has no parameter to train", path="model", hint="trainable is False everywhere")
        self.model = model
        self.paths = _paths(model)
        self.spec = Spec.of(self.tree())
        own = {id(weight) for weight in model.weights}
        self._others = [(v, array(v.value)) for v in model.non_trainable_variables if id(v) not in own]  # seeds, metrics

    @property
    def trained(self) -> list[Any]:
        """The variables that training moves."""
        variables: list[Any] = self.model.trainable_variables
        return variables

    @property
    def floats(self) -> np.dtype[Any]:
        """The dtype of the first trained weight: what the model's inputs ought to be."""
        return array(self.trained[0].value).dtype

    @property
    def keeps_statistics(self) -> bool:
        """Whether there are weights that are not trained: of batch normalisation, to which rows that only pad would count."""
        return bool(self.model.non_trainable_weights)

    def tree(self) -> dict[str, Any]:
        """A copy of the model's weights."""
        return trees.unflatten({path: array(weight.value) for path, weight in zip(self.paths, self.model.weights, strict=True)})

    def load(self, tree: Tree, *, seed: int = 0) -> None:
        """Write every leaf into the model; its seeds and metrics begin anew.

        Raises:
            SpecError: the tree is not one of this model; names the first leaf.
        """
        self.write(self.model, tree)
        for i, (variable, at_first) in enumerate(self._others):
            variable.assign(np.array([seed + i, 0], at_first.dtype) if variable.name == _SEED else at_first)

    def write(self, model: Any, tree: Tree) -> None:
        """Write every leaf into a model of this kind, which may be another."""
        self.spec.check(tree)
        flat = trees.flatten(tree)
        weights = model.weights
        if [tuple(weight.shape) for weight in weights] != [np.shape(flat[path]) for path in self.paths]:
            got = [tuple(weight.shape) for weight in weights]
            raise SpecError("the model has other weights", path="model", expected=[np.shape(flat[p]) for p in self.paths], got=got)
        for path, weight in zip(self.paths, weights, strict=True):
            weight.assign(flat[path])

    def delta(self, before: Tree) -> dict[str, Any]:
        """What has changed since `before`, in each leaf's dtype; a boolean leaf says which entries flipped."""
        flat = trees.flatten(before)
        pairs = [(path, array(weight.value), flat[path]) for path, weight in zip(self.paths, self.model.weights, strict=True)]
        return trees.unflatten({path: a ^ b if a.dtype == np.bool_ else (a - b).astype(a.dtype) for path, a, b in pairs})

    def start(self) -> list[Array]:
        """A copy of the trained variables."""
        return [array(variable.value) for variable in self.trained]

    def correction(self, tree: Tree | None) -> list[Array] | None:
        """A correction for each trained variable, zeros where the tree has none; None where there is none at all.

        Raises:
            SpecError: a leaf has another shape than its weight.
        """
        if tree is None:
            return None
        flat, path_of = trees.flatten(tree), {id(w): path for path, w in zip(self.paths, self.model.weights, strict=True)}
        out = []
        for variable in self.trained:
            path, shape = path_of[id(variable)], tuple(variable.shape)
            leaf = flat.get(path, np.zeros(shape))
            if np.shape(leaf) != shape:
                raise SpecError("a correction does not fit", path=path, expected=shape, got=np.shape(leaf))
            out.append(np.asarray(leaf, array(variable.value).dtype))
        return out


def array(value: Any) -> Array:
    """A copy of a framework's tensor."""
    # Not by Keras: it asks for the copy in a way that NumPy 2 warns of. Where torch has no NumPy dtype, it knows one.
    if "bfloat16" in str(value.dtype) or not hasattr(value, "numpy"):
        return np.array(keras.ops.convert_to_numpy(value))
    return np.array((value.detach().cpu() if hasattr(value, "detach") else value).numpy())


def _paths(model: Any) -> list[str]:
    """Keras's own paths below the model's name; where two are alike, the later ones are numbered."""
    seen: collections.Counter[str] = collections.Counter()
    paths = []
    for weight in model.weights:
        path = weight.path.removeprefix(f"{model.name}/")
        seen[path] += 1
        paths.append(path if seen[path] == 1 else f"{path}_{seen[path] - 1}")
    return paths


@contextmanager
def _as_in_a_new_process(seed: int) -> Iterator[None]:
    """Layers are named "dense", "dense_1" from the first one on, and initial weights follow the seed; both are put back.

    Keras counts names in the process, and draws its initializers' seeds from Python's own generator.
    """
    names = global_state.get_global_attribute("object_name_uids")
    before, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one, which a user's function may draw from
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002  the same
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(arrays)  # noqa: NPY002  the same
        global_state.set_global_attribute("object_name_uids", names)
