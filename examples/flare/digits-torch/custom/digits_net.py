"""A small network for digits of 8 x 8 pixels."""

import torch
from torch import nn


class DigitsNet(nn.Module):
    """One hidden layer."""

    def __init__(self, hidden=32):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits."""
        return self.layers(x)
