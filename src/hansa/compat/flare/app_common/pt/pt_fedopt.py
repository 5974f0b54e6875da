"""PTFedOptModelShareableGenerator: the server's optimizer takes the mean difference for a gradient (Reddi 2021,
https://arxiv.org/abs/2003.00295).
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from hansa.compat.flare.apis.dxo import DataKind, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.learnable import Learnable
from hansa.compat.flare.app_common.abstract.model import ModelLearnableKey
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator


class PTFedOptModelShareableGenerator(FullModelShareableGenerator):
    """`optimizer_args` and `lr_scheduler_args`: {"path": "torch.optim.SGD", "args": {...}, "config_type": "dict"}.

    source_model: a torch module, or the id of one. Parameters go by the optimizer, buffers by the mean difference.
    """

    def __init__(
        self,
        optimizer_args: dict[str, Any] | None = None,
        lr_scheduler_args: dict[str, Any] | None = None,
        source_model: Any = "model",
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.optimizer_args = optimizer_args or {"path": "torch.optim.SGD", "args": {"lr": 1.0, "momentum": 0.6}}
        self.lr_scheduler_args, self.source_model = lr_scheduler_args, source_model
        self.device = torch.device(device or "cpu")
        self.model: Any = None
        self.optimizer: Any = None
        self.lr_scheduler: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Make the optimizer over the model's parameters.

        Raises:
            TypeError: the source model is no torch module.
        """
        if event_type == EventType.START_RUN:
            found = self.source_model
            self.model = fl_ctx.get_engine().get_component(found) if isinstance(found, str) else found
            if not isinstance(self.model, torch.nn.Module):
                raise TypeError(f"source_model {found!r} must be a torch module, but it is a {type(self.model)}")
            self.model.to(self.device)
            self.optimizer = _made(self.optimizer_args, "optimizer_args", self.model.parameters())
            if self.lr_scheduler_args:
                self.lr_scheduler = _made(self.lr_scheduler_args, "lr_scheduler_args", self.optimizer)

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        """The global model after a step.

        Raises:
            ValueError: the result is no WEIGHT_DIFF.
        """
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            raise ValueError(f"FedOpt needs WEIGHT_DIFF, but got {dxo.data_kind}")
        before = dict(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS])
        learnable = super().shareable_to_learnable(shareable, fl_ctx)  # buffers; parameters follow
        weights = learnable[ModelLearnableKey.WEIGHTS]
        parameters = {name: each for name, each in self.model.named_parameters() if name in dxo.data}
        with torch.no_grad():
            for name, each in parameters.items():
                each.copy_(torch.as_tensor(before[name], device=self.device))
                each.grad = -torch.as_tensor(np.asarray(dxo.data[name]), device=self.device, dtype=each.dtype)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        trained = {name: each.detach().cpu().numpy().copy() for name, each in parameters.items()}
        learnable[ModelLearnableKey.WEIGHTS] = {**weights, **trained}
        return learnable


def _made(given: dict[str, Any], what: str, *args: Any) -> Any:
    """The object that a path with arguments stands for.

    Raises:
        ValueError: there is no such path.
    """
    module, _, name = str(given.get("path", "")).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(*args, **given.get("args", {}))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{what} names no class: {given.get('path')!r}: {error}") from error
