"""The C++ crop against the definition in double precision, and beside OpenCV's: every instruction set, odd boxes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanet import geometry
from qanet.errors import QanetError
from qanet.geometry import crop_boxes
from qanet.runtime import native
from qanet.runtime.kernels import choose_kernels

built = pytest.mark.skipif(not native.available(), reason="the native library is not built: it needs a C++17 compiler")
LANES = native.lanes() if native.available() else ()


def axis_weights(low, high, crop, size):
    """(crop, size) float64: the mean of the bilinear samples of each crop pixel, zero outside the image."""
    step = (float(high) - float(low)) / crop
    samples = min(max(math.ceil(step - 1e-6), 1), 8)
    weights = np.zeros((crop, size))
    for pixel in range(crop):
        for sample in range(samples):
            at = float(low) + (pixel + (sample + 0.5) / samples) * step - 0.5
            for index, weight in ((math.floor(at), 1 - at % 1), (math.floor(at) + 1, at % 1)):
                if 0 <= index < size:
                    weights[pixel, index] += weight / samples
    return weights


def exact(image, box, hw):
    """A crop by the definition, not rounded."""
    rows, columns = (axis_weights(box[1 - k], box[3 - k], hw[k], image.shape[k]) for k in (0, 1))
    return np.einsum("yr,rcd,xc->yxd", rows, image.astype(np.float64), columns, optimize=True)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@built
@settings(max_examples=200, deadline=None)
@given(
    image_hw=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop_hw=st.tuples(*[st.integers(1, 40)] * 2),
    corner=st.tuples(*[st.floats(-90, 90, width=32)] * 2),
    size=st.tuples(*[st.floats(0.0625, 700, width=32)] * 2),
    lanes=st.sampled_from(LANES or (0,)),
    threads=st.integers(1, 3),
)
def test_any_box(image_hw, crop_hw, corner, size, lanes, threads):
    image, box = noise(*image_hw), np.array([*corner, corner[0] + size[0], corner[1] + size[1]], np.float32)
    got = native.crop_people(image, box[None], crop_hw, threads=threads, vector_lanes=lanes)[0]
    assert np.abs(got - exact(image, box, crop_hw)).max() <= 0.5 + 1e-3


@built
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("height_px", [40, 130, 290, 410, 1100])
def test_people_of_all_sizes_beside_opencv(lanes, height_px):
    image = noise(600, 800)
    image = np.kron(image[::8, ::8], np.ones((8, 8, 1), np.uint8))  # edges of which a 1/32 pixel is seen
    boxes = crop_boxes(
        [[30 + 90 * k, 20.25, 30 + 90 * k + 0.4 * height_px, 20.25 + height_px] for k in range(5)], (128, 96)
    )
    got = native.crop_people(image, boxes, (128, 96), vector_lanes=lanes).astype(int)
    off = np.abs(got - geometry.crop_people(image, boxes, (128, 96)))
    assert off.max() <= 9 and off.mean() < 1  # 255 / 32 of a coordinate, and a rounding
    for mine, box in zip(got, boxes):
        assert np.abs(mine - exact(image, box, (128, 96))).max() <= 0.5 + 1e-3


@built
def test_any_number_of_threads_gives_the_same_bits():
    image = noise(500, 700)
    boxes = crop_boxes([[20, 10, 180, 480], [300, 100, 420, 330], [-40, -40, 60, 90]], (512, 384))
    one, three = (native.crop_people(image, boxes, (512, 384), threads=n) for n in (1, 3))
    assert np.array_equal(one, three)


@built
def test_rows_apart_columns_apart_and_mirrored_images():
    wide = noise(50, 120)
    box = np.array([[3, 4, 40, 47.5]], np.float32)
    for view in (wide[:, 10:70], wide[::2], wide[:, ::-1], wide[::-1], wide[:, :, ::-1]):
        assert np.array_equal(native.crop_people(view, box, (30, 20)), native.crop_people(view.copy(), box, (30, 20)))


@built
def test_outside_is_black_and_nobody_is_no_crop():
    image = np.full((20, 30, 3), 255, np.uint8)
    boxes = np.array([[100, 0, 110, 20], [0, 100, 30, 110], [-1e6, -1e6, -9e5, -9e5]], np.float32)
    assert not native.crop_people(image, boxes, (8, 6)).any()
    assert native.crop_people(image, np.zeros((0, 4), np.float32), (8, 6)).shape == (0, 8, 6, 3)
    assert (native.crop_people(image, np.array([[0, 0, 30, 20]], np.float32), (20, 30)) == 255).all()


@built
@pytest.mark.parametrize(
    "image, boxes, lanes, message",
    [
        (np.zeros((9, 9), np.uint8), [[0, 0, 5, 5]], 0, r"not an image .*got \(9, 9\) uint8"),
        (np.zeros((9, 9, 3), np.float32), [[0, 0, 5, 5]], 0, "not an image .*got .* float32"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, np.nan, 5]], 0, "a box is not finite"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 5, 5]], 7, "vector_lanes does not fit this machine .*got 7"),
    ],
)
def test_what_does_not_fit_is_told(image, boxes, lanes, message):
    with pytest.raises(QanetError, match=message):
        native.crop_people(image, np.array(boxes, np.float32), (8, 6), vector_lanes=lanes)


def test_without_the_library_crops_are_opencvs(monkeypatch):
    image, boxes = noise(40, 30), np.array([[2, 3, 20, 31]], np.float32)
    monkeypatch.setattr(native, "available", lambda: False)
    assert np.array_equal(
        choose_kernels().crop_people(image, boxes, (16, 12)), geometry.crop_people(image, boxes, (16, 12))
    )


@built
def test_with_the_library_crops_are_its(monkeypatch):
    monkeypatch.setattr(native, "crop_people", lambda *arguments: "native")
    assert choose_kernels().crop_people(noise(4, 4), np.array([[0, 0, 3, 3]], np.float32), (4, 4)) == "native"
