"""`tff.learning`: models of Keras and what trains them, under the names of both generations."""

from typing import TYPE_CHECKING

from hansa.aggregators import compression_aggregator, robust_aggregator, secure_aggregator
from hansa.compat.tff.learning import algorithms, models, optimizers, templates

if TYPE_CHECKING:
    from hansa.adapters.tensorflow.models import VariableModel as Model
    from hansa.adapters.tensorflow.models import from_keras_model

__all__ = [
    "Model",
    "algorithms",
    "compression_aggregator",
    "from_keras_model",
    "models",
    "optimizers",
    "robust_aggregator",
    "secure_aggregator",
    "templates",
]

if not TYPE_CHECKING:  # the older spellings; TensorFlow is imported when one is used

    def __getattr__(name: str) -> object:
        if name not in ("Model", "from_keras_model"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(models, {"Model": "VariableModel"}.get(name, name))
