"""`tff.learning.models`: a model with variables, made of a Keras model."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hansa.adapters.tensorflow.models import BatchOutput, VariableModel, from_keras_model
    from hansa.adapters.tensorflow.training import ModelWeights

__all__ = ["BatchOutput", "ModelWeights", "VariableModel", "from_keras_model"]

if not TYPE_CHECKING:  # TensorFlow is imported when a name is first used

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        place = "training" if name == "ModelWeights" else "models"
        return getattr(importlib.import_module(f"hansa.adapters.tensorflow.{place}"), name)
