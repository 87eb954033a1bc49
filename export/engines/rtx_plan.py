"""The header of a TensorRT-RTX plan, read without TensorRT-RTX and without a GPU.

The layout is not documented; it was observed in plans of 1.7.1, little endian, 64 bytes: magic "vtrt", 4 bytes of
zero, header format u64, size of the whole plan in bytes u64, library version u8[4], magic again, mask of the GPU
generations u32, zeros. A plan whose two magics, size and mask do not agree is refused rather than guessed at.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from qanet.errors import QanetError

_MAGIC = b"vtrt"
_HEADER = struct.Struct("<4s4xQQ4B4sI28x")
_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")  # bit 0 .. bit 5 of the mask


@dataclass(frozen=True)
class RtxPlan:
    """What the header of a plan says.

    Attributes:
        size_bytes: size of the whole plan.
        header_format: version of the layout itself.
        version: TensorRT-RTX that wrote it, "1.7.1.116".
        targets: GPU generations it was compiled for, "sm_86" and the like.
    """

    size_bytes: int
    header_format: int
    version: str
    targets: tuple[str, ...]


def read_rtx_plan(plan: bytes | str | Path) -> RtxPlan:
    """Read the header of a plan given as bytes or as a file.

    Raises:
        QanetError: no such file, another kind of file, a truncated plan, or GPU generations unknown here.
    """
    if isinstance(plan, bytes):
        name, data, size = "the plan", plan[: _HEADER.size], len(plan)
    else:
        path = Path(plan)
        if not path.is_file():
            raise QanetError("no such TensorRT-RTX plan", got=path)
        name, size = path.name, path.stat().st_size
        with path.open("rb") as file:
            data = file.read(_HEADER.size)
    if data[:4] != _MAGIC:
        raise QanetError(f"{name} is not a TensorRT-RTX plan", expected=f"magic {_MAGIC!r}", got=data[:4])
    if len(data) < _HEADER.size:
        raise QanetError(f"{name} is truncated", expected=f"a header of {_HEADER.size} bytes", got=len(data))
    _, header_format, size_bytes, *version, magic, mask = _HEADER.unpack(data)
    if magic != _MAGIC:
        raise QanetError(f"{name} has a header of an unknown layout", expected=f"{_MAGIC!r} at byte 28", got=magic)
    if size_bytes != size:
        raise QanetError(f"{name} is truncated or has grown", expected=f"{size_bytes} bytes", got=size)
    targets = tuple(target for bit, target in enumerate(_TARGETS) if mask >> bit & 1)
    if not mask or mask >> len(_TARGETS):
        raise QanetError(
            f"{name} is for GPU generations unknown to this version",
            expected=f"a mask of {', '.join(_TARGETS)}",
            got=hex(mask),
        )
    return RtxPlan(size_bytes, header_format, ".".join(map(str, version)), targets)
