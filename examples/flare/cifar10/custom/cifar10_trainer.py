"""The classic trainer of FLARE 2.0: an Executor that gets the global model and sends how its weights changed."""

import copy

import numpy as np
import torch
from cifar10_data import site_rows
from cifar10_net import Net
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.pt.pt_fedproxloss import PTFedProxLoss


class Cifar10Trainer(Executor):
    """SGD with momentum; with mu above 0 FedProx. The last tenth of a site's rows says how good the model is that came."""

    def __init__(self, epochs=1, lr=0.02, mu=0.0, folder="", small=False, train_task=AppConstants.TASK_TRAIN):
        self.epochs, self.lr, self.mu = epochs, lr, mu
        self.folder, self.small, self.train_task = folder, small, train_task

    def handle_event(self, event_type, fl_ctx):
        """Load what the site has, when the run starts."""
        if event_type == EventType.START_RUN:
            number = int(fl_ctx.get_identity_name().rsplit("-", 1)[1]) - 1
            folder = fl_ctx.get_prop("data_root") or self.folder
            x, y = site_rows(folder, self.small, number)
            held_out = len(y) // 10
            self.x, self.y = x[held_out:], y[held_out:]
            self.valid = x[:held_out], y[:held_out]
            self.model = Net(self.small, folder)
            self.loss, self.prox = torch.nn.CrossEntropyLoss(), PTFedProxLoss(self.mu)

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        """Train for some epochs."""
        if task_name != self.train_task:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        weights = from_shareable(shareable).data
        self.model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
        told = self.accuracy()
        steps = self.train(abort_signal)
        if abort_signal.triggered:
            return make_reply(ReturnCode.TASK_ABORTED)
        change = {name: value.numpy() - weights[name] for name, value in self.model.state_dict().items()}
        dxo = DXO(data_kind=DataKind.WEIGHT_DIFF, data=change)
        dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, steps)
        if np.isfinite(told):
            dxo.set_meta_prop(MetaKey.INITIAL_METRICS, {"accuracy": told})
        return dxo.to_shareable()

    def train(self, abort_signal):
        """How many steps were made."""
        model_global = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9)
        steps = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(self.y)).split(32):
                if abort_signal.triggered:
                    return steps
                optimizer.zero_grad()
                loss = self.loss(self.model(self.x[rows]), self.y[rows])
                if self.mu > 0:
                    loss += self.prox(self.model, model_global)
                loss.backward()
                optimizer.step()
                steps += 1
        return steps

    def accuracy(self):
        """Of the model on the rows that are held out; nan where there are none."""
        with torch.no_grad():
            return float((self.model(self.valid[0]).argmax(1) == self.valid[1]).float().mean())
