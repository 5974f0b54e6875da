"""The server's array, found for a validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.model_locator import ModelLocator
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.np.constants import NPConstants


class NPModelLocator(ModelLocator):
    """Reads the .npy file that NPModelPersistor writes."""

    SERVER_MODEL_NAME = "server"

    def __init__(self, model_dir: str = AppConstants.DEFAULT_MODEL_DIR, model_name: str | dict[str, str] = "server.npy") -> None:
        super().__init__()
        self.model_dir = model_dir
        self.model_file_name = model_name if isinstance(model_name, dict) else {self.SERVER_MODEL_NAME: model_name}

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        del fl_ctx
        return list(self.model_file_name)

    def locate_model(self, model_name: str, fl_ctx: FLContext) -> DXO:
        """The model.

        Raises:
            FileNotFoundError: it was not saved.
        """
        run = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number())
        array = np.load(Path(run, self.model_dir, self.model_file_name[model_name]), allow_pickle=False)
        return DXO(DataKind.WEIGHTS, {NPConstants.NUMPY_KEY: array})
