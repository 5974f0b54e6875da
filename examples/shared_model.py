"""Three hospitals share one image model and no image: the textbook sketch of federated learning, made right.

python shared_model.py --data FOLDER   (or HANSA_DATA=FOLDER)
python shared_model.py --small         (seconds; without a folder on scikit-learn's 8x8 digits, which need no download)

FOLDER holds mnist.npz from https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz, or MNIST's four IDX files;
handwritten digits stand in for the hospitals' images. What the sketch leaves out: the hospitals start from one model, their changes
are weighted by their images, and each model is judged on images that no hospital has trained on.
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
from hansa.data import datasets, federated
from hansa.data.rows import Rows
from hansa.learning import fedavg
from hansa.learning.rounds import Rounds

SEED, SHARES = 0, {"north": 0.5, "centre": 0.3, "south": 0.2}  # of all training images


def net(side: int) -> nn.Module:
    """Images (n, side, side) to the logits of ten classes, through convolutions 1-10-20."""
    first = [nn.Unflatten(1, (1, side)), nn.Conv2d(1, 10, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(10, 20, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(20 * (side // 4) ** 2, 50), nn.ReLU(), nn.Linear(50, 10))


def images(folder: str | None, *, small: bool) -> tuple[Rows, Rows]:
    """Images to train on, and images to test on."""
    if small and folder is None:
        rows = some(datasets.digits(), 400)
        return rows.take(np.arange(200)), rows.take(np.arange(200, 400))
    rows = datasets.mnist(folder=folder)
    train, test = (200, 200) if small else (2000, 2000)
    return some(rows.part("train"), train), some(rows.part("test"), test)


def some(rows: Rows, count: int) -> Rows:
    return rows.take(generator(SEED, purpose="subset").permutation(len(rows))[:count])


def accuracy(algorithm: Rounds, hospitals: dict[str, Rows]) -> list[float]:
    """The test accuracy of the hospitals' model after each round; one hospital by itself is a federation, too."""
    sites = federated.from_arrays(hospitals, split=(1, 0, 0))
    result = hs.simulate(hs.Job("shared-model", algorithm, data="images"), {"images": sites}, seed=SEED, engine="pool", workers=2)
    return [float(record["global"]["test_accuracy"]) for record in result.metrics]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--small", action="store_true", help="a size for a quick look")
    cli.add_argument("--data", default=os.environ.get("HANSA_DATA"), help="the folder with MNIST")
    given = cli.parse_args()
    train, test = images(given.data, small=given.small)
    ends = np.rint(np.cumsum(list(SHARES.values())) * len(train)).astype(int)
    hospitals = {name: train.take(rows) for name, rows in zip(SHARES, np.split(np.arange(len(train)), ends[:-1]), strict=True)}

    model = partial(net, train.x.shape[1])
    learner = TorchLearner(model, loss=nn.functional.cross_entropy, lr=0.01, epochs=10)
    algorithm = fedavg(learner, rounds=2 if given.small else 5, test=test, evaluate_sites="none")
    curves = {f"{name} alone ({len(rows)} images)": accuracy(algorithm, {name: rows}) for name, rows in hospitals.items()}
    curves[f"together ({len(train)} images, none shared)"] = accuracy(algorithm, hospitals)
    curves["pooled, for comparison"] = accuracy(algorithm, {"pooled": train})

    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    print(f"accuracy on {len(test)} test images after {algorithm.rounds} rounds of 10 local epochs, seed {SEED}")
    for label, curve in curves.items():
        print(f"{label:38} {curve[-1]:.3f}")
        axes.plot(range(1, len(curve) + 1), curve, ":" if "pooled" in label else "-", marker="o", markersize=4, label=label)
    axes.set(title="One model of three hospitals", xlabel="round of ten local epochs", ylabel="accuracy on test images")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("shared_model.png", pil_kwargs={"optimize": True})
    print("-> shared_model.png")


if __name__ == "__main__":
    main()
