"""The crop kernel under emulation: against the definition in float64, and against qanet.geometry, which is cv2's."""

import numpy as np
import pytest
from cuda_emulation.cases import CROPS, crop_definition
from cuda_emulation.driver import Launch

from qanet.geometry import crop_people


def crop(emulated, image, boxes, crop_hw, max_samples=8, mirror=False, stride=None, **how):
    """(N, h, w, 3) uint8 crops, and the mirrored ones; `stride` in bytes pads the image's rows."""
    height, width = image.shape[:2]
    stride = stride or width * 3
    rows = np.full((height, stride), 0xEE, np.uint8)
    rows[:, : width * 3] = image.reshape(height, -1)
    # The last row needs no padding behind it: a kernel that reads there is caught.
    rows = rows.reshape(-1)[: stride * (height - 1) + width * 3].copy()
    crops = np.full((len(boxes), *crop_hw, 3), 0x77, np.uint8)
    mirrored = np.full_like(crops, 0x77) if mirror else None
    grid = (-(-crop_hw[1] // 32), -(-crop_hw[0] // 8), len(boxes))
    arguments = (
        rows,
        np.int64(stride),
        np.int32(height),
        np.int32(width),
        np.asarray(boxes, np.float32),
        np.int32(crop_hw[0]),
        np.int32(crop_hw[1]),
        np.int32(max_samples),
        crops,
        mirrored,
    )
    emulated("crop").run(Launch("crop_people", grid, (32, 8, 1), arguments), **how)
    return (crops, mirrored) if mirror else crops


@pytest.mark.parametrize("plain", [False, True], ids=["averaged", "bilinear"])
@pytest.mark.parametrize("shape", CROPS)
def test_crops_equal_the_definition(emulated, shape, plain):
    image_hw, crop_hw, boxes = CROPS[shape]
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)
    got = crop(emulated, image, boxes, crop_hw, max_samples=1 if plain else 8)
    for person, box in zip(got, boxes):
        expected = crop_definition(image, box, crop_hw, plain)
        assert np.abs(person - expected).max() <= 0.5 + 2e-3  # rounded to the nearest grey level


@pytest.mark.parametrize("shape", CROPS)
def test_crops_are_within_two_levels_of_geometry(emulated, shape):
    image_hw, crop_hw, boxes = CROPS[shape]
    # Smooth, as photographs are: cv2 rounds positions to 1/32 pixel, which shows at hard edges only.
    rows, columns = np.mgrid[: image_hw[0], : image_hw[1]]
    image = np.stack([128 + 100 * np.sin(rows / 9 + i) * np.cos(columns / 11) for i in range(3)], 2).astype(np.uint8)
    within = [box for box in boxes if box[0] < image_hw[1] and box[2] > 0]  # cv2 is unsure of the edges' fraction
    boxes = np.array(within, np.float32)
    got = crop(emulated, image, boxes, crop_hw).astype(int)
    expected = crop_people(image, boxes, crop_hw).astype(int)
    inside = [crop_definition(np.ones_like(image), box, crop_hw) > 0.999 for box in boxes]
    assert np.abs(got - expected)[np.array(inside)].max(initial=0) <= 2


def test_mirrored_crops_and_padded_rows(emulated):
    image = np.random.default_rng(1).integers(0, 256, (31, 29, 3), np.uint8)
    boxes, crop_hw = [[-3, 1, 30, 28.5], [4, 4, 9, 9]], (17, 35)
    plain = crop(emulated, image, boxes, crop_hw)
    crops, mirrored = crop(emulated, image, boxes, crop_hw, mirror=True, stride=29 * 3 + 41)
    assert np.array_equal(crops, plain) and np.array_equal(mirrored, plain[:, :, ::-1])


def test_the_order_of_threads_does_not_matter(emulated):
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    _, crop_hw, boxes = CROPS["blocks"]
    runs = [crop(emulated, image, boxes, crop_hw, schedule=s, guard_before=s > 0) for s in (0, 1, 9)]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])
