"""ModelPersistor: loads and saves a model."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.learnable import Learnable
from hansa.compat.flare.app_common.abstract.learnable_persistor import LearnablePersistor
from hansa.compat.flare.app_common.abstract.model import ModelLearnable


class ModelDescriptor:
    """A model that a persistor has stored."""

    def __init__(self, name: str, location: str, model_format: str, props: dict[str, Any] | None = None) -> None:
        self.name, self.location, self.model_format, self.props = name, location, model_format, props or {}


class ModelPersistor(LearnablePersistor):
    """Loads and saves a model; it may know further ones by name."""

    def load(self, fl_ctx: FLContext) -> Learnable:
        return self.load_model(fl_ctx)

    def save(self, learnable: Learnable, fl_ctx: FLContext) -> None:
        self.save_model(learnable, fl_ctx)  # type: ignore[arg-type]  # FLARE's own narrowing

    @abstractmethod
    def load_model(self, fl_ctx: FLContext) -> ModelLearnable: ...

    @abstractmethod
    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None: ...

    def get_model_inventory(self, fl_ctx: FLContext) -> dict[str, ModelDescriptor]:
        """The models that are stored, by file."""
        del fl_ctx
        return {}

    def get_model(self, model_file: str, fl_ctx: FLContext) -> ModelLearnable | None:
        """One of the stored models; None if there is no such file."""
        del model_file, fl_ctx
        return None
