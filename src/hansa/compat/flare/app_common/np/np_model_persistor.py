"""A model that is one array, in a .npy file below the run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from hansa.compat.flare.app_common.abstract.model_persistor import ModelPersistor
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.np.constants import NPConstants


class NPModelPersistor(ModelPersistor):
    """Loads the array from its file, or begins with [[1, 2, 3], [4, 5, 6], [7, 8, 9]]; saves it there."""

    def __init__(self, model_dir: str = AppConstants.DEFAULT_MODEL_DIR, model_name: str = "server.npy") -> None:
        super().__init__()
        self.model_dir, self.model_name = model_dir, model_name

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        path = self._path(fl_ctx)
        array = np.load(path, allow_pickle=False) if path.exists() else np.arange(1, 10, dtype=np.float32).reshape(3, 3)
        return make_model_learnable({NPConstants.NUMPY_KEY: array}, {})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        path = self._path(fl_ctx)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, model[ModelLearnableKey.WEIGHTS][NPConstants.NUMPY_KEY], allow_pickle=False)

    def _path(self, fl_ctx: FLContext) -> Path:
        run = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number())
        return Path(run, self.model_dir, self.model_name)
