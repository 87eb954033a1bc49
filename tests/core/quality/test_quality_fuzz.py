"""Whatever is asked, every back-end of the kernel tail gives the reference's answer, or the reference's error."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tail_backends import assert_same, available, dense

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime.kernels import choose_kernels

BACKENDS = available()
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DTYPES = (np.float16, np.float32, np.float64, np.dtype(">f4"), np.longdouble)
LAYOUTS = ("contiguous", "channels last", "reversed", "every other", "broadcast", "read only", "Fortran")
THRESHOLDS = (0, 5e-324, 0.01, 0.2, 0.5, 0.75, 0.999999, float(np.nextafter(1, 0)))


def laid_out(logits, layout):
    """The same numbers (N, C, h, w) in another memory layout; "broadcast" repeats the first person."""
    if layout == "channels last":
        return np.ascontiguousarray(logits.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "reversed":
        return np.ascontiguousarray(logits[::-1, :, ::-1, ::-1])[::-1, :, ::-1, ::-1]
    if layout == "every other":
        wide = np.full((*logits.shape[:3], 2 * logits.shape[3]), np.nan, logits.dtype)
        wide[..., ::2] = logits
        return wide[..., ::2]
    if layout == "broadcast":
        return np.broadcast_to(logits[:1], logits.shape)
    if layout == "Fortran":
        return np.asfortranarray(logits)
    if layout == "read only":
        logits.flags.writeable = False
    return logits


def around(low, high):
    return st.floats(low, high, width=32)


@st.composite
def boxes_in(draw, image_hw):
    """One box: anywhere, of whole pixels, at the border, tiny, enormous, or wholly outside."""
    height, width = image_hw
    kind = draw(st.sampled_from(["any", "whole", "border", "tiny", "enormous", "outside"]))
    if kind == "whole":
        x0, y0 = draw(st.integers(-5, width)), draw(st.integers(-5, height))
        return [x0, y0, x0 + draw(st.integers(1, 30)), y0 + draw(st.integers(1, 30))]
    if kind == "border":
        return draw(
            st.sampled_from(
                [
                    [0, 0, width, height],
                    [0, 0, 1, 1],
                    [width - 1, height - 1, width, height],
                    [-width, -height, 0, 0],
                    [width, height, 2 * width, 2 * height],
                ]
            )
        )
    if kind == "enormous":
        x0, y0 = draw(around(-1e6, -1)), draw(around(-1e6, -1))
        return [x0, y0, x0 + draw(around(2**20, 2**21)), y0 + draw(around(2**20, 2**21))]
    far = 1e4 if kind == "outside" else 0
    x0, y0 = far + draw(around(-8, width)), far + draw(around(-8, height))
    largest = 0.25 if kind == "tiny" else 40
    return [x0, y0, x0 + draw(around(0.015625, largest)), y0 + draw(around(0.015625, largest))]


@st.composite
def calls(draw, max_classes=9):
    """Arguments of pixel_score, and the float32 logits they mean."""
    image_hw = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    shape = (draw(st.integers(0, 3)), draw(st.integers(2, max_classes)), *draw(st.tuples(*[st.integers(1, 6)] * 2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.5, 2, 30]))
    logits = rng.normal(0, spread, shape).astype(draw(st.sampled_from(DTYPES)))
    return {
        "logits": laid_out(logits, draw(st.sampled_from(LAYOUTS))),
        "boxes": [draw(boxes_in(image_hw)) for _ in range(shape[0])],
        "image_size": image_hw,
        "threshold": draw(st.sampled_from(THRESHOLDS)),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@FUZZ
@given(arguments=calls())
def test_every_back_end_is_the_reference(backend, arguments):
    expected = quality.pixel_score(**arguments)
    got = choose_kernels(backend).pixel_score(**arguments)
    logits = arguments["logits"].astype(np.float32)
    pasted = [dense(maps, box, arguments["image_size"]) for maps, box in zip(logits, arguments["boxes"])]
    assert_same(got, expected, pasted, arguments["threshold"])


@FUZZ
@given(arguments=calls())
def test_the_reference_is_the_definition(arguments):
    scored = quality.pixel_score(**arguments)
    for index, (maps, box) in enumerate(zip(arguments["logits"].astype(np.float32), arguments["boxes"])):
        pasted = dense(maps, box, arguments["image_size"])
        best, second = np.sort(pasted, 0)[[-1, -2]]
        unsure = (best - second < 1e-5) | (abs(best - 1 / len(pasted)) < 1e-5)
        labels = np.where(best >= 1 / len(pasted), pasted.argmax(0), 0)
        assert np.array_equal(scored.full(index)[~unsure], labels[~unsure])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100, deadline=None)
@given(arguments=calls(max_classes=7), seed=st.integers(0, 2**32 - 1))
def test_flips_too(backend, arguments, seed):
    shape = arguments["logits"].shape
    flipped = np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)
    pairs = [(1, shape[1] - 1)]
    expected = quality.pixel_score(**arguments, flipped_logits=flipped, flip_pairs=pairs)
    got = choose_kernels(backend).pixel_score(**arguments, flipped_logits=flipped, flip_pairs=pairs)
    views = (arguments["logits"].astype(np.float32), quality.unflip(flipped, pairs))
    pasted = [
        sum(dense(view[index], box, arguments["image_size"]) for view in views) / 2
        for index, box in enumerate(arguments["boxes"])
    ]
    assert_same(got, expected, pasted, arguments["threshold"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_classes", [2, 59, 255, 256])
def test_few_and_many_classes(backend, num_classes):
    logits = np.random.default_rng(num_classes).normal(0, 3, (1, num_classes, 5, 3)).astype(np.float32)
    box, image_hw = [2.5, -1.25, 31.75, 47.0], (40, 36)
    expected = quality.pixel_score(logits, [box], image_hw)
    assert_same(
        choose_kernels(backend).pixel_score(logits, [box], image_hw), expected, [dense(logits[0], box, image_hw)], 0.2
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e30, 3e38])
def test_finite_numbers_of_any_size_give_a_label_and_no_warning(backend, size):
    logits = np.full((1, 3, 2, 2), -size, np.float32)
    logits[0, 2] = size
    with np.errstate(all="raise", under="ignore"):
        scored = choose_kernels(backend).pixel_score(logits, [[0, 0, 8, 8]], (8, 8))
    assert (scored.full(0) == 2).all() and scored.pixel_scores[0] == 1


GOOD = {"logits": np.zeros((1, 3, 2, 2), np.float32), "boxes": [[0, 0, 8, 8]], "image_size": (8, 8)}
BAD = {
    "one class": {"logits": GOOD["logits"][:, :1]},
    "300 classes": {"logits": np.zeros((1, 300, 2, 2), np.float32)},
    "whole numbers": {"logits": np.zeros((1, 3, 2, 2), np.int64)},
    "nan": {"logits": GOOD["logits"] + np.nan},
    "infinite": {"logits": GOOD["logits"] + np.inf},
    "empty map": {"logits": GOOD["logits"][..., :0]},
    "no batch axis": {"logits": GOOD["logits"][0]},
    "empty box": {"boxes": [[4, 4, 4, 9]]},
    "box of nan": {"boxes": [[0, 0, np.nan, 8]]},
    "too many boxes": {"boxes": [[0, 0, 8, 8]] * 2},
    "no image": {"image_size": (8, 0)},
    "threshold 1": {"threshold": 1},
    "threshold below 0": {"threshold": -1e-9},
    "another view's shape": {"flipped_logits": GOOD["logits"][:, :2]},
    "a view of nan": {"flipped_logits": GOOD["logits"] + np.nan},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_every_back_end_refuses_what_the_reference_refuses_in_its_words(backend, change):
    with pytest.raises(QanetError) as expected:
        quality.pixel_score(**(GOOD | change))
    with pytest.raises(QanetError) as got:
        choose_kernels(backend).pixel_score(**(GOOD | change))
    assert got.value.line() == expected.value.line()
