"""Inline SVG of the study: reliability diagrams and curves over the pixel threshold; each stands alone as a file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.report.charts import ticks
from qanet.benchmarks.report.markup import Safe, tag

_INK, _GRID, _QUIET, _FONT = "#1b2733", "#d9dfe5", "#52606d", "system-ui, sans-serif"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe-Ito
_NAMESPACE = "http://www.w3.org/2000/svg"


def reliability_diagram(title: str, bins: NDArray[np.float64], colour: str = COLOURS[0]) -> Safe:
    """Mean true IoU over mean score, a disc a bin, its area the bin's share; on the diagonal a score tells the truth.

    Args:
        bins: (B, 3) of `qanet.metrics.curves.reliability`: count, mean score, mean true IoU.
    """
    left, top, side = 40, 26, 200
    total = max(float(bins[:, 0].sum()), 1.0)
    parts: list[Safe] = [_text(0, 14, title, weight="600")]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + value * side, top + side - value * side
        parts.append(_line(x, top, x, top + side))
        parts.append(_line(left, y, left + side, y))
        parts.append(_text(x, top + side + 16, f"{value:g}", "middle", _QUIET, 11))
        parts.append(_text(left - 6, y + 4, f"{value:g}", "end", _QUIET, 11))
    parts.append(_line(left, top + side, left + side, top, _QUIET, "5 4"))
    parts.append(_text(left + side / 2, top + side + 32, "mean score", "middle", _QUIET, 11))
    parts.append(_text(left + 4, top + 14, "mean true IoU", "start", _QUIET, 11))
    filled = bins[bins[:, 0] > 0]
    places = [
        (left + float(np.clip(score, 0, 1)) * side, top + side - float(np.clip(truth, 0, 1)) * side, count / total)
        for count, score, truth in filled
    ]
    if len(places) > 1:
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y, _ in places)
        parts.append(tag("polyline", points=points, fill="none", stroke=colour, stroke_width="1.5"))
    for (x, y, share), (count, score, truth) in zip(places, filled):
        hint = tag("title", f"{int(count)} with mean score {score:.3f}, mean true IoU {truth:.3f}")
        radius = _n(max(2.0, 16 * share**0.5))
        parts.append(tag("circle", hint, cx=_n(x), cy=_n(y), r=radius, fill=colour, fill_opacity="0.55"))
    return _svg(title, left + side + 16, top + side + 40, parts)


def curves(title: str, xs: Sequence[float], series: dict[str, Sequence[float]], x_name: str) -> Safe:
    """Percentages over one axis, a line a series with its name at its right end."""
    left, right, top, bottom, width = 44, 300, 26, 220, 400
    values = [100 * value for line in series.values() for value in line if np.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = max((high - low) * 0.15, 0.5)
    low, high = low - room, high + room
    span = (max(xs) - min(xs)) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - min(xs)) / span * (right - left)
        return across, bottom - (100 * y - low) / (high - low) * (bottom - top)

    parts: list[Safe] = [_text(0, 14, title, weight="600")]
    for value in ticks(low, high):
        y = bottom - (value - low) / (high - low) * (bottom - top)
        parts += [_line(left, y, right, y), _text(left - 6, y + 4, f"{value:g}", "end", _QUIET, 11)]
    for x in xs:
        parts.append(_text(at(x, 0)[0], bottom + 16, f"{x:g}", "middle", _QUIET, 11))
    parts.append(_text(right, bottom + 32, x_name, "end", _QUIET, 11))
    ends: list[float] = []
    for number, (name, line) in enumerate(series.items()):
        places = [at(x, y) for x, y in zip(xs, line) if np.isfinite(y)]
        if not places:
            continue
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in places)
        parts.append(tag("polyline", points=points, fill="none", stroke=colour, stroke_width="2"))
        parts += [tag("circle", cx=_n(x), cy=_n(y), r="3", fill=colour) for x, y in places]
        y = places[-1][1]
        while any(abs(y - other) < 14 for other in ends):  # names do not cover each other
            y += 2
        ends.append(y)
        parts.append(_text(right + 8, y + 4, name, fill=colour, weight="600"))
    return _svg(title, width, bottom + 40, parts)


def _svg(title: str, width: float, height: float, parts: Sequence[Safe]) -> Safe:
    return tag(
        "svg",
        tag("title", title),
        *parts,
        xmlns=_NAMESPACE,
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        class_="chart",
        role="img",
        aria_label=title,
        font_family=_FONT,
    )


def _text(
    x: float, y: float, words: str, anchor: str = "start", fill: str = _INK, size: float = 13, weight: str | None = None
) -> Safe:
    return tag("text", words, x=_n(x), y=_n(y), text_anchor=anchor, fill=fill, font_size=size, font_weight=weight)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _GRID, dashes: str | None = None) -> Safe:
    return tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), stroke=colour, stroke_dasharray=dashes)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
