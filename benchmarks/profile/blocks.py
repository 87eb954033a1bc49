"""Layers of a profile, and their sums by block of the network."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

GRAPH = "graph"  # what has no module's name: the input's normalisation, the graph tail
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")


@dataclass(frozen=True)
class Layer:
    """One executed layer.

    Attributes:
        name: the runtime's.
        block: of the network, from `block_of`.
        kind: the runtime's word for what it computes.
        precision: "int8", "bf16", "fp16", "fp32"; "" where the runtime does not tell.
        ms: mean milliseconds a call.
    """

    name: str
    block: str
    kind: str
    precision: str
    ms: float


def block_of(names: Iterable[str]) -> str:
    """The block of the first name that is a module's: its path to the first number, else its first two parts.

    "backbone.blocks.6.project/WithoutBiases" is of "backbone.blocks.6", "iou_head.fc2.relu" of "iou_head.fc2".
    """
    for name in names:
        found = _MODULE.search(name)
        if found is not None:
            parts = found.group().split(".")
            numbered = [i for i, part in enumerate(parts) if part.isdigit()]
            return ".".join(parts[: numbered[0] + 1] if numbered else parts[:2])
    return GRAPH


def group_layers(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Per block, slowest first: block, ms, share of the whole, layers, and ms by precision."""
    total = sum(layer.ms for layer in layers)
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    rows = []
    for block, members in blocks.items():
        by_precision: dict[str, float] = {}
        for layer in members:
            key = layer.precision or "not told"
            by_precision[key] = by_precision.get(key, 0.0) + layer.ms
        ms = sum(layer.ms for layer in members)
        rows.append(
            {
                "block": block,
                "ms": round(ms, 6),
                "share": round(ms / total, 6) if total else None,
                "layers": len(members),
                "ms_by_precision": {key: round(value, 6) for key, value in by_precision.items()},
            }
        )
    return sorted(rows, key=lambda row: -row["ms"])


def describe_profile(layers: Sequence[Layer], calls: int, source: str) -> dict[str, Any]:
    """Plain data: source, calls, total_ms, blocks, layers (slowest first)."""
    ordered = sorted(layers, key=lambda layer: -layer.ms)
    return {
        "source": source,
        "calls": calls,
        "total_ms": round(sum(layer.ms for layer in layers), 6),
        "blocks": group_layers(layers),
        "layers": [{**asdict(layer), "ms": round(layer.ms, 6)} for layer in ordered],
    }
