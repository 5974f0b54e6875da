"""PTFileModelPersistor: the global model in a file that torch.load reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_constant import FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.model import ModelLearnable
from hansa.compat.flare.app_common.abstract.model_persistor import ModelDescriptor, ModelPersistor
from hansa.compat.flare.app_common.app_constant import AppConstants, DefaultCheckpointFileName
from hansa.compat.flare.app_common.app_event_type import AppEventType
from hansa.compat.flare.app_common.pt.pt_fed_utils import PTModelPersistenceFormatManager


class PTFileModelPersistor(ModelPersistor):
    """Begins with a model's own weights, or with a file's; writes the last and the best global model below the app's folder.

    model: a torch module, or the id of one among the components. source_ckpt_file_full_name: the file to begin with, as a path or
    relative to the app's `custom` folder; it is read as weights only.

    Raises:
        ValueError: there is neither a model nor a file.
    """

    def __init__(
        self,
        exclude_vars: str | None = None,
        model: Any = None,
        global_model_file_name: str = DefaultCheckpointFileName.GLOBAL_MODEL,
        best_global_model_file_name: str = DefaultCheckpointFileName.BEST_GLOBAL_MODEL,
        source_ckpt_file_full_name: str | None = None,
    ) -> None:
        super().__init__()
        if model is None and source_ckpt_file_full_name is None:
            raise ValueError("the persistor needs a model or source_ckpt_file_full_name")
        self.exclude_vars, self.model = exclude_vars, model
        self.global_model_file_name, self.best_global_model_file_name = global_model_file_name, best_global_model_file_name
        self.source_ckpt_file_full_name = source_ckpt_file_full_name
        self.persistence_manager: PTModelPersistenceFormatManager | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN and isinstance(self.model, str):
            self.model = fl_ctx.get_engine().get_component(self.model)
        elif event_type == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
            self._write(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL), self.best_global_model_file_name, fl_ctx)

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """The model to start from.

        Raises:
            TypeError: the component is no torch module. FileNotFoundError: there is no such file.
        """
        if self.source_ckpt_file_full_name is not None:
            own = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT), "custom", self.source_ckpt_file_full_name)
            file = own if own.exists() else Path(self.source_ckpt_file_full_name)
            data = torch.load(file, map_location="cpu", weights_only=True)
        elif isinstance(self.model, torch.nn.Module):
            data = self.model.state_dict()
        else:
            raise TypeError(f"the model of the persistor is no torch module, but a {type(self.model)}")
        self.persistence_manager = PTModelPersistenceFormatManager(dict(data))
        return self.persistence_manager.to_model_learnable(self.exclude_vars)

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        self._write(model, self.global_model_file_name, fl_ctx)

    def get_model_inventory(self, fl_ctx: FLContext) -> dict[str, ModelDescriptor]:
        found = {}
        for name in (self.global_model_file_name, self.best_global_model_file_name):
            file = self._file(name, fl_ctx)
            if file.exists():
                found[name] = ModelDescriptor(name, str(file), PTModelPersistenceFormatManager({}).get_persist_model_format())
        return found

    def get_model(self, model_file: str, fl_ctx: FLContext) -> ModelLearnable | None:
        file = self._file(model_file, fl_ctx)
        if model_file not in self.get_model_inventory(fl_ctx):
            return None
        data = torch.load(file, map_location="cpu", weights_only=True)
        return PTModelPersistenceFormatManager(data).to_model_learnable(self.exclude_vars)

    def _write(self, model: ModelLearnable, name: str, fl_ctx: FLContext) -> None:
        manager = self.persistence_manager or PTModelPersistenceFormatManager({})
        manager.update(model)
        file = self._file(name, fl_ctx)
        part = file.with_name(f".{file.name}.part")
        torch.save(manager.to_persistence_dict(), part)
        part.replace(file)

    def _file(self, name: str, fl_ctx: FLContext) -> Path:
        return Path(fl_ctx.get_prop(FLContextKey.APP_ROOT), Path(name).name)
