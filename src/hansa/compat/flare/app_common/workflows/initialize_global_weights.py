"""InitializeGlobalWeights: the first global model comes from clients."""

from __future__ import annotations

from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.response_processors.global_weights_initializer import GlobalWeightsInitializer
from hansa.compat.flare.app_common.workflows.broadcast_and_process import BroadcastAndProcess


class InitializeGlobalWeights(BroadcastAndProcess):
    """Asks clients for weights, and makes the first ones (or those of one client) the global model."""

    def __init__(
        self,
        task_name: str = AppConstants.TASK_GET_WEIGHTS,
        min_responses_required: int = 0,
        wait_time_after_min_received: int = 0,
        task_timeout: int = 0,
        weights_prop_name: str = AppConstants.GLOBAL_MODEL,
        weight_method: str = "first",
        weights_client_name: str | None = None,
        clients: list[str] | None = None,
    ) -> None:
        processor = GlobalWeightsInitializer(weights_prop_name, weight_method, weights_client_name)
        super().__init__(processor, task_name, min_responses_required, wait_time_after_min_received, task_timeout, clients)
