"""PTFedProxLoss: how far the weights have gone from the global model's (Li 2020, https://arxiv.org/abs/1812.06127)."""

from __future__ import annotations

import torch
from torch import nn


class PTFedProxLoss(nn.Module):
    """mu/2 |w - w_global|^2, to be added to the loss.

    Raises:
        ValueError: mu is negative.
    """

    def __init__(self, mu: float = 0.01) -> None:
        super().__init__()
        if mu < 0:
            raise ValueError(f"mu must be >= 0, but got {mu}")
        self.mu = mu

    def forward(self, input: nn.Module, target: nn.Module) -> torch.Tensor:  # noqa: A002  FLARE's name
        """The term; `input` is the model that is trained, `target` the global one."""
        pairs = zip(input.named_parameters(), target.named_parameters(), strict=True)
        terms = [torch.sum((own - other.detach()) ** 2) for (_, own), (_, other) in pairs]
        return self.mu / 2 * torch.stack(terms).sum()
