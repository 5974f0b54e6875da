"""What do the patients of four hospitals look like together? Nine analyses, of which only counts, sums and ends leave a hospital.

python analytics.py   (seconds; the data comes with Hansa)

Each analysis is a typed computation over numbers at the sites; a function says which numbers of a hospital's patients are meant.
The same job runs in a deployed federation. Beside each answer stands what the pooled patients would have given.
"""

import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import hansa as hs
from hansa import analytics
from hansa.core.plan import plan
from hansa.core.protocols import Dataset
from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.document import planned
from hansa.learning import once

heart = datasets.heart()
AGE, CHOLESTEROL = heart.features.index("age"), heart.features.index("chol")
EDGES = list(range(20, 85, 5))
LEVELS = [0.25, 0.5, 0.75]
ROUNDS = 2 if "--small" in sys.argv else 4


def age(data: Dataset) -> Array:
    return np.asarray(data.x[:, AGE])


def cholesterol(data: Dataset) -> Array:
    return np.asarray(data.x[:, CHOLESTEROL])  # nan where it was not measured: left out


def record(data: Dataset) -> Array:
    """Each patient's features as one text: patients who are alike in all of them cannot be told apart."""
    return np.array([" ".join(f"{value:g}" for value in row) for row in data.x])


def analysis(of: Callable[[Dataset], Array], what: Callable[..., Any], name: str) -> Any:
    """The computation that asks each hospital for its numbers, and analyses them."""

    def ask(data: hs.Clients[Dataset]) -> Any:
        return what(hs.federated_map(of, data))

    ask.__name__ = name
    return hs.federated_computation(ask)


def pooled_quantiles(x: Array) -> Array:
    ordered = np.sort(x)
    return np.array([ordered[int(np.ceil(q * len(x))) - 1] for q in LEVELS])


QUESTIONS: dict[str, tuple[Any, Callable[[Array], Any], Callable[[Dataset], Array]]] = {
    "patients": (analytics.count, len, age),
    "cholesterol measured": (analytics.count, len, cholesterol),
    "sum of ages": (analytics.sum, lambda x: x.sum(), age),
    "mean age": (analytics.mean, np.mean, age),
    "variance of age": (analytics.variance, np.var, age),
    "youngest": (analytics.min, np.min, age),
    "oldest": (analytics.max, np.max, age),
    "ages by five years": (analytics.histogram(EDGES), lambda x: np.histogram(x, EDGES)[0], age),
    "quartiles of cholesterol": (analytics.quantiles(LEVELS, rounds=ROUNDS), pooled_quantiles, cholesterol),
}


def main() -> None:
    hospitals = partition.column(heart, split=(1, 0, 0))
    answers: dict[str, Any] = {}
    for question, (what, pooled, of) in QUESTIONS.items():
        job = hs.Job("heart", once(analysis(of, what, question.replace(" ", "_"))), data="heart")
        answers[question] = answer = hs.simulate(job, {"heart": hospitals}, seed=0).value
        rows = of(heart).astype(np.float64)
        expected = pooled(rows[~np.isnan(rows)])
        print(f"{question:26}{np.array2string(np.asarray(answer), precision=3, max_line_width=100):62}", end="")
        print(f" off by {np.abs(np.asarray(answer, float) - np.asarray(expected, float)).max():.1g}")

    people = hs.Job("heart", once(analysis(record, analytics.distinct(np.str_), "different_patients")), data="heart")
    found = hs.simulate(people, {"heart": hospitals}, seed=0).value
    error = analytics.standard_error(12)
    print(f"{'different patients':26}{found:.0f} of {len(set(record(heart)))}, standard error {100 * error:.1f} %")
    print("\nwhat a hospital is asked for the quartiles of its cholesterol values:\n")
    print(planned(plan(analysis(cholesterol, analytics.quantiles(LEVELS, rounds=2), "quartiles"))))
    draw(answers["ages by five years"], answers["quartiles of cholesterol"])
    print("-> analytics.png")


def draw(ages: Array, quartiles: Array) -> None:
    """The histogram of all hospitals, and how the quartiles come nearer round by round."""
    rows = cholesterol(heart).astype(np.float64)
    rows = rows[~np.isnan(rows)]
    exact, span = pooled_quantiles(rows), rows.max() - rows.min()
    hospitals = partition.column(heart, split=(1, 0, 0))
    values = [cholesterol(hospitals.load(slot)) for slot in range(len(hospitals.sites))]
    figure, (bars, lines) = plt.subplots(1, 2, figsize=(9.5, 3.8), dpi=110, layout="constrained")
    bars.bar(EDGES[:-1], ages, width=5, align="edge", edgecolor="white")
    bars.set(title="Ages of the patients of four hospitals", xlabel="age", ylabel="patients")
    steps = range(1, 6)
    for k, level in enumerate(LEVELS):
        off = [analytics.quantiles(LEVELS, rounds=n, bins=16)(values)[k] - exact[k] for n in steps]  # called on a list: no job
        lines.semilogy(steps, np.maximum(off, 1e-12), marker="o", label=f"{level:.0%} quantile: {quartiles[k]:.0f}")
    lines.semilogy(steps, [span / 16**n for n in steps], "k--", label="the stated bound")
    lines.set(title="Cholesterol: error of a quartile, 16 bins a round", xlabel="rounds", ylabel="mg/dl above the pooled quartile")
    lines.set_xticks(steps)
    lines.legend()
    figure.savefig("analytics.png", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
