"""Between NumPy weights and PyTorch models, and the file of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hansa.compat.flare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from hansa.compat.flare.app_common.app_constant import ModelFormat

_MODEL, _TRAIN_CONF, _META = "model", "train_conf", "meta_props"


def feed_vars(model: torch.nn.Module, model_params: Mapping[str, Any]) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Put arrays into a model's parameters and buffers; the second of the two is its state then.

    Raises:
        KeyError: the model has no such parameter. ValueError: one has another shape.
    """
    state = model.state_dict()
    for name, value in model_params.items():
        given = torch.as_tensor(np.asarray(value))
        if state[name].shape != given.shape:
            raise ValueError(f"{name!r} has shape {list(given.shape)}, and the model's {list(state[name].shape)}")
        state[name] = given.to(state[name].dtype)
    model.load_state_dict(state)
    return [], model.state_dict()


class PTModelPersistenceFormatManager:
    """The content of a model's file: a state dict, or a dict with one as `model`, and how it was trained as `train_conf`.

    Raises:
        TypeError: data is no dict.
    """

    def __init__(self, data: dict[str, Any], default_train_conf: dict[str, Any] | None = None) -> None:
        if not isinstance(data, dict):
            raise TypeError(f"data must be a dict, but got {type(data)}")
        inner = data.get(_MODEL)
        self._whole = data if isinstance(inner, Mapping) else {}
        self.var_dict: dict[str, Any] = dict(inner) if isinstance(inner, Mapping) else dict(data)
        self.train_conf = self._whole.get(_TRAIN_CONF, default_train_conf)
        self.meta: dict[str, Any] = dict(self._whole.get(_META, {}))

    def to_model_learnable(self, exclude_vars: str | None = None) -> ModelLearnable:
        """The weights as arrays, without those whose name matches."""
        left_out = re.compile(exclude_vars) if exclude_vars else None
        kept = {name: value for name, value in self.var_dict.items() if left_out is None or not left_out.search(name)}
        return make_model_learnable({name: _array(value) for name, value in kept.items()}, dict(self.meta))

    def to_persistence_dict(self) -> dict[str, Any]:
        """What is written to the file: tensors."""
        tensors = {name: torch.as_tensor(np.asarray(_array(value))) for name, value in self.var_dict.items()}
        return {**self._whole, _MODEL: tensors, _META: self.meta, _TRAIN_CONF: self.train_conf}

    def update(self, ml: ModelLearnable) -> None:
        """Take on the weights of a model, with the shapes that they have here."""
        self.meta = dict(ml.get(ModelLearnableKey.META) or {})
        for name, value in ml[ModelLearnableKey.WEIGHTS].items():
            held = self.var_dict.get(name)
            self.var_dict[name] = np.reshape(value, np.shape(_array(held))) if held is not None else value

    def get_persist_model_format(self) -> str:
        return ModelFormat.PT_CHECKPOINT


def _array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
