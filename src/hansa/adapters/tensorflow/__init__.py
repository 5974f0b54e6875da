"""TensorFlow functions as local computations."""

try:
    import tensorflow as _tensorflow  # noqa: F401  asked for here, so that its absence has one clear message
except ModuleNotFoundError as error:
    from hansa.errors import MissingExtraError

    if error.name != "tensorflow":
        raise
    raise MissingExtraError("tensorflow", extra="tensorflow") from None
