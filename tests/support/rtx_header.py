"""The GPU generations that a TensorRT-RTX plan was compiled for, read from its header.

The layout is not documented; it was observed in plans of 1.7.1, little endian, 64 bytes: magic "vtrt", 4 bytes of
zero, header format u64, size of the plan in bytes u64, library version u8[4], magic again, mask of the GPU
generations u32, zeros.
"""

import struct

TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")  # bit 0 .. bit 5 of the mask


def plan_targets(plan: bytes) -> tuple[str, ...]:
    """The targets of a whole plan."""
    first, _, size, *_, second, mask = struct.unpack("<4s4xQQ4B4sI28x", plan[:64])
    assert first == second == b"vtrt" and size == len(plan) and mask < 1 << len(TARGETS)
    return tuple(target for bit, target in enumerate(TARGETS) if mask >> bit & 1)
