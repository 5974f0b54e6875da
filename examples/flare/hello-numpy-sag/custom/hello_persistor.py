"""A persistor in the style of FLARE 2.0: one array in a file of the run's folder."""

import os

import numpy as np
from nvflare.apis.fl_constant import FLContextKey
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor


class HelloPersistor(ModelPersistor):
    """Begins with [[1, 2, 3], [4, 5, 6], [7, 8, 9]]."""

    def load_model(self, fl_ctx):
        """The model to start from."""
        start = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.float32)
        return make_model_learnable({"numpy_key": start}, {})

    def save_model(self, model, fl_ctx):
        """Write models/server.npy."""
        folder = os.path.join(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_prop(FLContextKey.CURRENT_RUN)), "models")
        os.makedirs(folder, exist_ok=True)
        np.save(os.path.join(folder, "server.npy"), model[ModelLearnableKey.WEIGHTS]["numpy_key"])
