"""Inline SVG of curves: latency over people or over the image's area, and distributions as rows of histograms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qanet.benchmarks.report.charts import GRID, QUIET, WIDTH, number, svg, text, ticks
from qanet.benchmarks.report.markup import Safe, tag
from qanet.benchmarks.report.values import colour_of, milliseconds

_DASHES = (None, "7 4", "2 3", "9 3 2 3")  # curves of one colour are told apart by their dashes
_BINS = 48
_ROW = 54  # units of height a distribution takes


@dataclass(frozen=True)
class Curve:
    """A named curve: x ascending, y in milliseconds."""

    name: str
    precision: str | None
    points: Sequence[tuple[float, float]]


def curves(title: str, drawn: Sequence[Curve], x_name: str) -> Safe:
    """Curves over axes that start at 0, their names in a legend below."""
    left, right, top, bottom = 56, WIDTH - 14, 30, 250
    x_limit = max(x for curve in drawn for x, _ in curve.points) * 1.03 or 1.0
    y_limit = max(y for curve in drawn for _, y in curve.points) * 1.08 or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_limit * (right - left), bottom - y / y_limit * (bottom - top)

    parts: list[Safe] = [text(0, 14, "p50 ms a frame", fill=QUIET)]
    for value in ticks(0, x_limit):
        x, _ = at(value, 0)
        parts.append(tag("line", x1=number(x), x2=number(x), y1=top, y2=bottom, stroke=GRID))
        parts.append(text(x, bottom + 18, f"{value:g}", anchor="middle", fill=QUIET, size=12))
    for value in ticks(0, y_limit):
        _, y = at(0, value)
        parts.append(tag("line", x1=left, x2=right, y1=number(y), y2=number(y), stroke=GRID))
        parts.append(text(left - 6, y + 4, f"{value:g}", anchor="end", fill=QUIET, size=12))
    parts.append(text(right, bottom + 38, x_name, anchor="end", fill=QUIET))
    seen: dict[str, int] = {}
    legend_y = bottom + 62
    for curve in drawn:
        colour, dash = colour_of(curve.precision), _dash(curve, seen)
        spots = [at(x, y) for x, y in curve.points]
        path = "M" + " L".join(f"{number(x)} {number(y)}" for x, y in spots)
        parts.append(tag("path", d=path, fill="none", stroke=colour, stroke_width="2.5", stroke_dasharray=dash))
        parts += [tag("circle", cx=number(x), cy=number(y), r=3.5, fill=colour) for x, y in spots]
        line = {"y1": legend_y - 4, "y2": legend_y - 4, "stroke": colour, "stroke_width": "2.5"}
        parts.append(tag("line", x1=0, x2=34, stroke_dasharray=dash, **line))
        parts.append(
            text(42, legend_y, f"{curve.name}: {milliseconds(curve.points[-1][1])} ms at {curve.points[-1][0]:.3g}")
        )
        legend_y += 20
    return svg(title, legend_y, parts)


def _dash(curve: Curve, seen: dict[str, int]) -> str | None:
    colour = colour_of(curve.precision)
    seen[colour] = seen.get(colour, -1) + 1
    return _DASHES[seen[colour] % len(_DASHES)]


def distributions(title: str, rows: Sequence[tuple[str, str | None, Sequence[float]]]) -> Safe:
    """A histogram a row over one axis of milliseconds, with a tick at each median; the slowest percent is cut off and
    counted beside it."""
    left, right = 0, WIDTH - 4
    low = min(float(np.min(samples)) for _, _, samples in rows)
    high = max(float(np.percentile(samples, 99)) for _, _, samples in rows)
    room = max((high - low) * 0.04, high * 0.01, 1e-6)
    low, high = max(0.0, low - room), high + room
    parts: list[Safe] = []
    for index, (name, precision, samples) in enumerate(rows):
        parts += _histogram(name, precision, np.asarray(samples, np.float64), index * _ROW, (left, right), (low, high))
    base = len(rows) * _ROW
    for value in ticks(low, high):
        x = left + (value - low) / (high - low) * (right - left)
        parts.insert(0, tag("line", x1=number(x), x2=number(x), y1=0, y2=base, stroke=GRID))
        anchor = "start" if x < 16 else "end" if x > WIDTH - 40 else "middle"
        parts.append(text(x, base + 16, f"{value:g}", anchor=anchor, fill=QUIET, size=12))
    parts.append(text(WIDTH, base + 34, "ms", anchor="end", fill=QUIET, size=12))
    return svg(title, base + 40, parts)


def _histogram(
    name: str,
    precision: str | None,
    samples: np.ndarray,
    y: float,
    x_range: tuple[float, float],
    values: tuple[float, float],
) -> list[Safe]:
    """One row: the name above, bars below, the median as a line."""
    left, right = x_range
    low, high = values
    counts, edges = np.histogram(samples, _BINS, values)
    tallest, colour, base = max(int(counts.max()), 1), colour_of(precision), y + _ROW - 4
    width = (right - left) / _BINS
    parts = [
        tag(
            "rect",
            x=number(left + i * width),
            y=number(base - count / tallest * 28),
            width=number(width - 0.5),
            height=number(count / tallest * 28),
            fill=colour,
            fill_opacity="0.75",
        )
        for i, count in enumerate(counts.tolist())
        if count
    ]
    median = float(np.median(samples))
    x = left + (median - low) / (high - low) * (right - left)
    parts.append(tag("line", x1=number(x), x2=number(x), y1=number(base - 30), y2=number(base), stroke="#1b2733"))
    beyond = int((samples > edges[-1]).sum())
    words = f"{name}: p50 {milliseconds(median)} ms of {len(samples)}" + (f", {beyond} beyond" if beyond else "")
    return [*parts, text(0, y + 16, words, weight="600")]
