"""Tests the global model at the server after each round."""

import json
from pathlib import Path

import torch
from cifar10_data import test_rows
from cifar10_net import Net
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType


class Tester(FLComponent):
    """Writes the accuracies, one for each round, into test_accuracy.json of the app's folder."""

    def __init__(self, folder="", small=False):
        super().__init__()
        self.folder, self.small, self.accuracies = folder, small, []

    def handle_event(self, event_type, fl_ctx):
        """Hear when a run starts, a round is done, a run ends."""
        if event_type == EventType.START_RUN:
            self.x, self.y = test_rows(self.folder, self.small)
            self.model = Net(self.small, self.folder)
        elif event_type == AppEventType.ROUND_DONE:
            weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
            self.model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
            with torch.no_grad():
                right = [(self.model(x).argmax(1) == y).sum() for x, y in zip(self.x.split(250), self.y.split(250), strict=True)]
            self.accuracies.append(int(sum(right)) / len(self.y))
            self.log_info(fl_ctx, f"accuracy of the global model: {self.accuracies[-1]:.4f}")
        elif event_type == EventType.END_RUN:
            Path(fl_ctx.get_prop(FLContextKey.APP_ROOT), "test_accuracy.json").write_text(json.dumps(self.accuracies))
