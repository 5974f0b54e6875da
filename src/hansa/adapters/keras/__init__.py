"""Any Keras 3 model as a learner, on TensorFlow, torch or JAX: whichever KERAS_BACKEND names."""

try:
    import keras as _keras  # noqa: F401  asked for here, so that its absence has one clear message
except ModuleNotFoundError as error:
    from hansa.errors import MissingExtraError

    if error.name != "keras":
        raise
    raise MissingExtraError("keras", extra="keras") from None

from hansa.adapters.keras.learner import KerasLearner

__all__ = ["KerasLearner"]
