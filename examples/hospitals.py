"""Four hospitals that may not pool their patients: FedSGD and FedAvg against each hospital alone and against pooled data.

python hospitals.py           (about a minute; the data comes with Hansa)
python hospitals.py --small   (seconds)

The model is a logistic regression on the UCI Heart Disease data; missing values are filled and columns scaled by a federated
statistics round. Each hospital holds back 30 % of its patients, on whom its AUC is measured, in several random splits.
"""

import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

import hansa as hs
from hansa.adapters.numpy import logistic
from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.learning import fedavg, fedsgd
from hansa.simulation.evaluate import compare

ROUNDS, SPLITS = (5, 2) if "--small" in sys.argv else (20, 20)
WAYS = {"alone": "C7", "FedSGD": "C1", "FedAvg": "C0", "pooled": "C2"}  # and their colours

learner = logistic(features=22, lr=0.1, batch=32)
algorithms = {
    # w <- w + sum_i u_i: each hospital sends one gradient step u_i = -lr grad F_i(w) on all its patients
    "FedSGD": fedsgd(learner, rounds=ROUNDS, standardise=True, metrics=["auc", "loss"]),
    # w <- w + sum_i n_i delta_i / n: each hospital trains for an epoch in batches of 32
    "FedAvg": fedavg(learner, rounds=ROUNDS, standardise=True, metrics=["auc", "loss"]),
}


def study() -> tuple[list[str], dict[str, Array], dict[str, Array]]:
    """The hospitals, each way's AUC (splits, hospitals), and each algorithm's loss on validation patients (splits, rounds)."""
    aucs: dict[str, list[Sequence[float]]] = {way: [] for way in WAYS}
    losses: dict[str, list[Sequence[float]]] = {name: [] for name in algorithms}
    for seed in range(SPLITS):
        sites = partition.column(datasets.heart(), split=(0.6, 0.1, 0.3), seed=seed)
        for name, algorithm in algorithms.items():
            compared = compare(hs.Job("heart", algorithm, data="heart"), {"heart": sites}, seed=seed)
            hospitals, alone, together, pooled = zip(*compared.table("auc"), strict=True)
            aucs[name].append(together)
            losses[name].append([record["global"]["loss"] for record in compared.federated.metrics])
        aucs["alone"].append(alone)  # by FedAvg's own training: the last one compared
        aucs["pooled"].append(pooled)
    return list(hospitals), {way: np.array(rows) for way, rows in aucs.items()}, {k: np.array(rows) for k, rows in losses.items()}


def draw(hospitals: list[str], aucs: dict[str, Array], losses: dict[str, Array]) -> None:
    figure, (bars, lines) = plt.subplots(1, 2, figsize=(11, 4.4), dpi=110, layout="constrained", width_ratios=(1.6, 1))
    for place, (way, colour) in enumerate(WAYS.items()):
        mean, spread, x = np.nanmean(aucs[way], axis=0), np.nanstd(aucs[way], axis=0), np.arange(4) + 0.2 * (place - 1.5)
        bars.bar(x, mean, 0.18, yerr=spread, label=way, color=colour, ecolor="0.35", capsize=2)
    bars.set(title=f"AUC of each hospital's held-out patients: mean and spread of {SPLITS} splits", ylabel="AUC", ylim=(0.5, 1))
    bars.set_xticks(range(4), hospitals)
    bars.legend(ncols=4, loc="upper right")
    for name, loss in losses.items():
        lines.plot(range(1, ROUNDS + 1), loss.mean(axis=0), label=name, color=WAYS[name])
    lines.set(title="The global model while it learns", xlabel="round", ylabel="loss on validation patients, mean of splits")
    lines.legend()
    figure.savefig("hospitals.png", pil_kwargs={"optimize": True})


def main() -> None:
    hospitals, aucs, losses = study()
    print(f"AUC after {ROUNDS} rounds, mean and standard deviation of {SPLITS} splits")
    print("".join(f"{text:>16}" for text in ("", *WAYS)))
    for k, hospital in enumerate(hospitals):
        cells = (f"{np.nanmean(aucs[way][:, k]):.3f} ± {np.nanstd(aucs[way][:, k]):.3f}" for way in WAYS)
        print("".join(f"{text:>16}" for text in (hospital, *cells)))
    draw(hospitals, aucs, losses)
    print("-> hospitals.png")


if __name__ == "__main__":
    main()
