"""Whatever shapes and boxes come, the emulated kernels give what the definitions say."""

import numpy as np
from cuda_emulation.calls import score
from cuda_emulation.cases import check_definition, crop_definition
from cuda_emulation.driver import Launch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qanet.quality import pixel_score

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def around(low, high):
    return st.floats(low, high, width=32)


@st.composite
def boxes_on(draw, image_hw):
    """One to three boxes: anywhere, thinner than a pixel, wholly outside, or a million pixels wide."""
    height, width = image_hw
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["any", "thin", "outside", "enormous"]))
        low, high = (-1e6, -1) if kind == "enormous" else (-20, max(height, width))
        x0, y0 = draw(around(low, high)), draw(around(low, high))
        sizes = {"any": (1, 90), "thin": (0.03125, 0.75), "outside": (1, 90), "enormous": (2**20, 2**21)}[kind]
        x0 += 1e4 if kind == "outside" else 0
        found.append([x0, y0, x0 + draw(around(*sizes)), y0 + draw(around(*sizes))])
    return np.array(found, np.float32)


@FUZZ
@given(data=st.data())
def test_any_logits_and_boxes(emulated, data):
    image_hw = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 70)))
    boxes = data.draw(boxes_on(image_hw))
    shape = (len(boxes), data.draw(st.sampled_from([2, 3, 20, 61])), *data.draw(st.tuples(*[st.integers(1, 12)] * 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    kind = data.draw(st.sampled_from([np.float32, np.float16]))
    logits, flipped = (rng.normal(0, data.draw(st.sampled_from([0.5, 3, 30])), shape).astype(kind) for _ in range(2))
    threshold = data.draw(st.sampled_from([0.0, 0.2, 0.75]))
    views = {}
    if data.draw(st.booleans()):
        views = {"flipped": flipped, "flip_classes": rng.permutation(shape[1])}
    pool = data.draw(st.sampled_from([2048, 6144, 10240]))
    got = score(
        emulated("pixel_score"),
        logits,
        boxes,
        image_hw,
        threshold,
        pool_floats=pool,
        schedule=data.draw(st.integers(0, 9)),
        guard_before=data.draw(st.booleans()),
        **views,
    )
    check_definition(got, logits, boxes, threshold, **views)
    assert np.array_equal(got.rois, pixel_score(logits, boxes, image_hw, threshold).rois)


@FUZZ
@given(data=st.data())
def test_any_crops(emulated, data):
    image_hw = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    crop_hw = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    boxes = data.draw(boxes_on(image_hw))
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).max(1) < 1e5]  # no float holds a place in so wide a crop
    if not len(boxes):
        return
    image = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).integers(0, 256, (*image_hw, 3), np.uint8)
    crops = np.full((len(boxes), *crop_hw, 3), 0x77, np.uint8)
    arguments = (
        image,
        np.int64(image_hw[1] * 3),
        np.int32(image_hw[0]),
        np.int32(image_hw[1]),
        boxes,
        np.int32(crop_hw[0]),
        np.int32(crop_hw[1]),
        np.int32(8),
        crops,
        None,
    )
    grid = (-(-crop_hw[1] // 32), -(-crop_hw[0] // 8), len(boxes))
    emulated("crop").run(Launch("crop_people", grid, (32, 8, 1), arguments), schedule=data.draw(st.integers(0, 9)))
    for person, box in zip(crops, boxes):
        assert np.abs(person - crop_definition(image, box, crop_hw)).max() <= 0.5 + 2e-2
