"""Any model that is a function of JAX as a learner: a whole local training is one compiled call, of one client or of many."""

try:
    import jax as _jax  # noqa: F401  asked for here, so that its absence has one clear message
except ModuleNotFoundError as error:
    from hansa.errors import MissingExtraError

    if error.name != "jax":
        raise
    raise MissingExtraError("jax", extra="jax") from None

from hansa.adapters.jax.learner import JaxLearner

__all__ = ["JaxLearner"]
