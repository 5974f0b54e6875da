"""`python -m benchmarks.page RESULTS.json docs/benchmarks.md`: the tables of the page, and the chart beside it, from results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
TITLES = {
    "W1": "many tiny clients",
    "W2": "few silos with a network",
    "W3": "what a round costs besides training",
    "W3-deployed": "the same over mutual TLS, with server, agents and workers",
    "W4": "start-up",
    "W5": "the weighted mean alone",
    "W6": "a thousand sites on one server",
    "W7": "a federation on one machine, started and idle",
    "W8": "the typed path",
    "W9": "the door for FLARE apps",
}


def main() -> None:
    """Put the figures into the page, between its two marks, and draw the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    workloads = json.loads(options.results.read_text(encoding="utf-8"))["workloads"]
    text = options.page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    options.page.write_text(before + BEGIN + "\n" + tables(workloads) + END + after, encoding="utf-8")
    draw(workloads, options.page.with_suffix(".png"))


def tables(workloads: dict[str, Any]) -> str:
    """One table a workload."""
    parts = []
    for name, measured in workloads.items():
        parts.append(f"\n## {name}: {TITLES[name]}\n\n| figure | target | measured | | baseline |\n|---|---|---|---|---|")
        parts += [_row(figure) for figure in measured["figures"]]
        machine = measured["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        parts.append(
            f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB, {machine['system']}; {versions}. "
            f"Measured {measured['measured']}, load at the start {machine['load'][0]:g}.\n"
        )
    return "\n".join(parts)


def _row(figure: dict[str, Any]) -> str:
    sign = {"<=": "at most", ">=": "at least"}[figure["sense"]]
    target = "" if figure["target"] is None else f"{sign} {figure['target']:g}"
    verdict = {True: "met", False: "**missed**", None: ""}[figure["met"]]
    return f"| {figure['name']} | {target} | {figure['value']:.3g} {figure['unit']} | {verdict} | {figure['baseline']} |"


def draw(workloads: dict[str, Any], path: Path) -> None:
    """CPU a round of the first workload, and speed of the mean, as bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rounds = workloads["W1"]["figures"][0]["details"]["per round"]
    _bars(left, {name: cost["cpu_ms"] for name, cost in rounds.items()}, "W1: CPU ms a round (less is better)")
    _bars(right, workloads["W5"]["figures"][0]["details"]["GB per CPU s"], "W5: GB a CPU second (more is better)")
    figure.savefig(path, dpi=130)


def _bars(axes: Any, values: dict[str, float], title: str) -> None:
    names = [name.split(",")[0] if name.startswith("plain") else name.removesuffix(", float32") for name in values]
    colours = ["#9aa5ab" if name.startswith(("plain", "torch add_")) else "#00897b" for name in values]
    bars = axes.barh(names, list(values.values()), color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
