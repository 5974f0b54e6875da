"""CIFAR-10 at eight sites with skewed labels: FedAvg, FedProx and FedOpt, the accuracy of the global model round by round.

python cifar10.py --data FOLDER   (or HANSA_DATA=FOLDER)
python cifar10.py --small         (seconds; without a folder on scikit-learn's 8x8 digits, which need no download)

FOLDER holds the binary version, https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, unpacked. 10,000 of its training pictures
are used, so that the study takes minutes.
"""

import argparse
import os
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import hansa as hs
from hansa.adapters.torch import TorchLearner
from hansa.core.rng import generator
from hansa.data import datasets, partition
from hansa.data.rows import Rows
from hansa.learning import fedavg, fedopt, fedprox
from hansa.learning.options import Options

SEED, SITES, ALPHA = 0, 8, 0.3


class Net(nn.Module):
    """Pictures (n, side, side, channels), or grey ones (n, side, side), to the logits of ten classes."""

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*block(channels, 16), *block(16, 32), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(32 * (side // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pictures = (x.reshape(*x.shape[:3], -1).movedim(-1, 1) - 0.5) / 0.25
        logits: torch.Tensor = self.head(self.body(pictures))
        return logits


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]


def pictures(folder: str | None, *, small: bool) -> tuple[Rows, Rows]:
    """Rows for the sites to train on, and rows for the server to test on."""
    if small and folder is None:
        rows = some(datasets.digits(), 600)
        return rows.take(np.arange(400)), rows.take(np.arange(400, 600))
    rows = datasets.cifar10(folder=folder)
    train, test = (400, 200) if small else (10_000, 2000)
    return some(rows.part("train"), train), some(rows.part("test"), test)


def some(rows: Rows, count: int) -> Rows:
    return rows.take(generator(SEED, purpose="subset").permutation(len(rows))[:count])


def study(train: Rows, test: Rows, *, rounds: int) -> dict[str, list[float]]:
    """The test accuracy of the global model after each round, by algorithm."""
    side, channels = train.x.shape[1], train.x.shape[3] if train.x.ndim == 4 else 1
    learner = TorchLearner(partial(Net, side, channels), loss=nn.functional.cross_entropy, lr=0.02, momentum=0.9)
    score: Options = {"test": test, "evaluate_sites": "none"}
    algorithms = {
        "FedAvg": fedavg(learner, rounds=rounds, **score),
        "FedProx, mu = 0.1": fedprox(learner, rounds=rounds, mu=0.1, **score),
        "FedOpt, momentum 0.5": fedopt(learner, rounds=rounds, optimizer="sgd", momentum=0.5, server_lr=1.0, **score),
        "FedOpt, Adam": fedopt(learner, rounds=rounds, optimizer="adam", server_lr=0.003, betas=(0.9, 0.99), epsilon=1e-3, **score),
    }
    sites = partition.dirichlet(train, sites=SITES, alpha=ALPHA, min_rows=5, seed=SEED, split=(1, 0, 0))
    curves: dict[str, list[float]] = {}
    for name, algorithm in algorithms.items():
        result = hs.simulate(
            hs.Job("cifar10", algorithm, data="pictures"), {"pictures": sites}, seed=SEED, engine="pool", workers=2
        )
        curve = curves[name] = [float(record["global"]["test_accuracy"]) for record in result.metrics]
        seconds = sum(record["seconds"] for record in result.metrics)
        print(f"{name:22} {curve[rounds // 2 - 1]:.3f} half-way, {curve[-1]:.3f} at the end  ({seconds:.0f} s)", flush=True)
    return curves


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with CIFAR-10")
    given = cli.parse_args()
    train, test = pictures(given.data, small=given.small)
    print(f"{len(train)} pictures at {SITES} sites, Dirichlet({ALPHA}) labels; {len(test)} test pictures; seed {SEED}")

    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    for label, curve in study(train, test, rounds=2 if given.small else 15).items():
        axes.plot(range(1, len(curve) + 1), curve, "--" if "Prox" in label else "-", marker="o", markersize=4, label=label)
    title = f"{SITES} sites with skewed labels, an epoch a round"
    axes.set(title=title, xlabel="round", ylabel="accuracy of the global model on test pictures")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("cifar10.png", pil_kwargs={"optimize": True})
    print("-> cifar10.png")


if __name__ == "__main__":
    main()
