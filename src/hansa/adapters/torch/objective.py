"""What a loss tells about the task: the dtype of targets, the scores, the metrics, and the loss of each row alone."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own convention

from hansa.adapters.settings import METRICS, Scores, require_scores
from hansa.adapters.torch import leaves
from hansa.core.trees import Array
from hansa.errors import ConfigError

Loss: TypeAlias = Callable[..., Tensor]
Targets: TypeAlias = Literal["labels", "values", "either"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, and how to read the model's output under it.

    targets: "labels" are integers (or a probability for each class), "values" are floats, "either" follows y's dtype.
    Under "values" an output (n, 1) meets y (n,) as one column: torch would broadcast it to (n, n), or refuse.
    """

    loss: Loss
    scores: Scores
    metrics: tuple[str, ...]
    targets: Targets

    @staticmethod
    def of(loss: Loss, *, scores: Scores | None, metrics: tuple[str, ...] | None) -> Objective:
        """The objective of a loss; what is None is chosen by the loss.

        Raises:
            ConfigError: the loss is a class, or cannot be called; `scores` is not one of the three.
        """
        if isinstance(loss, type) or not callable(loss):
            raise ConfigError(
                "a loss is a function or a module", path="loss", got=repr(loss), hint="CrossEntropyLoss() has brackets"
            )
        require_scores(scores)
        root = _root(loss)
        known = next((kind for losses, kind in _KINDS if any(root is one for one in losses)), None)
        own_scores, own_metrics, targets = known or ("raw", ("loss",), "either")
        if scores is not None and scores != own_scores:
            own_metrics = METRICS[scores]
        return Objective(loss, scores or own_scores, own_metrics if metrics is None else metrics, targets)

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, averaged over its rows."""
        return self.loss(self._column(output, y), y)

    def on(self, device: torch.device) -> Objective:
        """The same, with the loss's own tensors (class weights) on the device."""
        if device.type == "cpu" or not isinstance(self.loss, nn.Module):
            return self
        return replace(self, loss=copy.deepcopy(self.loss).to(device))

    def scored(self, output: Any, *, column: bool) -> Array:
        """Scores of a batch's rows as an array: probabilities or values, float32 (float64 if the model is); `column` keeps (n, 1).

        Raises:
            ConfigError: the model gave no tensor.
        """
        if not isinstance(output, Tensor):
            raise ConfigError("the model's output is not a tensor", path="model", got=type(output).__name__, hint="wrap the model")
        output = output.detach().to(torch.promote_types(output.dtype, torch.float32))
        single = self.targets == "values" or self.scores == "sigmoid"
        if single and not column and output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if self.scores == "softmax":
            output = torch.softmax(output, dim=1)
        elif self.scores == "sigmoid":
            output = torch.sigmoid(output)
        return leaves.array(output)

    def row_losses(self) -> Callable[[Tensor, Tensor], Tensor]:
        """A function from a batch's output and targets to the loss of each row (n,), whose mean is the loss.

        Raises:
            ConfigError: the loss cannot be taken row by row.
        """
        settings = _settings(self.loss)
        if "reduction" not in settings:
            raise ConfigError("the loss has no reduction='none', so clients cannot be batched", path="loss", hint=_LOOP)
        if settings["reduction"] != "mean":
            raise ConfigError("batched clients need a mean", path="loss", got=f"reduction={settings['reduction']!r}", hint=_LOOP)
        if settings.get("weight") is not None:
            raise ConfigError("a weighted loss divides by its weights, so clients cannot be batched", path="loss", hint=_LOOP)
        if isinstance(self.loss, nn.Module):
            each: Loss = copy.copy(self.loss)
            each.reduction = "none"  # type: ignore[attr-defined]  # of the shallow copy; the user's stays as it is
        else:
            each = functools.partial(self.loss, reduction="none")

        plain = _root(self.loss) in (F.cross_entropy, nn.CrossEntropyLoss) and not settings.get("label_smoothing")

        def rows(output: Tensor, y: Tensor) -> Tensor:
            if plain and output.ndim == 2 and y.ndim == 1:
                # Batched, torch takes its own apart in Python, after an import of seconds. Bad labels are refused here too.
                return torch.logsumexp(output, 1) - output.gather(1, y[:, None])[:, 0]
            losses = each(self._column(output, y), y)
            return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

        return rows

    def ignored(self) -> int | None:
        """The label that the loss leaves out of its mean, if it has one."""
        value: int | None = _settings(self.loss).get("ignore_index")
        return value

    def _column(self, output: Tensor, y: Tensor) -> Tensor:
        if self.targets == "values" and isinstance(output, Tensor) and output.ndim == y.ndim + 1 and output.shape[-1] == 1:
            return output.squeeze(-1)
        return output


def name(value: object) -> str:
    """A callable on one line, without an address: a function's name, a partial's settings, a module's options."""
    if isinstance(value, functools.partial):
        options = [*map(repr, value.args), *(f"{key}={_short(item)}" for key, item in value.keywords.items())]
        return f"partial({', '.join([name(value.func), *options])})"
    if isinstance(value, nn.Module):
        constants = {key: getattr(value, key) for key in getattr(value, "__constants__", ()) if hasattr(value, key)}
        options = [f"{key}={_short(item)}" for key, item in {**constants, **dict(value.named_buffers())}.items()]
        return f"{type(value).__name__}({', '.join(options)})"
    return getattr(value, "__name__", type(value).__name__)


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.numel() <= 8 else f"tensor{list(value.shape)}"
    return name(value) if callable(value) else repr(value)


def _root(loss: Loss) -> object:
    while isinstance(loss, functools.partial):
        loss = loss.func
    return type(loss) if isinstance(loss, nn.Module) else loss


def _settings(loss: Loss) -> dict[str, Any]:
    """What the loss is called with: of a module its attributes, of a function its defaults under the partial's arguments."""
    if isinstance(loss, nn.Module):
        return {key: getattr(loss, key) for key in _SETTINGS if hasattr(loss, key)}
    try:
        parameters = inspect.signature(loss).parameters.values()  # a partial's signature carries its own defaults
    except (TypeError, ValueError):  # written in C: it has no signature
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


_SETTINGS = ("reduction", "weight", "ignore_index", "label_smoothing")
_LOOP = "the loop engine takes any loss"
_KINDS: tuple[tuple[tuple[object, ...], tuple[Scores, tuple[str, ...], Targets]], ...] = (
    # The softmax of log-probabilities is the probabilities, so nll_loss is read as cross_entropy is.
    ((F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss), ("softmax", METRICS["softmax"], "labels")),
    ((F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss), ("sigmoid", METRICS["sigmoid"], "values")),
    ((F.binary_cross_entropy, nn.BCELoss), ("raw", METRICS["sigmoid"], "values")),
    (
        (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
        ("raw", ("loss", "mse", "mae"), "values"),
    ),
)
