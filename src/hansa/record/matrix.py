"""A cross-site matrix for people: as tables, as a heat map, as a part of report.html. It is read from matrix.json's content."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

from hansa.errors import MissingExtraError
from hansa.record.series import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Table = tuple[str, list[str], list[list[str]]]
POOLED: Final = "all sites"
_MOST: Final = 4  # metrics that are drawn
_LOW, _HIGH = (0xF3, 0xF6, 0xFA), (0x1F, 0x5F, 0xA8)  # the worst and the best value's colour
_ABSENT: Final = "#e4e4e4"


def tables(matrix: Mapping[str, Any]) -> list[Table]:
    """A table for each metric, a row a model and a column a site; then one of what is missing, and why."""
    found: list[Table] = []
    for metric, higher in matrix["metrics"].items():
        head = ["model", *matrix["sites"], POOLED]
        rows = [
            [model, *(_text(matrix, model, site, metric) for site in matrix["sites"]), _pooled(matrix, model, metric)]
            for model in matrix["models"]
        ]
        found.append((f"{metric} on {matrix['part']} rows, {'higher' if higher else 'lower'} is better", head, rows))
    missing = [[each["model"], each["site"] or "every site", each["code"], each["message"]] for each in matrix["missing"]]
    return found + ([("missing", ["model", "site", "code", "why"], missing)] if missing else [])


def section(matrix: Mapping[str, Any]) -> str:
    """The matrix as HTML: a coloured table a metric, darker where a model does better, and what is missing."""
    parts = []
    for metric, higher in matrix["metrics"].items():
        scale = _Scale.of(matrix, metric, higher=bool(higher))
        head = "".join(f"<th>{escape(name)}</th>" for name in ("model", *matrix["sites"], POOLED))
        body = "".join(_html_row(matrix, model, metric, scale) for model in matrix["models"])
        better = "higher" if higher else "lower"
        parts.append(f'<p class="sub">{escape(metric)} on {escape(matrix["part"])} rows, {better} is better</p>')
        parts.append(f'<div class="scroll"><table class="heat"><tr>{head}</tr>{body}</table></div>')
    if matrix["missing"]:
        rows = "".join(
            f"<tr><td>{escape(each['model'])}</td><td>{escape(each['site'] or 'every site')}</td>"
            f"<td>{escape(each['code'])}: {escape(each['message'] or '')}</td></tr>"
            for each in matrix["missing"]
        )
        head = "<tr><th>model</th><th>site</th><th>why</th></tr>"
        parts.append(f'<p class="sub">Missing</p><div class="text"><table>{head}{rows}</table></div>')
    return "".join(parts)


def heat_map(matrix: Mapping[str, Any]) -> bytes:
    """A PNG with a panel a metric (the first four): models by sites, darker where a model does better; what is missing is hatched.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401  asked first: its parts may be imported already where it is kept out
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="plot") from error
    shown = list(matrix["metrics"].items())[:_MOST]
    columns = min(2, len(shown))
    high = math.ceil(len(shown) / columns)
    wide, tall = 2.2 + 1.05 * (len(matrix["sites"]) + 1), 1.5 + 0.46 * len(matrix["models"])
    figure = Figure(figsize=(wide * columns, tall * high), dpi=130, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(high, columns, squeeze=False).flat)
    for axis, (metric, higher) in zip(axes, shown, strict=False):
        _panel(axis, matrix, metric, higher=bool(higher))
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


