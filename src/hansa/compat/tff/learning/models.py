"""`tff.learning.models`: a model with variables, made of a Keras model."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hansa.adapters.tensorflow.models import BatchOutput, VariableModel, from_keras_model

__all__ = ["BatchOutput", "VariableModel", "from_keras_model"]

if not TYPE_CHECKING:  # TensorFlow is imported when a name is first used

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("hansa.adapters.tensorflow.models"), name)
