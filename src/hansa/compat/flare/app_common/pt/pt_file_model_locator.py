"""PTFileModelLocator: the models that a PTFileModelPersistor has stored."""

from __future__ import annotations

from hansa.compat.flare.apis.dxo import DXO
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.model import model_learnable_to_dxo
from hansa.compat.flare.app_common.abstract.model_locator import ModelLocator
from hansa.compat.flare.app_common.abstract.model_persistor import ModelPersistor
from hansa.compat.flare.app_common.workflows.parts import part


class PTFileModelLocator(ModelLocator):
    """Finds the last and the best global model."""

    def __init__(self, pt_persistor_id: str) -> None:
        super().__init__()
        self.pt_persistor_id = pt_persistor_id

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        persistor: ModelPersistor = part(fl_ctx, self.pt_persistor_id, ModelPersistor, "persistor")
        return list(persistor.get_model_inventory(fl_ctx))

    def locate_model(self, model_name: str, fl_ctx: FLContext) -> DXO:
        """The model of a name.

        Raises:
            FileNotFoundError: there is none.
        """
        persistor: ModelPersistor = part(fl_ctx, self.pt_persistor_id, ModelPersistor, "persistor")
        found = persistor.get_model(model_name, fl_ctx)
        if found is None:
            raise FileNotFoundError(f"no model is called {model_name!r}")
        return model_learnable_to_dxo(found)
