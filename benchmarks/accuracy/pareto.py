"""The Pareto front: the variants that no other beats in accuracy without being slower."""

from collections.abc import Sequence
from typing import Any


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, worth) points are not dominated: none other costs as little and is worth as much, one of the two
    strictly. Equal points are all on the front."""
    return [
        not any(
            cost <= own_cost and worth >= own_worth and (cost, worth) != (own_cost, own_worth) for cost, worth in points
        )
        for own_cost, own_worth in points
    ]


def mark_front(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set "pareto" of each entry: whether it is on the front of frame latency (p50) against mIoU; None where either
    was not measured."""
    known = [e for e in entries if (e.get("parser_ms") or {}).get("p50") and e["accuracy"].get("miou") is not None]
    on_front = pareto_front([(e["parser_ms"]["p50"], e["accuracy"]["miou"]) for e in known])
    for entry in entries:
        entry["pareto"] = None
    for entry, front in zip(known, on_front):
        entry["pareto"] = front
    return entries
