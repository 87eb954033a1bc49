"""Numbers as the pages write them; a value that is None reads "not measured"."""

from typing import Any

NOT_MEASURED = "not measured"


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


def times(value: float | None) -> str:
    """A ratio, such as a speed-up."""
    return NOT_MEASURED if value is None else f"{value:.2f}\u00d7"


def rate(value: float | None) -> str:
    """Items per second."""
    return NOT_MEASURED if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def tenths(value: float | None) -> str:
    """A number with one decimal."""
    return NOT_MEASURED if value is None else f"{value:.1f}"


def mebibytes(size_bytes: float | None) -> str:
    """A file's size in MiB, without the unit."""
    if size_bytes is None:
        return NOT_MEASURED
    return f"{size_bytes / 2**20:.1f}" if size_bytes >= 2**20 / 10 else f"{size_bytes / 2**20:.3f}"


def plain(value: Any) -> str:
    """Any JSON value on one line."""
    if value is None or value == "" or value == [] or value == {}:
        return NOT_MEASURED
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value)
    return str(value)
