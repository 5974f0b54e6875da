"""A metric's curve as inline SVG: readable without a library, at any size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final, NamedTuple

from hansa.record.series import Curve, Points, extremes, lower_is_better, number, site_names

SITE_LINES: Final = 12  # more sites than this are drawn as a band
GLOBAL: Final = "#14213d"
BAND: Final = "#c9d6ea"
PALETTE: Final = (  # distinct on white, and for most colour-blind readers in the first eight
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e0a100",
    "#56b4e9",
    "#8a5a44",
    "#7a7a7a",
    "#5b3fa0",
    "#9acd32",
    "#b2182b",
    "#1b7f8c",
)
_WIDTH, _HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 58, 40, 44


class _Axis(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def site_colours(drawn: Iterable[Curve]) -> dict[str, str]:
    """A colour for each site, the same in every panel; {} when there are too many sites for a line each."""
    names = site_names(drawn)
    return dict(zip(names, PALETTE, strict=False)) if len(names) <= SITE_LINES else {}


def draw(curve: Curve, colours: dict[str, str]) -> str:
    """The curve as an <svg> element: a line a site where `colours` names it, else a band, and the global value on top."""
    x, y = _axes(curve)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(curve.name)} by round">',
        f'<text x="{_LEFT}" y="22" class="title">{escape(curve.name)}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="22" class="hint" text-anchor="end">{_better(curve.name)}</text>',
        *_grid(x, y),
    ]
    if colours:
        for site, points in curve.sites.items():
            parts += _line(points, x, y, colours.get(site, "#999"), 1.6, f"{site}: {number(extremes(curve.name, points).last)}")
    else:
        parts += _band(curve.band(), x, y)
    parts += _line(curve.shared, x, y, GLOBAL, 2.6, "global")
    parts += _last(curve.shared, x, y)
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high, in steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, last + 1)]


def _axes(curve: Curve) -> tuple[_Axis, _Axis]:
    points = [*curve.shared, *(point for line in curve.sites.values() for point in line)]
    rounds = [n for n, _ in points] or [0]
    values = [v for _, v in points if math.isfinite(v)] or [0.0]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or max(abs(high) * 0.1, 0.1)
    # a share stays a share: no axis to 1.04 for an accuracy of 1
    top = 1.0 if high <= 1.0 < high + margin else high + margin
    bottom = 0.0 if low - margin < 0.0 <= low else low - margin
    left, right = min(rounds), max(rounds)
    if left == right:
        left, right = left - 1, right + 1
    return _Axis(left, right, _LEFT, _WIDTH - _RIGHT), _Axis(bottom, top, _HEIGHT - _BOTTOM, _TOP)


def _grid(x: _Axis, y: _Axis) -> Iterator[str]:
    for value in ticks(y.low, y.high):
        at = y.place(value)
        yield f'<path d="M{x.start} {at:.1f}H{x.end}" class="grid"/>'
        yield f'<text x="{x.start - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in ticks(x.low, x.high):
        if value == int(value):
            at = x.place(value)
            yield f'<path d="M{at:.1f} {y.start}v5" class="axis"/>'
            yield f'<text x="{at:.1f}" y="{y.start + 19}" text-anchor="middle">{int(value)}</text>'
    yield f'<path d="M{x.start} {y.start}H{x.end}" class="axis"/>'
    yield f'<text x="{(x.start + x.end) / 2}" y="{_HEIGHT - 6}" text-anchor="middle" class="hint">round</text>'


def _line(points: Points, x: _Axis, y: _Axis, colour: str, width: float, label: str) -> Iterator[str]:
    """The points joined; a value that is not finite leaves a gap, a point without neighbours is a dot."""
    for run in _unbroken(points):
        if len(run) == 1:
            (at, value), title = run[0], f"<title>{escape(label)}</title>"
            yield f'<circle cx="{x.place(at):.1f}" cy="{y.place(value):.1f}" r="{width + 1}" fill="{colour}">{title}</circle>'
        else:
            path = " ".join(f"{x.place(at):.1f},{y.place(value):.1f}" for at, value in run)
            yield f'<polyline points="{path}" stroke="{colour}" stroke-width="{width}"><title>{escape(label)}</title></polyline>'


def _unbroken(points: Iterable[tuple[int, float]]) -> Iterator[Points]:
    run: Points = []
    for point in points:
        if math.isfinite(point[1]):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _band(band: list[tuple[int, float, float]], x: _Axis, y: _Axis) -> Iterator[str]:
    if len(band) > 1:
        upper = [f"{x.place(n):.1f},{y.place(high):.1f}" for n, _, high in band]
        lower = [f"{x.place(n):.1f},{y.place(low):.1f}" for n, low, _ in reversed(band)]
        yield f'<polygon points="{" ".join(upper + lower)}" fill="{BAND}"><title>10–90 % of the sites</title></polygon>'  # noqa: RUF001


def _last(points: Points, x: _Axis, y: _Axis) -> Iterator[str]:
    finite = [point for point in points if math.isfinite(point[1])]
    if finite:
        at, value = finite[-1]
        yield f'<circle cx="{x.place(at):.1f}" cy="{y.place(value):.1f}" r="3.6" fill="{GLOBAL}"/>'
        yield f'<text x="{x.place(at) + 8:.1f}" y="{y.place(value) + 4:.1f}" class="value">{number(value)}</text>'


def _better(name: str) -> str:
    return "lower is better" if lower_is_better(name) else "higher is better"
