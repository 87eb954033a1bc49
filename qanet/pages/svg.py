"""The elements that charts are made of: SVG tags, text, lines, axes with round numbers, colours.

Charts are 400 units wide and shown 350 to 500 px wide, so that their text of 12 and 13 units stays legible on a phone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

# Okabe and Ito's, told apart with every common form of colour blindness.
COLOURS = {"fp32": "#0072b2", "fp16": "#009e73", "int8": "#d55e00", "bf16": "#56b4e9", "other": "#999999"}
NEUTRAL = "#5f6b76"
INK, GRID, QUIET = "#1b2733", "#d9dfe5", "#52606d"
WIDTH = 400
_NAMESPACE = "http://www.w3.org/2000/svg"


def colour_of(precision: str | None) -> str:
    """The colour of a precision; grey for another name."""
    return COLOURS.get(precision or "", NEUTRAL)


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


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """An SVG element. Children and attributes are escaped unless they are Markup, numbers get two decimals at most,
    None is left out, `class_` is class, and other underscores are hyphens."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join(children))


def _short(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value


def text(
    x: float, y: float, words: str, anchor: str = "start", fill: str = INK, size: float = 13, bold: bool = False
) -> Markup:
    """Words in a chart; bold ones have a white outline, since they may lie over a line."""
    outline = {"font_weight": "600", "paint_order": "stroke", "stroke": "#fff", "stroke_width": 4} if bold else {}
    return element("text", words, x=x, y=y, text_anchor=anchor, fill=fill, font_size=size, **outline)


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID, **attributes: Any) -> Markup:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, stroke=stroke, **attributes)


def path(spots: Sequence[tuple[float, float]], stroke: str, width: float, dashes: str | None = None) -> Markup:
    d = "M" + " L".join(f"{_short(float(x))} {_short(float(y))}" for x, y in spots)
    return element("path", d=d, fill="none", stroke=stroke, stroke_width=width, stroke_dasharray=dashes)


def svg(title: str, height: float, parts: Sequence[Markup], width: float = WIDTH, class_: str = "chart") -> Markup:
    """A chart with its title for readers who cannot see it."""
    return element(
        "svg",
        element("title", title),
        *parts,
        xmlns=_NAMESPACE,
        viewBox=f"0 0 {_short(float(width))} {_short(float(height))}",
        class_=class_,
        role="img",
        aria_label=title,
        font_family="system-ui, sans-serif",
    )


@dataclass(frozen=True)
class Axes:
    """The plotted rectangle in units, and the values (low, high) at its ends."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value lies, in units."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def grid(
        self, xs: Sequence[float], ys: Sequence[float], y_text: Callable[[float], str] = "{:g}".format
    ) -> list[Markup]:
        """Grid lines and the numbers at them."""
        parts = []
        for value in xs:
            x, _ = self.at(value, self.y[0])
            parts.append(line(x, self.top, x, self.bottom))
            parts.append(text(x, self.bottom + 18, f"{value:g}", "middle", QUIET, 12))
        for value in ys:
            _, y = self.at(self.x[0], value)
            parts.append(line(self.left, y, self.right, y))
            parts.append(text(self.left - 6, y + 4, y_text(value), "end", QUIET, 12))
        return parts
