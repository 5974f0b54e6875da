"""An algorithm of one's own, as typed computations: logistic regression by Newton's method over four hospitals.

python custom_algorithm.py   (seconds; the data comes with Hansa)

First and second derivatives add up over patients, so each round solves what pooled data would have solved: the result is the pooled
fit itself. Only sums leave a hospital. A misplaced value is an error where a computation is defined, before any site works.
"""

import sys
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import hansa as hs
from hansa.core import trees
from hansa.core.computation import Computation
from hansa.core.plan import plan
from hansa.core.protocols import Dataset, Federation
from hansa.core.run import run
from hansa.data import datasets, federated, partition

ROUNDS, RIDGE, STEP = 4 if "--small" in sys.argv else 8, 1.0, 1e-3


class Moments(NamedTuple):
    """Per feature: how many patients have it, and the sums of its values and of their squares; each {"x": (22,)}."""

    known: hs.Tree
    total: hs.Tree
    squares: hs.Tree


class Local(NamedTuple):
    """The loss summed over a hospital's patients, and its derivatives: {"w": (23,)} and {"w": (23, 23)}."""

    loss: np.float64
    gradient: hs.Tree
    curvature: hs.Tree


class Step(NamedTuple):
    """The model after a round, and the objective before it: loss + RIDGE/2 |w|^2."""

    model: hs.Tree
    objective: np.float64


def moments(data: Dataset) -> Moments:
    x = np.asarray(data.x, np.float64)
    return Moments({"x": np.sum(~np.isnan(x), axis=0)}, {"x": np.nansum(x, axis=0)}, {"x": np.nansum(x**2, axis=0)})


def first_model(sums: Moments) -> hs.Tree:
    known, total, squares = (trees.flatten(part)["x"] for part in sums)
    return {"mean": total / known, "scale": np.sqrt(squares / known - (total / known) ** 2), "w": np.zeros(len(total) + 1)}


def derivatives(model: hs.Tree, data: Dataset) -> Local:
    at = trees.flatten(model)
    x = np.nan_to_num((data.x - at["mean"]) / at["scale"])  # what was not measured becomes the mean of all hospitals
    x = np.column_stack([x, np.ones(len(x))])
    z = x @ at["w"]
    p = 1 / (1 + np.exp(-z))
    return Local(np.sum(np.logaddexp(0, z) - data.y * z), {"w": x.T @ (p - data.y)}, {"w": x.T * (p * (1 - p)) @ x})


def newton_step(model: hs.Tree, sums: Local) -> Step:
    w, gradient, curvature = (trees.flatten(tree)["w"] for tree in (model, sums.gradient, sums.curvature))
    moved = w - np.linalg.solve(curvature + RIDGE * np.eye(len(w)), gradient + RIDGE * w)
    return Step({**model, "w": moved}, np.float64(sums.loss + RIDGE / 2 * w @ w))


def gradient_step(model: hs.Tree, loss: np.float64, gradient: hs.Tree) -> Step:
    w = trees.flatten(model)["w"]
    return Step({**model, "w": w - STEP * (trees.flatten(gradient)["w"] + RIDGE * w)}, np.float64(loss + RIDGE / 2 * w @ w))


@hs.federated_computation
def start(data: hs.Clients[Dataset]) -> hs.Server[hs.Tree]:
    return hs.federated_map(first_model, {"sums": hs.federated_sum(hs.federated_map(moments, data))})


@hs.federated_computation
def newton_round(model: hs.Server[hs.Tree], data: hs.Clients[Dataset]) -> hs.Server[Step]:
    local = hs.federated_map(derivatives, (hs.federated_broadcast(model), data))
    return hs.federated_map(newton_step, (model, hs.federated_sum(local)))


@hs.federated_computation
def gradient_round(model: hs.Server[hs.Tree], data: hs.Clients[Dataset]) -> hs.Server[Step]:
    local = hs.federated_map(derivatives, (hs.federated_broadcast(model), data))
    return hs.federated_map(gradient_step, (model, hs.federated_sum(local.loss), hs.federated_sum(local.gradient)))


@dataclass(frozen=True)
class Descent:
    """A workflow: one round after the other. `computations` are what a site must serve."""

    step: Computation
    rounds: int

    @property
    def computations(self) -> tuple[Computation, ...]:
        return start, self.step

    def __call__(self, federation: Federation) -> hs.Tree:
        model: hs.Tree = run(start, federation).result
        for number in range(1, self.rounds + 1):
            model, objective = run(self.step, federation, model, round=number).result
            federation.report({"round": number, "global": {"objective": float(objective)}})
        return model


def main() -> None:
    sites = partition.column(datasets.heart(), split=(1, 0, 0))
    print(newton_round.type_signature, plan(newton_round), sep="\n\n", end="\n\n")
    try:

        @hs.federated_computation
        def forgetful(model: hs.Server[hs.Tree], data: hs.Clients[Dataset]) -> hs.Server[Local]:
            return hs.federated_sum(hs.federated_map(derivatives, (model, data)))

    except hs.HansaError as error:
        print(f"without the broadcast it is no computation at all:\n  {error}\n")

    hospitals = [sites.load(slot) for slot in range(len(sites.sites))]
    _, objective = newton_round(start(hospitals), hospitals)  # on lists: for a notebook, a test, a debugger
    print(f"called on a list of four hospitals: objective {objective:.2f} before the first step")

    newton = hs.simulate(hs.Job("newton", Descent(newton_round, ROUNDS), data="heart"), {"heart": sites}, seed=0)
    gradient = hs.simulate(hs.Job("gradient", Descent(gradient_round, ROUNDS), data="heart"), {"heart": sites}, seed=0)
    pooled = hs.simulate(hs.Job("pooled", Descent(newton_round, 20), data="heart"), {"heart": federated.pool(sites)}, seed=0)
    apart = np.abs(newton.value["w"] - pooled.value["w"]).max()
    best = pooled.metrics[-1]["global"]["objective"]
    figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=120, layout="constrained")
    for label, result in {"gradient: 23 sums leave a hospital": gradient, "Newton: 23 + 529 sums leave a hospital": newton}.items():
        gaps = [record["global"]["objective"] - best for record in result.metrics]
        print(f"{label:40}" + " ".join(f"{gap:9.2g}" for gap in gaps))
        axes.semilogy(range(len(gaps)), np.maximum(gaps, 1e-13), marker="o", label=label)
    print(f"weights after {ROUNDS} rounds differ from 20 rounds on pooled patients by at most {apart:.1g}")
    axes.set(title="Logistic regression over four hospitals", xlabel="round", ylabel="objective above the pooled optimum")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig("custom_algorithm.png", pil_kwargs={"optimize": True})
    print("-> custom_algorithm.png")


if __name__ == "__main__":
    main()
