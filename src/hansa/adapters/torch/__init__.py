"""Any torch module as a learner: local training by the built-in loop, by the user's own, or of many clients in one call."""

try:
    import torch as _torch  # noqa: F401  asked for here, so that its absence has one clear message
except ModuleNotFoundError as error:
    from hansa.errors import MissingExtraError

    if error.name != "torch":
        raise
    raise MissingExtraError("torch", extra="torch") from None

from hansa.adapters.torch.learner import TorchLearner

__all__ = ["TorchLearner"]
