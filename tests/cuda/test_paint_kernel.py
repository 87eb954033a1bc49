"""The paint kernel under emulation: persons on a frame, the best on top, background transparent."""

import numpy as np
import pytest
from cuda_emulation.driver import Launch


def paint(emulated, regions, rois, order, image_hw, **how):
    """(H, W) uint8."""
    offsets = np.cumsum([0, *(region.size for region in regions)])[:-1].astype(np.int64)
    labels = np.concatenate([region.reshape(-1) for region in regions]).astype(np.uint8)
    frame = np.full(image_hw, 0xEE, np.uint8)
    arguments = (
        labels,
        offsets,
        np.asarray(rois, np.int32),
        np.asarray(order, np.int32),
        np.int32(len(order)),
        np.int32(image_hw[0]),
        np.int32(image_hw[1]),
        frame,
    )
    grid = (-(-image_hw[0] * image_hw[1] // 1024), 1, 1)
    # The frame is written in words: a start at a multiple of 4, as every allocation has, needs the guard before it.
    emulated("paint").run(Launch("paint_people", grid, (256, 1, 1), arguments), guard_before=True, **how)
    return frame


def painted(regions, rois, order, image_hw):
    """The same by assignment, worst first."""
    frame = np.zeros(image_hw, np.uint8)
    for person in reversed(order):
        x0, y0, x1, y1 = rois[person]
        view = frame[y0:y1, x0:x1]
        view[regions[person] > 0] = regions[person][regions[person] > 0]
    return frame


@pytest.mark.parametrize("image_hw", [(1, 1), (1, 3), (5, 7), (33, 31), (64, 48), (3, 2)])
@pytest.mark.parametrize("count", [1, 5])
def test_the_best_person_lies_on_top(emulated, image_hw, count):
    random = np.random.default_rng(count)
    height, width = image_hw
    rois = []
    for _ in range(count):
        (x0, x1), (y0, y1) = sorted(random.integers(0, width + 1, 2)), sorted(random.integers(0, height + 1, 2))
        rois.append([x0, y0, x1, y1])
    rois[-1] = [0, 0, width, height]  # and the others may be empty
    regions = [random.integers(0, 3, (y1 - y0, x1 - x0)) * random.integers(1, 90) for x0, y0, x1, y1 in rois]
    order = random.permutation(count).tolist()
    expected = painted(regions, rois, order, image_hw)
    assert np.array_equal(paint(emulated, regions, rois, order, image_hw), expected)
    assert np.array_equal(paint(emulated, regions, rois, order, image_hw, schedule=1), expected)


def test_persons_left_out_do_not_show(emulated):
    regions = [np.full((2, 2), 7), np.full((2, 2), 9)]
    rois = [[0, 0, 2, 2], [1, 1, 3, 3]]
    assert paint(emulated, regions, rois, [1], (3, 3)).tolist() == [[0, 0, 0], [0, 9, 9], [0, 9, 9]]
    assert not paint(emulated, regions, rois, [], (3, 3)).any()