class _Scale:
    """Colours of one metric's values: from the worst cell to the best."""

    def __init__(self, worst: float, best: float) -> None:
        self._worst, self._best = worst, best

    @staticmethod
    def of(matrix: Mapping[str, Any], metric: str, *, higher: bool) -> _Scale:
        """The scale over all cells."""
        cells = [_cell(matrix, model, site, metric) for model in matrix["models"] for site in matrix["sites"]]
        known = [value for value in cells if value is not None] or [0.0]
        low, high = min(known), max(known)
        return _Scale(low, high) if higher else _Scale(high, low)

    def share(self, value: float) -> float:
        """0 for the worst value, 1 for the best."""
        apart = self._best - self._worst
        return min(1.0, max(0.0, (value - self._worst) / apart)) if apart else 0.5

    def colour(self, value: float | None) -> str:
        """The background, as #rrggbb."""
        if value is None:
            return _ABSENT
        share = self.share(value)
        return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_LOW, _HIGH, strict=True))

    def ink(self, value: float | None) -> str:
        """The colour of text on it."""
        return "#ffffff" if value is not None and self.share(value) > 0.55 else "#14213d"


def _panel(axis: Axes, matrix: Mapping[str, Any], metric: str, *, higher: bool) -> None:
    from matplotlib.patches import Rectangle

    scale = _Scale.of(matrix, metric, higher=higher)
    sites, models = matrix["sites"], matrix["models"]
    for y, model in enumerate(models):
        values = [_cell(matrix, model, site, metric) for site in sites] + [_number(matrix["pooled"].get(model, {}).get(metric))]
        for x, value in enumerate(values):
            at = x + (0.25 if x == len(sites) else 0.0)  # the pooled column stands apart
            axis.add_patch(
                Rectangle(
                    (at, y),
                    1,
                    1,
                    facecolor=scale.colour(value),
                    edgecolor="white",
                    linewidth=1.5,
                    hatch=None if value is not None else "////",
                )
            )
            told = number(value) if value is not None else _why(matrix, model, sites[x]) if x < len(sites) else ""
            size = 9 if value is not None else 7
            axis.text(at + 0.5, y + 0.5, told, ha="center", va="center", fontsize=size, color=scale.ink(value))
    axis.set_xlim(0, len(sites) + 1.25)
    axis.set_ylim(len(models), 0)
    axis.set_xticks(
        [k + 0.5 for k in range(len(sites))] + [len(sites) + 0.75], [*map(_label, sites), POOLED], rotation=30, ha="right"
    )
    axis.set_yticks([k + 0.5 for k in range(len(models))], list(map(_label, models)))
    axis.tick_params(length=0, labelsize=9, colors="#33415c")
    better = "higher" if higher else "lower"
    axis.set_title(
        f"{metric} on {matrix['part']} rows ({better} is better)", loc="left", fontsize=11, fontweight="bold", color="#14213d"
    )
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)


def _label(name: str) -> str:
    return name.replace("$", r"\$")


def _cell(matrix: Mapping[str, Any], model: str, site: str, metric: str) -> float | None:
    return _number(matrix["cells"].get(model, {}).get(site, {}).get(metric))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _why(matrix: Mapping[str, Any], model: str, site: str) -> str:
    """The code of a cell that is not there; nothing where the metric is only undefined."""
    return next(
        (each["code"] for each in matrix["missing"] if each["model"] == model and each["site"] in (None, site)), "undefined"
    )


def _text(matrix: Mapping[str, Any], model: str, site: str, metric: str) -> str:
    value = _cell(matrix, model, site, metric)
    return number(value) if value is not None else _why(matrix, model, site)


def _pooled(matrix: Mapping[str, Any], model: str, metric: str) -> str:
    value = _number(matrix["pooled"].get(model, {}).get(metric))
    return "–" if value is None else number(value)  # noqa: RUF001


def _html_row(matrix: Mapping[str, Any], model: str, metric: str, scale: _Scale) -> str:
    cells = []
    for site in matrix["sites"]:
        value = _cell(matrix, model, site, metric)
        style = f"background:{scale.colour(value)};color:{scale.ink(value)}"
        cells.append(f'<td style="{style}">{escape(_text(matrix, model, site, metric))}</td>')
    return f"<tr><td>{escape(model)}</td>{''.join(cells)}<td>{_pooled(matrix, model, metric)}</td></tr>"
