"""Preview: a picture of how rows and labels are spread over the sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hansa.core.protocols import FederatedData
from hansa.core.trees import Array
from hansa.data.federated import Summary, describe
from hansa.data.rows import PARTS
from hansa.errors import DataError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PART_COLOURS = ("#1f4e79", "#6fa8dc", "#e69138")
_MOST_LABELS = 20  # more colours than this cannot be told apart


def plot(federated: FederatedData | Summary, path: str | Path) -> Path:
    """The path of a PNG with two panels, a bar a site: rows by part, and the share of each label. Loads each site once.

    Takes a summary as well, for who has described the data already. Without labels there is the first panel alone; labels
    beyond the 19 most frequent are drawn together.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the path does not end in `.png`.
        StorageError: the file cannot be written.
    """
    out = Path(path)
    if out.suffix.lower() != ".png":
        raise DataError("the picture is a PNG", path=str(out), expected="a name that ends in .png")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", extra="plot") from None
    summary = federated if isinstance(federated, Summary) else describe(federated)
    panels = 2 if summary.labels else 1
    width = min(16.0, max(7.0, 2.8 + 0.13 * len(summary.sites)))
    figure = Figure(figsize=(width, 1.2 + 2.9 * panels), dpi=120, layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    _draw_rows(axes[0], summary)
    if summary.labels:
        _draw_labels(axes[1], summary)
    _name_sites(axes[-1], [site.site for site in summary.sites])
    try:
        figure.savefig(out, format="png", metadata={"Software": None})
    except OSError as error:
        raise StorageError(f"the picture cannot be written: {error.strerror}", path=str(out)) from error
    return out


def _draw_rows(axes: Axes, summary: Summary) -> None:
    counts = np.array([[site.rows[name] for name in PARTS] for site in summary.sites]).T
    shown = [(name, rows, colour) for name, rows, colour in zip(PARTS, counts, _PART_COLOURS, strict=True) if rows.any()]
    _stack(axes, [rows for _, rows, _ in shown], [colour for _, _, colour in shown], [name for name, _, _ in shown])
    totals = counts.sum(axis=0)
    if len(totals) <= 30:
        for slot, total in enumerate(totals):
            axes.annotate(f"{total:,}", (slot, total), (0, 2), textcoords="offset points", ha="center", fontsize=7, color="#444444")
    axes.set_ylabel("rows")
    axes.set_ylim(0, 1.12 * max(1, int(totals.max())))
    axes.set_title(
        f"{len(totals):,} sites, {summary.total:,} rows, {totals.min():,} to {totals.max():,} a site"
        f"   (quantity skew {summary.quantity_skew:.2f}, Gini)",
        fontsize=10,
        loc="left",
    )


def _draw_labels(axes: Axes, summary: Summary) -> None:
    ranked = sorted(summary.labels, key=lambda label: -summary.labels[label])
    single = sorted(ranked if len(ranked) <= _MOST_LABELS else ranked[: _MOST_LABELS - 1])
    rest = set(ranked) - set(single)
    rows = [np.array([site.labels.get(label, 0) for site in summary.sites], np.float64) for label in single]
    names = [summary.label_name(label) for label in single]
    if rest:
        rows.append(np.array([sum(site.labels.get(label, 0) for label in rest) for site in summary.sites], np.float64))
        names.append(f"{len(rest)} others")
    total = np.maximum(1, np.sum(rows, axis=0))
    _stack(axes, [some / total for some in rows], _colours(len(single), others=bool(rest)), names)
    axes.set_ylabel("share of labels")
    axes.set_ylim(0, 1)
    axes.set_title(
        f"label skew {summary.label_skew:.2f} (mean total variation distance from all sites together)", fontsize=10, loc="left"
    )


def _colours(count: int, *, others: bool) -> list[Any]:
    import matplotlib as mpl

    table = mpl.colormaps["tab10" if count <= 10 else "tab20"].colors  # type: ignore[attr-defined]  # listed maps have colours
    return [*table[:count], *(["#4d4d4d"] if others else [])]


def _stack(axes: Axes, heights: list[Array], colours: list[Any], names: list[str]) -> None:
    sites = len(heights[0]) if heights else 0
    gap = 0.2 if sites <= 40 else 0.08
    bottom = np.zeros(sites)
    for values, colour, name in zip(heights, colours, names, strict=True):
        if sites <= 150:
            axes.bar(np.arange(sites), values, bottom=bottom, width=1 - gap, color=colour, label=name, linewidth=0)
        else:  # gaps would shimmer where a bar is a pixel or two wide, and a patch a bar is slow
            axes.stairs(
                bottom + values, np.arange(sites + 1) - 0.5, baseline=bottom, fill=True, color=colour, label=name, linewidth=0
            )
        bottom = bottom + values
    axes.spines[["top", "right"]].set_visible(False)
    handles, texts = axes.get_legend_handles_labels()
    columns = 2 if len(names) > 10 else 1
    # From the top as the bars are stacked, beside them: no bar is ever hidden.
    axes.legend(handles[::-1], texts[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, ncols=columns)


def _name_sites(axes: Axes, names: list[str]) -> None:
    axes.set_xlim(-0.6, len(names) - 0.4)
    step = next(k * ten for ten in (1, 10, 100, 1000, 10**4, 10**5) for k in (1, 2, 5) if len(names) <= 50 * k * ten)
    longest = max(len(name) for name in names)
    upright = len(names) * longest > 60
    axes.set_xticks(range(0, len(names), step), [name if len(name) <= 24 else name[:23] + "…" for name in names[::step]])
    axes.tick_params(axis="x", rotation=90 if upright else 0, labelsize=8 if len(names) <= 50 else 7, length=2)
