"""Bad input to the tail and the crops: the reference's words, or its result, from every back-end."""

import numpy as np
import pytest

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime import native
from qanet.runtime.cuda.crop import crop_people
from qanet.runtime.kernels import choose_kernels

SIZE = (40, 50)
LOGITS = np.random.default_rng(3).normal(0, 3, (2, 5, 8, 7)).astype(np.float32)
GOOD = {"logits": LOGITS, "boxes": [[2, 3, 30, 35], [20, 1, 48, 39]], "image_size": SIZE}
built = pytest.mark.skipif(not native.available(), reason="the native library is not built: it needs a C++17 compiler")
BACKENDS = ["numpy", pytest.param("native", marks=built), "cuda"]


@pytest.fixture(autouse=True)
def scoring(kernels):
    """The made-up GPU, for the back-end that wants one."""
    kernels.image_size = SIZE
    return kernels


def broken(index, value):
    changed = LOGITS.copy()
    changed[index] = value
    return changed


BAD = {
    "three axes": {"logits": LOGITS[0]},
    "five axes": {"logits": LOGITS[None]},
    "no array": {"logits": "logits"},
    "whole numbers": {"logits": LOGITS.astype(np.int32)},
    "complex": {"logits": LOGITS.astype(np.complex64)},
    "objects": {"logits": LOGITS.astype(object)},
    "one class": {"logits": LOGITS[:, :1]},
    "300 classes": {"logits": np.zeros((2, 300, 8, 7), np.float32)},
    "no rows": {"logits": LOGITS[:, :, :0]},
    "no columns": {"logits": LOGITS[..., :0]},
    "one nan": {"logits": broken((1, 4, 7, 6), np.nan)},
    "infinite": {"logits": broken((0, 0, 0, 0), np.inf)},
    "minus infinite": {"logits": broken((0, 2, 3, 3), -np.inf)},
    "beyond float32": {"logits": np.full((2, 5, 8, 7), 1e300)},
    "too few boxes": {"boxes": GOOD["boxes"][:1]},
    "boxes of three": {"boxes": [[0, 0, 9]] * 2},
    "one box flat": {"boxes": [0, 0, 9, 9]},
    "boxes of words": {"boxes": [["a"] * 4] * 2},
    "box of nan": {"boxes": [[0, 0, np.nan, 9], [0, 0, 9, 9]]},
    "box of infinity": {"boxes": [[0, 0, np.inf, 9], [0, 0, 9, 9]]},
    "box inverted in x": {"boxes": [[9, 0, 2, 9], [0, 0, 9, 9]]},
    "box inverted in y": {"boxes": [[0, 0, 9, 9], [0, 9, 9, 2]]},
    "box of no width": {"boxes": [[4, 0, 4, 9], [0, 0, 9, 9]]},
    "no image": {"image_size": (0, 9)},
    "an image of one side": {"image_size": (9,)},
    "threshold of 1": {"threshold": 1.0},
    "threshold of nan": {"threshold": float("nan")},
    "flipped of another shape": {"flipped_logits": LOGITS[..., :-1]},
    "flipped of nan": {"flipped_logits": broken((0, 1, 2, 3), np.nan)},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_in_the_words_of_the_reference(scoring, backend, change):
    with pytest.raises(QanetError) as reference:
        quality.pixel_score(**(GOOD | change))
    with pytest.raises(QanetError) as caught:
        choose_kernels(backend).pixel_score(**(GOOD | change))
    assert caught.value.line() == reference.value.line() and not scoring.launches


DEFINED = {
    "nobody": {"logits": LOGITS[:0], "boxes": np.zeros((0, 4))},
    "all outside": {"boxes": [[-90, -90, -50, -50], [60, 50, 90, 90]]},
    "a million wide": {"boxes": [[-5e5, -5e5, 5e5, 5e5], [-1e6, 3, 40, 1e6]]},
    "thinner than a pixel": {"boxes": [[10.2, 3, 10.3, 30], [4, 20.6, 40, 20.7]]},
    "class last": {"logits": np.ascontiguousarray(LOGITS.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)},
    "backwards": {"logits": LOGITS[::-1, :, ::-1, ::-1]},
    "every other": {"logits": LOGITS.repeat(2, 3)[..., ::2]},
    "float64": {"logits": LOGITS.astype(np.float64)},
    "big endian": {"logits": LOGITS.astype(">f4")},
    "float16 of 1e4": {"logits": np.sign(LOGITS).astype(np.float16) * np.float16(1e4)},
    "two classes": {"logits": LOGITS[:, :2]},
    "256 classes": {"logits": np.resize(LOGITS, (2, 256, 8, 7))},
    "threshold of 0": {"threshold": 0.0},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", DEFINED.values(), ids=DEFINED)
def test_what_is_odd_but_defined_gives_the_result_of_the_reference(backend, change):
    arguments = GOOD | change
    got, expected = choose_kernels(backend).pixel_score(**arguments), quality.pixel_score(**arguments)
    assert np.array_equal(got.rois, expected.rois) and got.part_scores.shape == expected.part_scores.shape
    for mine, theirs in zip(got.labels, expected.labels):
        assert mine.shape == theirs.shape and np.count_nonzero(mine != theirs) <= 0.002 * theirs.size
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-5)
    assert np.isfinite(got.part_scores).all()


@pytest.mark.parametrize(
    "image, boxes, words",
    [
        (np.zeros((*SIZE, 3), np.float32), GOOD["boxes"], "the frame does not fit .*float32"),
        (np.zeros(SIZE, np.uint8), GOOD["boxes"], "the frame does not fit"),
        (np.zeros((*SIZE, 4), np.uint8), GOOD["boxes"], "the frame does not fit"),
        (np.zeros((0, 5, 3), np.uint8), GOOD["boxes"], "the frame does not fit"),
        (np.zeros((*SIZE, 3), np.uint8), [[0, 0, np.nan, 9]], "box"),
        (np.zeros((*SIZE, 3), np.uint8), [[9, 0, 2, 9]], "box"),
        (np.zeros((*SIZE, 3), np.uint8), [[0, 0, 9]], "box"),
    ],
)
def test_crops_refuse_what_does_not_fit(scoring, image, boxes, words):
    with pytest.raises(QanetError, match=words):
        crop_people(image, boxes, (16, 12))
    assert not scoring.launches and scoring.calls["push"] == scoring.calls["pop"]


def test_a_frame_that_is_not_contiguous_is_cropped_like_its_copy():
    image = np.random.default_rng(6).integers(0, 256, (80, 50, 3), np.uint8)[::2, ::-1]
    expected = choose_kernels().crop_people(np.ascontiguousarray(image), np.array(GOOD["boxes"], np.float32), (16, 12))
    assert np.array_equal(crop_people(image, GOOD["boxes"], (16, 12)), expected)
