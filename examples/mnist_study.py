"""Three questions about FedAvg on MNIST, a figure each: how many clients, how many local epochs, and what if clients are off?

python mnist_study.py --data FOLDER   (or HANSA_DATA=FOLDER; about ten minutes on two free cores)
python mnist_study.py --small         (seconds; without a folder on scikit-learn's 8x8 digits, which need no download)

FOLDER holds mnist.npz from https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz, or MNIST's four IDX files.
"""

import argparse
import os
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from torch import nn

import hansa as hs
from hansa.adapters.torch import TorchLearner
from hansa.core.rng import generator
from hansa.data import datasets, partition
from hansa.data.rows import Rows
from hansa.learning import fedavg
from hansa.simulation.faults import Faults

SEED = 0
Curves = dict[str, list[float]]  # test accuracy after each round, by the label of its line


def net(side: int) -> nn.Module:
    """Pictures (n, side, side) to the logits of ten classes."""
    convolution = [nn.Unflatten(1, (1, side)), nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convolution, nn.Linear(32 * (side // 2) ** 2, 256), nn.ReLU(), nn.Linear(256, 10))


def pictures(folder: str | None, *, small: bool) -> tuple[Rows, Rows]:
    """Rows to train on, which the clients share, and rows that the server tests on: random ones of the data's own two parts."""
    if small and folder is None:
        rows = shuffled(datasets.digits())
        return rows.take(np.arange(240)), rows.take(np.arange(240, 440))
    rows = datasets.mnist(folder=folder)
    train, test = (120, 100) if small else (6000, 2000)
    return shuffled(rows.part("train")).take(np.arange(train)), shuffled(rows.part("test")).take(np.arange(test))


def shuffled(rows: Rows) -> Rows:
    return rows.take(generator(SEED, purpose="subset").permutation(len(rows)))


def accuracy(  # of the global model on the test rows, after each round; `off`: each client's chance to be away in a round
    train: Rows, test: Rows, *, rounds: int, clients: int, epochs: int = 1, off: float = 0.0, skewed: bool = False
) -> list[float]:
    deal = partial(partition.dirichlet, alpha=0.3) if skewed else partition.iid
    sites = deal(train, sites=clients, seed=SEED, split=(1, 0, 0))
    model = partial(net, train.x.shape[1])
    learner = TorchLearner(model, loss=nn.functional.cross_entropy, optimizer="adam", lr=0.001, epochs=epochs)
    job = hs.Job("mnist", fedavg(learner, rounds=rounds, test=test, evaluate_sites="none"), data="mnist")
    result = hs.simulate(job, {"mnist": sites}, seed=SEED, engine="pool", workers=2, faults=Faults(dropout=off))
    curve = [float(record["global"]["test_accuracy"]) for record in result.metrics]
    seconds = sum(record["seconds"] for record in result.metrics)
    about = f"{clients} clients, {'skewed' if skewed else 'iid'}, epochs a round: {epochs}, off: {off:.0%}"
    print(f"{about:46} {curve[0]:.3f} after round 1, {curve[-1]:.3f} after round {rounds}  ({seconds:.0f} s)", flush=True)
    return curve


def draw(title: str, curves: Curves, name: str) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    for label, curve in curves.items():
        line = "--" if "skewed" in label else "-"
        axes.plot(range(1, len(curve) + 1), curve, line, marker="o", markersize=4, label=label)
    axes.set(title=title, xlabel="round", ylabel="accuracy of the global model on test pictures")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(name, pil_kwargs={"optimize": True})
    print(f"-> {name}")


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with MNIST")
    given = cli.parse_args()
    train, test = pictures(given.data, small=given.small)
    run = partial(accuracy, train, test, rounds=2 if given.small else 10)
    print(f"{len(train)} training pictures, shared evenly unless skewed; {len(test)} test pictures at the server; seed {SEED}")

    by_clients = {f"{count} client{'s' * (count > 1)}": run(clients=count) for count in (1, 2, 4, 8)}
    draw("The same pictures, shared among more clients", by_clients, "mnist_clients.png")

    by_epochs = {"1 epoch": by_clients["4 clients"]} | {f"{count} epochs": run(clients=4, epochs=count) for count in (2, 5)}
    draw("Four clients: local epochs in each round", by_epochs, "mnist_epochs.png")

    switched_off: Curves = {"iid, none off": by_clients["8 clients"]}
    switched_off |= {f"iid, {off:.0%} off": run(clients=8, off=off) for off in (0.25, 0.5)}
    switched_off |= {f"skewed, {off:.0%} off": run(clients=8, off=off, skewed=True) for off in (0.0, 0.25, 0.5)}
    draw("Eight clients, some of them switched off in each round", switched_off, "mnist_switched_off.png")


if __name__ == "__main__":
    main()
