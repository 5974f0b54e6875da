"""curves.png: the same curves, drawn by matplotlib where it is installed."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hansa.errors import MissingExtraError
from hansa.record.series import Curve, curves, extremes, number
from hansa.record.svg import BAND, GLOBAL, PALETTE, site_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = tuple[str, Sequence[Mapping[str, Any]]]  # its label, and its records


def render(runs: Sequence[Run]) -> bytes:
    """A PNG with one panel a metric. One run: its sites and the global value; several: a line for each run's global value.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401  asked first: its parts may be imported already where it is kept out

        # the Figure alone: pyplot would choose a backend and keep global state
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="plot") from error
    panels = _panels(runs)
    # of one run the sites are shown, of several only the global values
    colours = site_colours(lines[0][1] for lines in panels.values()) if len(runs) == 1 else None
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    height = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=((5.0 if columns == 3 else 6.0) * columns + 1.6, 3.9 * height + 0.5), dpi=130, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.14)
    FigureCanvasAgg(figure)
    figure.suptitle(
        runs[0][0] if len(runs) == 1 else "Global model, by run", x=0.012, ha="left", fontsize=14, fontweight="bold", color=GLOBAL
    )
    axes: list[Axes] = list(figure.subplots(height, columns, squeeze=False).flat)
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        _panel(axis, name, lines, colours)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    found = {str(h.get_label()): h for axis in axes for h in axis.get_legend_handles_labels()[0]}
    if "global" in found:
        found = {"global": found["global"], **found}
    if found:
        figure.legend(list(found.values()), list(found), loc="outside right center", frameon=False, fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _panels(runs: Sequence[Run]) -> dict[str, list[tuple[str, Curve]]]:
    panels: dict[str, list[tuple[str, Curve]]] = {}
    for label, records in runs:
        for curve in curves(records):
            panels.setdefault(curve.name, []).append((label, curve))
    return panels


def _panel(axis: Axes, name: str, lines: list[tuple[str, Curve]], colours: Mapping[str, str] | None) -> None:
    if colours is not None:
        _one_run(axis, lines[0][1], colours)
    else:
        for k, (label, curve) in enumerate(lines):
            _plot(axis, curve.shared, label, PALETTE[k % len(PALETTE)], 2.2)
    axis.set_title(
        "/\n".join(name.rsplit("/", 1)), loc="left", fontsize=12, fontweight="bold", color=GLOBAL
    )  # a measured path in two lines
    axis.set_xlabel("round", color="#5c677d")
    axis.locator_params(axis="x", integer=True)
    axis.grid(axis="y", color="#edf0f4")
    axis.set_axisbelow(True)
    axis.tick_params(colors="#5c677d", length=3)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#aab3c2")


def _one_run(axis: Axes, curve: Curve, colours: Mapping[str, str]) -> None:
    if colours:
        for site in (name for name in colours if name in curve.sites):
            _plot(axis, curve.sites[site], site, colours[site], 1.3)
    elif band := curve.band():
        rounds, low, high = zip(*band, strict=True)
        axis.fill_between(rounds, low, high, color=BAND, linewidth=0, label="10–90 % of sites")  # noqa: RUF001
    if curve.shared:
        _plot(axis, curve.shared, "global", GLOBAL, 2.4)
        last = extremes(curve.name, curve.shared).last
        if math.isfinite(last):
            axis.annotate(
                number(last), (curve.shared[-1][0], last), xytext=(6, 0), textcoords="offset points", va="center", fontweight="bold"
            )


def _plot(axis: Axes, points: list[tuple[int, float]], label: str, colour: str, width: float) -> None:
    xs, ys = [n for n, _ in points], [v for _, v in points]
    marker = "o" if len(points) == 1 else None
    # a label that begins with "_" would be left out of the legend
    axis.plot(
        xs, ys, color=colour, linewidth=width, marker=marker, markersize=4, label=label.replace("$", r"\$").lstrip("_") or label
    )
