"""The blocks of a network: what the precision search quantises or leaves in float as one."""

from collections.abc import Iterable
from typing import Any

from qanet.calib.placement import place


def block_of(name: str) -> str:
    """The block of a node, by its name: `backbone.blocks.3.expand.relu6` is in `backbone.blocks.3`.

    Up to the first part that is a number; of names without one the first two parts.
    """
    parts = name.split(".")
    number = next((position for position, part in enumerate(parts) if part.isdigit()), 1)
    return ".".join(parts[: number + 1])


def blocks_of(model: Any) -> tuple[str, ...]:
    """Blocks with a convolution that may be quantised, in graph order."""
    nodes = model.graph.node
    return tuple(dict.fromkeys(block_of(nodes[index].name) for index in place(model, ()).convolutions))


def patterns(blocks: Iterable[str]) -> tuple[str, ...]:
    """Patterns of `Scales.keep` that leave these blocks in float."""
    return tuple(pattern for block in blocks for pattern in (block, f"{block}.*"))


def present_patterns(model: Any, blocks: Iterable[str]) -> tuple[str, ...]:
    """`patterns` without those that no node of the graph matches."""
    names = [node.name for node in model.graph.node]
    return tuple(
        pattern
        for block in blocks
        for pattern in patterns([block])
        if (pattern in names if pattern == block else any(name.startswith(f"{block}.") for name in names))
    )
