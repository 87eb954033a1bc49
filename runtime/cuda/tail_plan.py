"""What the kernel tail launches, as numbers: regions, offsets, sizes and launches; no GPU is asked.

The arguments of a frame go up in one block and its results come down in one:

    parameters: label offsets (N,) int64 | boxes (N, 4) float32 | regions (N, 4) int32 | mirrored classes (C,) int32
    results:    pixel scores (N,) float32 | part scores (N, C - 1) float32 | flags (N,) uint32 | padding |
                labels uint8, region by region
    workspace:  sums (N, 2, C) uint64 | flags (N,) uint32
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.quality import region_of
from qanet.runtime.cuda.kernel import Launch

MODES = ("exact", "fast")
TILE_WIDTH, TILE_HEIGHT = 32, 8  # image pixels of a block, a thread each
_POOL_FLOATS = 10_240  # 40 KiB: the most shared memory that needs no opt-in beside the kernel's static part
_FINISH_THREADS = 256
_LABEL_ALIGNMENT = 256  # bytes
_LOGIT_TYPES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}


@dataclass(frozen=True)
class Regions:
    """Where N people's labels lie: on the image, and one after another in memory."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1
    offsets: NDArray[np.int64]  # (N,) bytes from the first label
    nbytes: int  # of all labels
    tiles: int  # blocks of the person that needs most of them, 1 or more

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) pixels of each."""
        return [(int(y1 - y0), int(x1 - x0)) for x0, y0, x1, y1 in self.rois]


def plan_regions(boxes: NDArray[np.float32], map_hw: tuple[int, int], image_size: tuple[int, int]) -> Regions:
    """Regions of (N, 4) xyxy boxes, whose logits are (h, w), on an image of (H, W) pixels."""
    rois = np.array([region_of(box, map_hw, image_size) for box in boxes], np.int32).reshape(-1, 4)
    width, height = (rois[:, 2] - rois[:, 0]).astype(np.int64), (rois[:, 3] - rois[:, 1]).astype(np.int64)
    ends = np.cumsum(width * height)
    offsets = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(rois) else np.zeros(0, np.int64)
    tiles = -(-width // TILE_WIDTH) * -(-height // TILE_HEIGHT)
    return Regions(rois, offsets, int(ends[-1]) if len(rois) else 0, max(int(tiles.max(initial=1)), 1))


def flip_classes(num_classes: int, flip_pairs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """(C,) int32: which class of the mirrored view each class is.

    Raises:
        QanetError: a pair names a class that there is not.
    """
    order = np.arange(num_classes, dtype=np.int32)
    for left, right in flip_pairs:
        if not (0 <= left < num_classes and 0 <= right < num_classes):
            raise QanetError("a flip pair is out of range", expected=f"classes below {num_classes}", got=(left, right))
        order[left], order[right] = right, left
    return order


@dataclass(frozen=True)
class ParameterLayout:
    """Byte offsets of the block that goes up."""

    offsets: int
    boxes: int
    rois: int
    classes: int
    nbytes: int


def parameter_layout(count: int, num_classes: int) -> ParameterLayout:
    """For N people and C classes."""
    return ParameterLayout(0, 8 * count, 24 * count, 40 * count, 40 * count + 4 * num_classes)


def pack_parameters(
    boxes: NDArray[np.float32], regions: Regions, classes: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    """Write the block that goes up into (nbytes,) uint8."""
    layout = parameter_layout(len(boxes), len(classes))
    parts = (
        (layout.offsets, regions.offsets),
        (layout.boxes, np.ascontiguousarray(boxes, np.float32)),
        (layout.rois, regions.rois),
        (layout.classes, classes),
    )
    for start, values in parts:
        out[start : start + values.nbytes] = values.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class ResultLayout:
    """Byte offsets of the block that comes down."""

    pixel_scores: int
    part_scores: int
    flags: int
    labels: int
    nbytes: int


def result_layout(count: int, num_classes: int, label_bytes: int) -> ResultLayout:
    """For N people, C classes and the labels' bytes."""
    flags = 4 * count * num_classes
    labels = -(-(flags + 4 * count) // _LABEL_ALIGNMENT) * _LABEL_ALIGNMENT
    return ResultLayout(0, 4 * count, flags, labels, labels + label_bytes)


@dataclass(frozen=True)
class WorkspaceLayout:
    """Byte offsets of what the kernels keep between them, all zeros before and after."""

    sums: int
    flags: int
    nbytes: int


def workspace_layout(count: int, num_classes: int) -> WorkspaceLayout:
    """For N people and C classes."""
    flags = 16 * count * num_classes
    return WorkspaceLayout(0, flags, flags + 4 * count)


def score_launch(
    mode: str,
    dtype: np.dtype,
    shape: tuple[int, int, int, int],
    tiles: int,
    threshold: float,
    logits: int,
    flipped: int,
    parameters: int,
    labels: int,
    workspace: int,
) -> Launch:
    """The launch of pixel_score or pixel_score_fast.

    Args:
        mode: "exact" or "fast".
        dtype: float32 or float16, of the logits.
        shape: (N, C, h, w) of the logits.
        tiles: blocks a person.
        threshold: T.
        logits, flipped, parameters, labels, workspace: addresses; flipped is 0 without a mirrored view.
    Raises:
        QanetError: an unknown mode, logits of another type, or too many people for a launch.
    """
    if mode not in MODES:
        raise QanetError("unknown mode of the pixel score", expected=f"one of {', '.join(MODES)}", got=mode)
    if dtype not in _LOGIT_TYPES:
        raise QanetError("the kernels do not take these logits", expected="float32 or float16", got=dtype)
    count, num_classes, map_height, map_width = shape
    layout = parameter_layout(count, num_classes)
    module = "pixel_score" if mode == "exact" else "pixel_score_fast"
    kept = workspace_layout(count, num_classes)
    types, arguments = (
        "PPPPPPiiifPPP",
        (
            logits,
            flipped,
            parameters + layout.classes,
            parameters + layout.boxes,
            parameters + layout.rois,
            parameters + layout.offsets,
            num_classes,
            map_height,
            map_width,
            float(threshold),
            labels,
            workspace + kept.sums,
            workspace + kept.flags,
        ),
    )
    grid, block = (tiles, count, 1), (TILE_WIDTH, TILE_HEIGHT, 1)
    function = f"{module}_{_LOGIT_TYPES[dtype]}"
    if mode == "fast":
        return Launch(module, function, types, arguments, grid, block)
    return Launch(module, function, types + "i", (*arguments, _POOL_FLOATS), grid, block, 4 * _POOL_FLOATS)


def finish_launch(count: int, num_classes: int, workspace: int, results: int) -> Launch:
    """The launch that turns N people's sums into scores, for the results at an address, and zeroes the workspace."""
    layout, kept = result_layout(count, num_classes, 0), workspace_layout(count, num_classes)
    arguments = (
        workspace + kept.sums,
        workspace + kept.flags,
        num_classes,
        results + layout.pixel_scores,
        results + layout.part_scores,
        results + layout.flags,
    )
    block = (_FINISH_THREADS, 1, 1)
    return Launch("pixel_score", "pixel_score_finish", "PPiPPP", arguments, (count, 1, 1), block)
