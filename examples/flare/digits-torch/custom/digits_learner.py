"""A learner in the style of FLARE 2.0: FedAvg, with mu above 0 FedProx; the weights' change is what leaves."""

import copy

import numpy as np
import torch
from digits_net import DigitsNet
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.abstract.learner_spec import Learner
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.pt.pt_fedproxloss import PTFedProxLoss
from sklearn.datasets import load_digits


class DigitsLearner(Learner):
    """Trains on every n-th digit, from the one that the site's number says; the last fifth of them is for validation."""

    def __init__(self, sites=4, epochs=1, lr=0.1, mu=0.0):
        super().__init__()
        self.sites, self.epochs, self.lr, self.mu = sites, epochs, lr, mu
        self.best_accuracy, self.best_weights, self.steps = 0.0, None, 0

    def initialize(self, parts, fl_ctx):
        """Load the site's digits."""
        images, labels = load_digits(return_X_y=True)
        number = int(fl_ctx.get_identity_name().rsplit("-", 1)[1]) - 1
        own = np.arange(number % self.sites, len(labels), self.sites)
        split = len(own) * 4 // 5
        x, y = torch.tensor(images[own] / 16, dtype=torch.float32), torch.tensor(labels[own])
        self.train_rows, self.valid_rows = (x[:split], y[:split]), (x[split:], y[split:])
        self.model, self.loss, self.prox = DigitsNet(), torch.nn.CrossEntropyLoss(), PTFedProxLoss(self.mu)
        self.sender = parts.get("sender")

    def train(self, data, fl_ctx, abort_signal):
        """The change of the weights after some epochs."""
        weights = from_shareable(data).data
        self.load(weights)
        model_global = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr)
        steps = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(len(self.train_rows[1])).split(32):
                if abort_signal.triggered:
                    return make_reply(ReturnCode.TASK_ABORTED)
                optimizer.zero_grad()
                loss = self.loss(self.model(self.train_rows[0][rows]), self.train_rows[1][rows])
                (loss + self.prox(self.model, model_global) if self.mu else loss).backward()
                optimizer.step()
                self.after_step(optimizer)
                steps += 1
        self.after_training(optimizer, model_global)
        self.steps += steps
        if self.sender is not None:
            self.sender.add_scalar("train_loss", loss.item(), self.steps)
        self.keep_best()
        change = {name: value.numpy() - weights[name] for name, value in self.model.state_dict().items()}
        return DXO(DataKind.WEIGHT_DIFF, change, {MetaKey.NUM_STEPS_CURRENT_ROUND: steps}).to_shareable()

    def after_step(self, optimizer):
        """What an algorithm does after each step."""

    def after_training(self, optimizer, model_global):
        """What an algorithm does at the end."""

    def validate(self, data, fl_ctx, abort_signal):
        """The accuracy of the model that came."""
        self.load(from_shareable(data).data)
        return DXO(DataKind.METRICS, {"accuracy": self.accuracy()}).to_shareable()

    def get_model_for_validation(self, model_name, fl_ctx):
        """The best model that this site has had."""
        if self.best_weights is None:
            return make_reply(ReturnCode.EMPTY_RESULT)
        return DXO(DataKind.WEIGHTS, self.best_weights).to_shareable()

    def keep_best(self):
        """Keep the model if it is better than those before."""
        accuracy = self.accuracy()
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best_weights = {name: value.numpy().copy() for name, value in self.model.state_dict().items()}

    def load(self, weights):
        """Put arrays into the model."""
        self.model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})

    def accuracy(self):
        """Of the model on the validation rows."""
        with torch.no_grad():
            return float((self.model(self.valid_rows[0]).argmax(1) == self.valid_rows[1]).float().mean())


class DigitsScaffoldLearner(DigitsLearner):
    """The same with SCAFFOLD's controls."""

    def initialize(self, parts, fl_ctx):
        """Begin with controls of zero."""
        from nvflare.app_common.pt.pt_scaffold import PTScaffoldHelper

        super().initialize(parts, fl_ctx)
        self.scaffold = PTScaffoldHelper()
        self.scaffold.init(self.model)

    def train(self, data, fl_ctx, abort_signal):
        """The changes of weights and controls."""
        from nvflare.app_common.app_constant import AlgorithmConstants

        parts = from_shareable(data).data
        self.scaffold.load_global_controls(parts[AlgorithmConstants.SCAFFOLD_CTRL_GLOBAL].data)
        self.controls = self.scaffold.get_params()
        result = super().train(parts[AppConstants.MODEL_WEIGHTS].update_shareable(data), fl_ctx, abort_signal)
        weights = from_shareable(result)
        controls = DXO(DataKind.WEIGHT_DIFF, self.scaffold.get_delta_controls(), dict(weights.meta))
        parts = {AppConstants.MODEL_WEIGHTS: weights, AlgorithmConstants.SCAFFOLD_CTRL_DIFF: controls}
        return DXO(DataKind.COLLECTION, parts).to_shareable()

    def validate(self, data, fl_ctx, abort_signal):
        """The accuracy of the weights in the collection, or of a model."""
        dxo = from_shareable(data)
        if dxo.data_kind == DataKind.COLLECTION:
            self.load(dxo.data[AppConstants.MODEL_WEIGHTS].data)
            return DXO(DataKind.METRICS, {"accuracy": self.accuracy()}).to_shareable()
        return super().validate(data, fl_ctx, abort_signal)

    def after_step(self, optimizer):
        """Correct the step."""
        self.scaffold.model_update(self.model, self.lr, *self.controls)

    def after_training(self, optimizer, model_global):
        """Renew the site's control."""
        self.scaffold.terms_update(self.model, self.lr, *self.controls, model_global)
