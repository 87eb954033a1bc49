"""One row a piece: its median, the bytes it must move, the multiply-adds it must do, the floor of the two, how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qanet.benchmarks.harness import Session
from qanet.benchmarks.statistics import summarize


@dataclass(frozen=True)
class Piece:
    """What a piece cannot do without.

    Attributes:
        target: the name of the target that times it.
        bytes_moved: read and written at least once.
        multiply_adds: 0 where the bytes decide.
        precision: whose rate of multiply-adds counts.
    """

    target: str
    bytes_moved: float
    multiply_adds: float = 0.0
    precision: str = ""
    note: str = ""


def floor_ms(piece: Piece, bytes_per_second: float, rates: Mapping[str, float]) -> tuple[float, str]:
    """Milliseconds that the machine needs at least, and whether "bytes" or "multiply-adds" decide."""
    by_bytes = piece.bytes_moved / bytes_per_second * 1e3
    rate = rates.get(piece.precision)
    by_products = piece.multiply_adds / rate * 1e3 if rate and piece.multiply_adds else 0.0
    return (by_products, "multiply-adds") if by_products > by_bytes else (by_bytes, "bytes")


def rows_of(
    pieces: Sequence[Piece], session: Session, bytes_per_second: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Plain data a piece: target, latency_ms, bytes_moved, multiply_adds, floor_ms, floor_by, times_floor, note."""
    measured = {m.target.name: m for m in session.measurements}
    rows = []
    for piece in pieces:
        measurement = measured.get(piece.target)
        latency = summarize(measurement.samples_ms) if measurement else {"n": 0}
        floor, by = floor_ms(piece, bytes_per_second, rates)
        rows.append(
            {
                "target": piece.target,
                "latency_ms": latency,
                "bytes_moved": round(piece.bytes_moved),
                "multiply_adds": round(piece.multiply_adds),
                "floor_ms": round(floor, 6),
                "floor_by": by,
                "times_floor": round(latency["p50"] / floor, 3) if latency["n"] and floor else None,
                "error": measurement.error if measurement else None,
                "note": piece.note,
            }
        )
    return rows
