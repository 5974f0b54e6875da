"""PTScaffoldHelper: SCAFFOLD's control variates beside a training loop (Karimireddy 2020, https://arxiv.org/abs/1910.06378)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

Controls = Mapping[str, torch.Tensor]


def get_lr_values(optimizer: torch.optim.Optimizer) -> list[float]:
    """The step size of each group of parameters."""
    return [float(group["lr"]) for group in optimizer.param_groups]


class PTScaffoldHelper:
    """A site's control c_i, the global one c, and how c_i has changed in the last training (option II of the paper).

    Use: `init` once; each round `load_global_controls`, `get_params`, after each optimizer step `model_update`, at the end
    `terms_update`; then `get_delta_controls` is what is sent.
    """

    def __init__(self) -> None:
        self.cnt = 0
        self.c_global: Any = None
        self.c_local: Any = None
        self.c_delta_para: dict[str, Any] | None = None

    def init(self, model: torch.nn.Module) -> None:
        """Begin with controls of zero."""
        self.c_global, self.c_local = copy.deepcopy(model), copy.deepcopy(model)
        for each in (self.c_global, self.c_local):
            each.load_state_dict({name: torch.zeros_like(value) for name, value in each.state_dict().items()})

    def get_params(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """c and c_i; steps are counted anew."""
        self.cnt = 0
        return self.c_global.state_dict(), self.c_local.state_dict()

    def model_update(self, model: torch.nn.Module, curr_lr: float, c_global_para: Controls, c_local_para: Controls) -> None:
        """w <- w - lr (c - c_i), after an optimizer's step."""
        self.cnt += 1
        with torch.no_grad():
            for name, each in model.named_parameters():
                each.sub_((c_global_para[name] - c_local_para[name]).to(each.device), alpha=curr_lr)

    def terms_update(
        self,
        model: torch.nn.Module,
        curr_lr: float,
        c_global_para: Controls,
        c_local_para: Controls,
        model_global: torch.nn.Module,
    ) -> None:
        """c_i <- c_i - c + (w_global - w) / (steps lr).

        Raises:
            ValueError: no step was counted.
        """
        if self.cnt < 1:
            raise ValueError("no step was taken since get_params: call model_update after each one")
        before, after = dict(model_global.named_parameters()), dict(model.named_parameters())
        state = self.c_local.state_dict()
        self.c_delta_para = {name: torch.zeros_like(value).cpu().numpy() for name, value in state.items()}
        for name, weight in after.items():
            gone = (before[name].detach() - weight.detach()) / (self.cnt * curr_lr)
            new = c_local_para[name] - c_global_para[name] + gone.to(c_local_para[name].device)
            self.c_delta_para[name] = (new - c_local_para[name]).cpu().numpy()
            state[name] = new
        self.c_local.load_state_dict(state)

    def load_global_controls(self, weights: Mapping[str, Any]) -> None:
        """Take on c as it came."""
        self.c_global.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})

    def get_delta_controls(self) -> dict[str, Any]:
        """How c_i has changed, as arrays.

        Raises:
            ValueError: nothing was trained yet.
        """
        if self.c_delta_para is None:
            raise ValueError("the controls have not changed yet: call terms_update after the training")
        return self.c_delta_para
