"""Whose model works where: each hospital's own model and two shared ones, measured at every hospital.

python hospitals_cross_site.py           (a minute; the data comes with Hansa)
python hospitals_cross_site.py --small   (seconds)

Four hospitals of the UCI Heart Disease data. Each trains a model alone; FedAvg and cyclic weight transfer train one together. Every
model then goes to every hospital and is measured on patients who were held back there: only metrics and their sums come back. The
matrix is the mean of several random splits. Deployed, the same jobs run as they are; a hospital whose policy does not have
`local_models = true` keeps its own model, and its row says so.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import hansa as hs
from hansa.adapters.numpy import logistic
from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.learning import cross_site, cyclic, fedavg, local_only

ROUNDS, SPLITS = (3, 2) if "--small" in sys.argv else (20, 20)

learner = logistic(features=22, lr=0.1, batch=32)
together = {
    "FedAvg": fedavg(learner, rounds=ROUNDS, standardise=True),  # all train at once, their changes are averaged
    "cyclic": cyclic(learner, rounds=ROUNDS, standardise=True, order="random"),  # one model goes from hospital to hospital
}
alone = local_only(learner, rounds=ROUNDS, standardise=True, keep_local=True)


def everywhere(seed: int) -> tuple[list[str], list[str], Array]:
    """The models, the hospitals, and the AUC of each model at each (models, hospitals); nan where it is not defined."""
    sites = partition.column(datasets.heart(), split=(0.7, 0.0, 0.3), seed=seed)
    shared = {
        name: hs.simulate(hs.Job(name, training, data="heart"), sites, seed=seed).model for name, training in together.items()
    }
    measuring = cross_site(learner, models=shared, local=True, personal=["*"], metrics=["auc"])
    matrix = hs.simulate(hs.Job("everywhere", hs.Sequence(alone, measuring), data="heart"), sites, seed=seed).value[-1]
    models = [*(f"{site} (local)" for site in matrix.sites), *shared]
    return models, matrix.sites, np.array([[matrix.cells[model][site]["auc"] for site in matrix.sites] for model in models])


def draw(models: list[str], sites: list[str], auc: Array) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4.6), dpi=110, layout="constrained")
    shown = axes.imshow(auc, cmap="Blues", vmin=0.4, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(auc):
        weight = "bold" if models[row].startswith(sites[column]) else "normal"  # at home
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > 0.8 else "black", weight=weight)
    axes.set_xticks(range(len(sites)), sites)
    axes.set_yticks(range(len(models)), models)
    axes.set(title=f"AUC of each model at each hospital: mean of {SPLITS} splits", xlabel="measured on held-out patients of")
    figure.colorbar(shown)
    figure.savefig("hospitals_cross_site.png", pil_kwargs={"optimize": True})


def main() -> None:
    found = [everywhere(seed) for seed in range(SPLITS)]
    models, sites, _ = found[0]
    auc = np.nanmean([each for *_, each in found], axis=0)
    print(f"AUC after {ROUNDS} rounds, mean of {SPLITS} splits; a row is a model, a column where it was measured")
    print(f"{'':24}" + "".join(f"{site:>15}" for site in sites))
    for model, row in zip(models, auc, strict=True):
        print(f"{model:24}" + "".join(f"{value:15.3f}" for value in row))
    draw(models, sites, auc)
    print("-> hospitals_cross_site.png")


if __name__ == "__main__":
    main()
