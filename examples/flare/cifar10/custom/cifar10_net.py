"""A small convolutional network for ten classes."""

from torch import nn


class Net(nn.Module):
    """Pictures (n, channels, side, side) to scores: 32x32 in colour, or where there is no folder the digits, 8x8 and grey."""

    def __init__(self, small=False, folder=""):
        super().__init__()
        side, channels = (8, 1) if small and not folder else (32, 3)
        self.body = nn.Sequential(*self.block(channels, 16), *self.block(16, 32), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(32 * (side // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10))

    @staticmethod
    def block(inputs, outputs):
        """Convolution, ReLU, pooling."""
        return [nn.Conv2d(inputs, outputs, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]

    def forward(self, x):
        """Scores (n, 10)."""
        return self.head(self.body(x))
