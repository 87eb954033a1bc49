"""Launches of the pixel score's kernels as their README asks, on NumPy arrays."""

from collections.abc import Sequence

import numpy as np
from cuda_emulation.driver import Emulated, Launch
from numpy.typing import NDArray

from qanet.quality import PixelScores, region_of

POOL_FLOATS = 10240


def score(
    kernels: Emulated,
    logits: NDArray,
    boxes: NDArray,
    image_hw: tuple[int, int],
    threshold: float = 0.2,
    flipped: NDArray | None = None,
    flip_classes: Sequence[int] = (),
    pool_floats: int = POOL_FLOATS,
    spare_tiles: int = 0,
    flags_out: NDArray[np.uint32] | None = None,
    **how,
) -> PixelScores:
    """Pixel scores by an emulated kernel file.

    Args:
        logits, flipped: (N, C, h, w) float32 or float16.
        spare_tiles: blocks to launch beyond those needed.
        flags_out: (N,) for the flags of persons whose logits are not finite; None: there are none.
        how: schedule, guard_before.
    """
    count, classes, map_h, map_w = logits.shape
    boxes = np.ascontiguousarray(boxes, np.float32)
    rois = np.array([region_of(box, (map_h, map_w), image_hw) for box in boxes], np.int32)
    width, height = rois[:, 2] - rois[:, 0], rois[:, 3] - rois[:, 1]
    offsets = np.concatenate([[0], np.cumsum(width * height)]).astype(np.int64)
    labels = np.full(offsets[-1], 0xEE, np.uint8)
    sums = np.zeros((count, 2, classes), np.uint64)
    not_finite, flags = np.zeros(count, np.uint32), np.full(count, 0xEE, np.uint32)
    pixel_scores = np.full(count, np.nan, np.float32)
    part_scores = np.full((count, classes - 1), np.nan, np.float32)
    tiles = max(1, int((-(-width // 32) * -(-height // 8)).max())) + spare_tiles
    bits = [None if view is None else _device_floats(view) for view in (logits, flipped)]
    arguments = (
        *bits,
        np.asarray(flip_classes, np.int32) if flipped is not None else None,
        boxes,
        rois,
        offsets[:-1].copy(),
        np.int32(classes),
        np.int32(map_h),
        np.int32(map_w),
        np.float32(threshold),
        labels,
        sums,
        not_finite,
    )
    suffix = "f16" if logits.dtype == np.float16 else "f32"
    grid, block = (tiles, count, 1), (32, 8, 1)
    launch = Launch(f"pixel_score_{suffix}", grid, block, (*arguments, np.int32(pool_floats)), 4 * pool_floats)
    done = Launch(
        "pixel_score_finish",
        (count, 1, 1),
        (256, 1, 1),
        (sums, not_finite, np.int32(classes), pixel_scores, part_scores, flags),
    )
    kernels.run(launch, done, **how)
    assert not sums.any() and not not_finite.any(), "the workspace is not ready for the next frame"
    if flags_out is not None:
        flags_out[:] = flags
    else:
        assert not flags.any(), "finite logits were flagged"
    regions = [labels[a:b].reshape(h, w) for a, b, h, w in zip(offsets, offsets[1:], height, width)]
    return PixelScores(rois, regions, pixel_scores, part_scores, image_hw)


def _device_floats(view: NDArray) -> NDArray:
    """Contiguous float32, or FP16 as its bits, which is how the driver passes it on."""
    view = np.ascontiguousarray(view)
    return view.view(np.uint16) if view.dtype == np.float16 else view.astype(np.float32)
