"""The charts of every page, as inline SVG; each also stands alone as an .svg file.

Precisions differ in colour and, for readers who do not see it, in shape or dashes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from qanet.pages.numbers import milliseconds
from qanet.pages.svg import INK, QUIET, WIDTH, Axes, colour_of, element, line, path, svg, text, ticks

_SHORT = 6  # characters of a name that fit beside a bar
_BOLD_EM = 8.1  # width of a bold character of 13 units in a wide system font
_DASHES = (None, "7 4", "2 3", "9 3 2 3")
_BINS = 48
_ROW = 54  # height of a histogram


@dataclass(frozen=True)
class Bar:
    """One bar: solid to p50, pale to p90, a line to p99; milliseconds."""

    label: str
    precision: str | None
    p50: float
    p90: float
    p99: float

    @property
    def end(self) -> float:
        """The longest of the three: a p99 that was not measured is 0."""
        return max(self.p50, self.p90, self.p99)


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> Markup:
    """Bars in named groups over one axis of milliseconds that starts at 0."""
    limit = max((bar.end for _, members in groups for bar in members), default=0.0) or 1.0
    is_long = any(len(bar.label) > _SHORT for _, members in groups for bar in members)
    left, right = (6 if is_long else 52), WIDTH - 62
    scale = (right - left) / limit
    parts: list[Markup] = []
    y = 4
    for name, members in groups:
        parts.append(text(0, y + 13, name, bold=True))
        y += 20
        for bar in members:
            if is_long:  # above the bar: a long name beside it would leave no room
                parts.append(text(0, y + 11, bar.label, fill=QUIET))
                y += 15
            colour = colour_of(bar.precision)
            p50, p90, p99 = (left + value * scale for value in (bar.p50, bar.p90, bar.end))
            box = {"x": left, "y": y, "height": 16, "fill": colour}
            parts += [
                text(left - 6, y + 12, "" if is_long else bar.label, "end", QUIET),
                element("rect", width=max(p90 - left, 1), fill_opacity=0.35, **box),
                element("rect", width=max(p50 - left, 1), **box),
                line(p90, y + 8, p99, y + 8, colour, stroke_width=2),
                line(p99, y + 2, p99, y + 14, colour, stroke_width=2),
                text(p99 + 6, y + 12, milliseconds(bar.p50)),
            ]
            y += 22
        y += 8
    axis = []
    for value in ticks(0, limit):
        x = left + value * scale
        axis += [line(x, 0, x, y), text(x, y + 16, f"{value:g}", "middle", QUIET, 12)]
    parts.append(text(WIDTH, y + 16, "ms", "end", QUIET, 12))
    return svg(title, y + 24, [*axis, *parts])


@dataclass(frozen=True)
class Point:
    """A point of a scatter.

    Attributes:
        precision: its colour and shape.
        x: milliseconds.
        y: a fraction.
        name: written beside it; default: the precision.
        interval: ends of the 95% interval of y.
        on_front: whether it is on the Pareto front.
    """

    precision: str
    x: float
    y: float
    name: str = ""
    interval: tuple[float, float] | None = None
    on_front: bool = False


def scatter(title: str, points: Sequence[Point], x_name: str, y_name: str) -> Markup:
    """Milliseconds from 0 to the right, percent upwards; the percent axis spans the range that is needed."""
    ends = [end for p in points for end in (p.y, *(p.interval or ()))]
    low, high = min(ends), max(ends)
    room = max((high - low) * 0.4, 0.01)
    x_range, y_range = (0.0, max(p.x for p in points) * 1.15), (max(0.0, low - room), min(1.0, high + room))
    axes = Axes(56, WIDTH - 14, 30, 270, x_range, y_range)
    parts = axes.grid(ticks(*x_range), ticks(*y_range), lambda value: f"{value * 100:g}")
    parts.append(text(0, 14, y_name, fill=QUIET))
    parts.append(text(axes.right, axes.bottom + 40, x_name, "end", QUIET))
    front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
    if len(front) > 1:
        parts.append(path([axes.at(p.x, p.y) for p in front], QUIET, 1.5, "5 4"))
    is_numbered = any((p.name or p.precision) != p.precision for p in points)  # long names would cover each other
    placed = [(x - 8, y - 8, x + 8, y + 8) for x, y in (axes.at(p.x, p.y) for p in points)]
    legend_y = axes.bottom + 62
    for index, point in enumerate(points, 1):
        x, y = axes.at(point.x, point.y)
        if point.interval is not None:
            y0, y1 = (axes.at(point.x, end)[1] for end in point.interval)
            parts.append(line(x, y0, x, y1, colour_of(point.precision), stroke_width=1.5, stroke_opacity=0.6))
        parts.append(_mark(point.precision, x, y))
        words = f"{point.name or point.precision} {milliseconds(point.x)} ms, {point.y * 100:.1f}%"
        parts.append(_label(str(index) if is_numbered else words, x, y, placed, axes))
        if is_numbered:
            parts.append(text(0, legend_y, f"{index}  {words}"))
            legend_y += 20
    return svg(title, legend_y if is_numbered else axes.bottom + 48, parts)


_Box = tuple[float, float, float, float]


def _label(name: str, x: float, y: float, placed: list[_Box], axes: Axes) -> Markup:
    """A point's name where it covers nothing that was placed before; its box joins `placed`."""
    width = _BOLD_EM * len(name)
    spots = [(x + 12, y + 5), (x - 12 - width, y + 5), *((x - width / 2, y + dy) for dy in (-14, 24, -32, 42, -50, 60))]
    inside = [(max(axes.left + 2, min(sx, axes.right - width)), sy) for sx, sy in spots]
    boxes = [(sx, sy - 13, sx + width, sy + 4) for sx, sy in inside]
    free = [
        i
        for i, box in enumerate(boxes)
        if axes.top <= box[1] and box[3] <= axes.bottom and not any(_overlap(box, other) for other in placed)
    ]
    chosen = free[0] if free else 0
    placed.append(boxes[chosen])
    return text(*inside[chosen], name, bold=True)


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mark(precision: str, x: float, y: float) -> Markup:
    """Circle, square or triangle by precision, else a diamond."""
    look = {"fill": colour_of(precision), "stroke": "#ffffff", "stroke_width": 1.5}
    if precision == "fp32":
        return element("circle", cx=x, cy=y, r=7, **look)
    if precision == "fp16":
        return element("rect", x=x - 6.5, y=y - 6.5, width=13, height=13, **look)
    corners = ((0, -8), (8, 6), (-8, 6)) if precision == "int8" else ((0, -8), (8, 0), (0, 8), (-8, 0))
    return element("polygon", points=" ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners), **look)


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y), x ascending.

    Attributes:
        words: its line in the legend; empty: none.
    """

    colour: str
    points: Sequence[tuple[float, float]]
    words: str = ""


def curves(title: str, drawn: Sequence[Curve], x_name: str, y_name: str, from_zero: bool = True) -> Markup:
    """Curves with their legend below; axes start at 0, or span the values alone. Points that are not finite are left
    out."""
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points if math.isfinite(y)] or [0.0, 1.0]
    if from_zero:
        x_range, y_range = (0.0, max(xs) * 1.03 or 1.0), (0.0, max(ys) * 1.08 or 1.0)
    else:
        room = max((max(ys) - min(ys)) * 0.15, 0.5)
        x_range, y_range = (min(xs), max(max(xs), min(xs) + 1e-9)), (min(ys) - room, max(ys) + room)
    axes = Axes(56, WIDTH - 14, 30, 250, x_range, y_range)
    parts = [text(0, 14, y_name, fill=QUIET), *axes.grid(ticks(*x_range), ticks(*y_range))]
    parts.append(text(axes.right, axes.bottom + 38, x_name, "end", QUIET))
    seen: dict[str, int] = {}
    legend_y = axes.bottom + (62 if any(curve.words for curve in drawn) else 46)
    for curve in drawn:
        dashes = _DASHES[seen.get(curve.colour, 0) % len(_DASHES)]
        seen[curve.colour] = seen.get(curve.colour, 0) + 1
        spots = [axes.at(x, y) for x, y in curve.points if math.isfinite(y)]
        if spots:
            parts.append(path(spots, curve.colour, 2.5, dashes))
        parts += [element("circle", cx=x, cy=y, r=3.5, fill=curve.colour) for x, y in spots]
        if curve.words:
            look = {"stroke_width": 2.5, "stroke_dasharray": dashes}
            parts.append(line(0, legend_y - 4, 34, legend_y - 4, curve.colour, **look))
            parts.append(text(42, legend_y, curve.words))
            legend_y += 20
    return svg(title, legend_y, parts)


def distributions(title: str, rows: Sequence[tuple[str, str | None, Sequence[float]]]) -> Markup:
    """Histograms of (name, precision, milliseconds) over one axis, with a line at each median; the slowest percent is
    cut off and counted beside it."""
    right = WIDTH - 4
    low = min(float(np.min(samples)) for _, _, samples in rows)
    high = max(float(np.percentile(samples, 99)) for _, _, samples in rows)
    room = max((high - low) * 0.04, high * 0.01, 1e-6)
    low, high = max(0.0, low - room), high + room
    base = len(rows) * _ROW

    def at(value: float) -> float:
        return (value - low) / (high - low) * right

    parts = [line(at(value), 0, at(value), base) for value in ticks(low, high)]
    for index, (name, precision, samples) in enumerate(rows):
        values = np.asarray(samples, np.float64)
        counts, edges = np.histogram(values, _BINS, (low, high))
        foot, width = index * _ROW + _ROW - 4, right / _BINS
        for bin_, count in enumerate(counts.tolist()):
            if count:
                height = count / max(int(counts.max()), 1) * 28
                box = {"x": bin_ * width, "y": foot - height, "width": width - 0.5, "height": height}
                parts.append(element("rect", fill=colour_of(precision), fill_opacity=0.75, **box))
        median, beyond = float(np.median(values)), int((values > edges[-1]).sum())
        parts.append(line(at(median), foot - 30, at(median), foot, INK))
        words = f"{name}: p50 {milliseconds(median)} ms of {len(values)}" + (f", {beyond} beyond" if beyond else "")
        parts.append(text(0, index * _ROW + 16, words, bold=True))
    for value in ticks(low, high):
        anchor = "start" if at(value) < 16 else "end" if at(value) > WIDTH - 40 else "middle"
        parts.append(text(at(value), base + 16, f"{value:g}", anchor, QUIET, 12))
    parts.append(text(WIDTH, base + 34, "ms", "end", QUIET, 12))
    return svg(title, base + 40, parts)


def share_bar(title: str, shares: dict[str, float]) -> Markup:
    """One stacked bar of fractions by precision."""
    parts, x = [], 0.0
    for precision, value in shares.items():
        if value > 0:
            parts.append(element("rect", x=x, y=0, width=value * 200, height=14, fill=colour_of(precision)))
            x += value * 200
    return svg(title, 14, parts, width=200, class_="share")


def reliability_diagram(title: str, bins: ArrayLike, colour: str) -> Markup:
    """Mean true value over mean score, a disc per bin whose area is the bin's share; a true score lies on the diagonal.

    Args:
        bins: (B, 3) of `qanet.metrics.measures.reliability`: count, mean score, mean true IoU.
    """
    table: NDArray[np.float64] = np.asarray(bins, np.float64)
    filled = table[table[:, 0] > 0]
    total = max(float(table[:, 0].sum()), 1.0)
    axes = Axes(40, 240, 26, 226, (0.0, 1.0), (0.0, 1.0))
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [text(0, 14, title, bold=True), *axes.grid(quarters, quarters)]
    parts.append(line(axes.left, axes.bottom, axes.right, axes.top, QUIET, stroke_dasharray="5 4"))
    parts.append(text(140, axes.bottom + 34, "mean score", "middle", QUIET, 12))
    parts.append(text(44, axes.top + 14, "mean true IoU", fill=QUIET, size=12))
    spots = [axes.at(float(np.clip(score, 0, 1)), float(np.clip(truth, 0, 1))) for _, score, truth in filled]
    if len(spots) > 1:
        parts.append(path(spots, colour, 1.5))
    for (x, y), (count, score, truth) in zip(spots, filled):
        hint = element("title", f"{int(count)} with mean score {score:.3f}, mean true IoU {truth:.3f}")
        radius = max(2.0, 16 * (count / total) ** 0.5)
        parts.append(element("circle", hint, cx=x, cy=y, r=radius, fill=colour, fill_opacity=0.55))
    return svg(title, axes.bottom + 44, parts, width=256)


@dataclass(frozen=True)
class Opposed:
    """A row of two bars that start in the middle: values, and the words at their ends."""

    name: str
    colour: str
    values: tuple[float, float]  # to the left, to the right; negative ones are drawn pale
    words: tuple[str, str]


def opposed_bars(title: str, rows: Sequence[Opposed], names: tuple[str, str]) -> Markup:
    """Two quantities per row, each with an axis of its own; `names` are those of the left and the right one."""
    middle, reach = WIDTH / 2, WIDTH / 2 - 52
    limits = [max((abs(row.values[side]) for row in rows), default=0.0) or 1.0 for side in (0, 1)]
    parts = [text(middle - 8, 14, names[0], "end", QUIET, 12), text(middle + 8, 14, names[1], fill=QUIET, size=12)]
    y = 24
    for row in rows:
        parts.append(text(0, y + 12, row.name))
        left, right = (reach * abs(value) / limit for value, limit in zip(row.values, limits))
        pale = [None if value >= 0 else 0.35 for value in row.values]
        box = {"y": y + 19, "height": 12, "fill": row.colour}
        parts += [
            element("rect", x=middle - left, width=left, fill_opacity=pale[0], **box),
            element("rect", x=middle, width=right, fill_opacity=pale[1], **box),
            text(middle - left - 4, y + 29, row.words[0], "end", QUIET, 12),
            text(middle + right + 4, y + 29, row.words[1], fill=QUIET, size=12),
        ]
        y += 40
    parts.append(line(middle, 20, middle, y, "#888888"))
    return svg(title, y + 4, parts)
