"""Numbers as the report writes them; what is not there reads "not measured"."""

from typing import Any

NOT_MEASURED = "not measured"

# Okabe-Ito: blue, bluish green, vermillion, ... told apart with every common form of colour blindness.
COLOURS = {"fp32": "#0072b2", "fp16": "#009e73", "int8": "#d55e00", "bf16": "#56b4e9", "other": "#999999"}
NARROW_TO_WIDE = ("int8", "fp16", "bf16", "fp32", "other")
NEUTRAL = "#5f6b76"


def milliseconds(value: float | None) -> str:
    """Three significant digits in ms, without the unit and without exponents; four decimals below 0.1."""
    if value is None:
        return NOT_MEASURED
    if 0 < value < 0.0001:
        return "<0.0001"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


def share(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return NOT_MEASURED if value is None else f"{100 * value:.{digits}f}%"


def shares_in_words(shares: dict[str, float]) -> str:
    """Fractions by precision, narrow to wide, without what rounds to nothing."""
    known = [(precision, shares[precision]) for precision in NARROW_TO_WIDE if shares.get(precision, 0) >= 0.005]
    return ", ".join(f"{precision} {value:.0%}" for precision, value in known)


def times(value: float | None) -> str:
    """A speed-up."""
    return NOT_MEASURED if value is None else f"{value:.2f}\u00d7"


def rate(value: float | None) -> str:
    """Items a second."""
    return NOT_MEASURED if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def mebibytes(size_bytes: float | None) -> str:
    """A file's size."""
    if size_bytes is None:
        return NOT_MEASURED
    return f"{size_bytes / 2**20:.1f}" if size_bytes >= 2**20 / 10 else f"{size_bytes / 2**20:.3f}"


def plain(value: Any) -> str:
    """Anything from a manifest on one line."""
    if value is None or value == "" or value == [] or value == {}:
        return NOT_MEASURED
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value)
    return str(value)


def precision_in(label: str) -> str | None:
    """The precision that a variant's label names; None where it names none."""
    return next((word for word in label.split() if word in COLOURS), None)


def label_of(entry: dict[str, Any]) -> str:
    """What a row of the comparison is called."""
    return str(entry.get("label") or entry["precision"])


def colour_of(precision: str | None) -> str:
    """The colour of a precision."""
    return COLOURS.get(precision or "", NEUTRAL)
