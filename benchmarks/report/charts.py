"""Inline SVG: horizontal bars of percentiles, a scatter of latency against accuracy, a bar of shares.

The charts are drawn 400 units wide and shown at 350 to 500 px, so that their text is 11 to 16 px high everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qanet.benchmarks.report.markup import Safe, tag
from qanet.benchmarks.report.values import colour_of, milliseconds

WIDTH = 400
_SHORT = 6  # characters of a name that fit beside a bar
INK, GRID, QUIET = "#1b2733", "#d9dfe5", "#52606d"


@dataclass(frozen=True)
class Bar:
    """One bar: solid to p50, pale to p90, a line to p99; milliseconds."""

    label: str
    precision: str | None
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Point:
    """One point of the scatter: x in milliseconds, y a fraction with its interval, and whether it is on the front."""

    precision: str
    x: float
    y: float
    name: str = ""
    interval: tuple[float, float] | None = None
    on_front: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`, both inside."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(count, 1)
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> Safe:
    """Bars in named groups over one axis of milliseconds that starts at 0."""
    limit = max((bar.p99 for _, members in groups for bar in members), default=0.0) or 1.0
    is_long = any(len(bar.label) > _SHORT for _, members in groups for bar in members)
    left, right = (6 if is_long else 52), WIDTH - 62
    scale = (right - left) / limit
    parts: list[Safe] = []
    y = 4
    for name, members in groups:
        parts.append(text(0, y + 13, name, weight="600"))
        y += 20
        for bar in members:
            if is_long:  # above the bar: beside it a long name would leave no room
                parts.append(text(0, y + 11, bar.label, fill=QUIET))
                y += 15
            parts += _bar(bar, left, y, scale, "" if is_long else bar.label)
            y += 22
        y += 8
    axis = [
        join_line
        for value in ticks(0, limit)
        for join_line in (
            tag("line", x1=number(left + value * scale), x2=number(left + value * scale), y1=0, y2=y, stroke=GRID),
            text(left + value * scale, y + 16, _tick(value), anchor="middle", fill=QUIET, size=12),
        )
    ]
    parts.append(text(WIDTH, y + 16, "ms", anchor="end", fill=QUIET, size=12))
    return svg(title, y + 24, [*axis, *parts])


def _bar(bar: Bar, left: float, y: float, scale: float, label: str) -> list[Safe]:
    colour = colour_of(bar.precision)
    p50, p90, p99 = (left + value * scale for value in (bar.p50, bar.p90, bar.p99))
    return [
        text(left - 6, y + 12, label, anchor="end", fill=QUIET),
        tag("rect", x=number(left), y=y, width=number(max(p90 - left, 1)), height=16, fill=colour, fill_opacity="0.35"),
        tag("rect", x=number(left), y=y, width=number(max(p50 - left, 1)), height=16, fill=colour),
        tag("line", x1=number(p90), x2=number(p99), y1=y + 8, y2=y + 8, stroke=colour, stroke_width="2"),
        tag("line", x1=number(p99), x2=number(p99), y1=y + 2, y2=y + 14, stroke=colour, stroke_width="2"),
        text(p99 + 6, y + 12, milliseconds(bar.p50)),
    ]


def scatter(title: str, points: Sequence[Point], x_name: str, y_name: str) -> Safe:
    """Latency from 0 to the right, accuracy upwards; the accuracy axis shows the range that is needed."""
    left, right, top, bottom = 56, WIDTH - 14, 30, 270
    x_limit = max(p.x for p in points) * 1.15
    ends = [end for p in points for end in (p.y, *(p.interval or ()))]
    low, high = min(ends), max(ends)
    room = max((high - low) * 0.4, 0.01)
    y_low, y_high = max(0.0, low - room), min(1.0, high + room)

    def at(point: Point) -> tuple[float, float]:
        x = left + point.x / x_limit * (right - left)
        return x, bottom - (point.y - y_low) / (y_high - y_low) * (bottom - top)

    parts: list[Safe] = []
    for value in ticks(0, x_limit):
        x = left + value / x_limit * (right - left)
        parts.append(tag("line", x1=number(x), x2=number(x), y1=top, y2=bottom, stroke=GRID))
        parts.append(text(x, bottom + 18, _tick(value), anchor="middle", fill=QUIET, size=12))
    for value in ticks(y_low, y_high):
        y = bottom - (value - y_low) / (y_high - y_low) * (bottom - top)
        parts.append(tag("line", x1=left, x2=right, y1=number(y), y2=number(y), stroke=GRID))
        parts.append(text(left - 6, y + 4, _tick(value * 100), anchor="end", fill=QUIET, size=12))
    parts.append(text(0, 14, y_name, fill=QUIET))
    parts.append(text(right, bottom + 40, x_name, anchor="end", fill=QUIET))
    front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
    if len(front) > 1:
        path = "M" + " L".join(" ".join(map(number, at(p))) for p in front)
        parts.append(tag("path", d=path, fill="none", stroke=QUIET, stroke_width="1.5", stroke_dasharray="5 4"))
    is_numbered = any((p.name or p.precision) != p.precision for p in points)  # long names would cover each other
    placed = [(x - 8, y - 8, x + 8, y + 8) for x, y in map(at, points)]
    legend_y = bottom + 62
    for index, point in enumerate(points, 1):
        x, y = at(point)
        if point.interval is not None:
            ends_y = [at(replace(point, y=end))[1] for end in point.interval]
            parts.append(
                tag(
                    "line",
                    x1=number(x),
                    x2=number(x),
                    y1=number(ends_y[0]),
                    y2=number(ends_y[1]),
                    stroke=colour_of(point.precision),
                    stroke_width="1.5",
                    stroke_opacity="0.6",
                )
            )
        parts.append(_mark(point.precision, x, y))
        words = f"{point.name or point.precision} {milliseconds(point.x)} ms, {point.y * 100:.1f}%"
        parts.append(_label(str(index) if is_numbered else words, x, y, placed, (left, top, right, bottom)))
        if is_numbered:
            parts.append(text(0, legend_y, f"{index}  {words}"))
            legend_y += 20
    return svg(title, legend_y if is_numbered else bottom + 48, parts)


Box = tuple[float, float, float, float]


def _label(name: str, x: float, y: float, placed: list[Box], frame: Box) -> Safe:
    """A point's name where it covers nothing that was placed before; the box taken joins `placed`."""
    width = 8.1 * len(name)  # bold 13 px in a wide system font
    spots = [(x + 12, y + 5), (x - 12 - width, y + 5), *((x - width / 2, y + dy) for dy in (-14, 24, -32, 42, -50, 60))]
    inside = [(max(frame[0] + 2, min(sx, frame[2] - width)), sy) for sx, sy in spots]
    boxes = [(sx, sy - 13, sx + width, sy + 4) for sx, sy in inside]
    free = [
        i
        for i, box in enumerate(boxes)
        if frame[1] <= box[1] and box[3] <= frame[3] and not any(_overlap(box, other) for other in placed)
    ]
    chosen = free[0] if free else 0
    placed.append(boxes[chosen])
    return text(inside[chosen][0], inside[chosen][1], name, weight="600")


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mark(precision: str, x: float, y: float) -> Safe:
    """A shape beside the colour, for readers who do not see the colour: circle, square, triangle, else a diamond."""
    look = {"fill": colour_of(precision), "stroke": "#ffffff", "stroke_width": "1.5"}
    if precision == "fp32":
        return tag("circle", cx=number(x), cy=number(y), r=7, **look)
    if precision == "fp16":
        return tag("rect", x=number(x - 6.5), y=number(y - 6.5), width=13, height=13, **look)
    if precision == "int8":
        return tag(
            "polygon",
            points=f"{number(x)},{number(y - 8)} {number(x + 8)},{number(y + 6)} {number(x - 8)},{number(y + 6)}",
            **look,
        )
    return tag(
        "polygon",
        points=" ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in ((0, -8), (8, 0), (0, 8), (-8, 0))),
        **look,
    )


def share_bar(title: str, shares: dict[str, float]) -> Safe:
    """One stacked bar of fractions by precision."""
    parts, x = [], 0.0
    for precision, value in shares.items():
        if value > 0:
            parts.append(tag("rect", x=number(x), y=0, width=number(value * 200), height=14, fill=colour_of(precision)))
            x += value * 200
    return tag("svg", tag("title", title), *parts, viewBox="0 0 200 14", class_="share", role="img", aria_label=title)


def svg(title: str, height: float, parts: Sequence[Safe]) -> Safe:
    """A chart WIDTH units wide, with its title for who cannot see it."""
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {WIDTH} {number(height)}",
        class_="chart",
        role="img",
        aria_label=title,
    )


def text(
    x: float, y: float, words: str, anchor: str = "start", fill: str = INK, size: float = 13, weight: str | None = None
) -> Safe:
    """Words in a chart; bold ones with a halo."""
    return tag(
        "text",
        words,
        x=number(x),
        y=number(y),
        text_anchor=anchor,
        fill=fill,
        font_size=size,
        font_weight=weight,
        class_="halo" if weight else None,
    )


def _tick(value: float) -> str:
    return f"{value:g}"


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
