"""The frame's label map on a GPU: people's labels painted in order of quality, the best on top."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.runtime.cuda.kernel import Launch
from qanet.runtime.cuda.lane import Lane
from qanet.runtime.cuda.tail import DeviceScores
from qanet.runtime.cuda.tensor import Tensor

_PIXELS_A_BLOCK, _THREADS = 1024, 256


def paint_launch(
    labels: int, offsets: int, rois: int, order: int, count: int, image_size: tuple[int, int], frame: int
) -> Launch:
    """The launch of paint_people.

    Args:
        labels, offsets, rois, order: addresses; order is (count,) int32, the best person first.
        count: people to paint.
        image_size: (H, W) pixels.
        frame: address of the (H, W) uint8 map, every pixel of which is written.
    """
    height, width = image_size
    grid = (-(-height * width // _PIXELS_A_BLOCK), 1, 1)
    arguments = (labels, offsets, rois, order, count, height, width, frame)
    return Launch("paint", "paint_people", "PPPPiiiP", arguments, grid, (_THREADS, 1, 1))


def paint_people(lane: Lane, scored: DeviceScores, order: ArrayLike) -> NDArray[np.uint8]:
    """The frame's label map, from labels that are still on the GPU; waits for it.

    Args:
        lane: the one that scored.
        scored: what `tail.score_people` yields.
        order: indices of the people to paint, the best first; who is not in it is left out.
    Returns:
        (H, W) uint8, 0 where nobody is.
    Raises:
        QanetError: an index that there is not, or CUDA failed.
    """
    chosen = np.asarray(order, np.int32).reshape(-1)
    people = len(scored.regions.rois)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= people):
        raise QanetError(
            "the order names people that there are not", expected=f"0 to {people - 1}", got=chosen.tolist()
        )
    height, width = scored.image_size
    with (
        lane.active(f"painting {len(chosen)} people"),
        Tensor(lane, "paint.order", (max(len(chosen), 1),), np.int32) as ranks,
        Tensor(lane, "paint.frame", (height, width), np.uint8) as frame,
    ):
        ranks.upload(chosen)
        lane.launch(
            paint_launch(
                scored.labels, scored.offsets, scored.rois, ranks.address, len(chosen), scored.image_size, frame.address
            )
        )
        frame.download(height)
        lane.stream.synchronize()
        return frame.rows(height)
