"""A model as a learnable: weights by name, with meta."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.dxo import DXO, DataKind
from hansa.compat.flare.app_common.abstract.learnable import Learnable


class ModelLearnableKey:
    """The parts of a model."""

    OPTIMIZER = "optimizer"
    WEIGHTS = "weights"
    META = "meta"


class ModelLearnable(Learnable):
    """Weights and meta."""

    def __init__(self) -> None:
        super().__init__()
        self[ModelLearnableKey.WEIGHTS] = {}
        self[ModelLearnableKey.META] = {}

    def is_empty(self) -> bool:
        return not self.get(ModelLearnableKey.WEIGHTS)


def validate_model_learnable(model_learnable: object) -> str:
    """What is wrong with it; empty if nothing is."""
    if not isinstance(model_learnable, ModelLearnable):
        return f"invalid model learnable: expect a ModelLearnable, but got {type(model_learnable)}"
    missing = [key for key in (ModelLearnableKey.WEIGHTS, ModelLearnableKey.META) if key not in model_learnable]
    return f"missing {missing[0]}" if missing else ""


def make_model_learnable(weights: dict[str, Any], meta_props: dict[str, Any]) -> ModelLearnable:
    """The model of these weights."""
    made = ModelLearnable()
    made[ModelLearnableKey.WEIGHTS] = weights
    made[ModelLearnableKey.META] = meta_props
    return made


def model_learnable_to_dxo(ml: ModelLearnable) -> DXO:
    """The weights as a DXO.

    Raises:
        ValueError: it is no model.
    """
    if error := validate_model_learnable(ml):
        raise ValueError(error)
    return DXO(DataKind.WEIGHTS, ml[ModelLearnableKey.WEIGHTS], ml[ModelLearnableKey.META])
