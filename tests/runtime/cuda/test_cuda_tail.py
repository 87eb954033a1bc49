"""The kernel tail on a made-up GPU: host arrays to PixelScores equal the reference, with nothing leaked."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime.cuda.crop import crop_people
from qanet.runtime.cuda.gpu_context import DeviceArray, Tensor, shared_context
from qanet.runtime.cuda.tail import pixel_score, score_people
from qanet.runtime.kernels import choose_kernels

SIZE = (40, 50)
BOXES = np.array([[2, 3, 30, 35], [-90, -90, -50, -50], [20, 1, 48, 39]], np.float32)


@pytest.fixture
def logits():
    return np.random.default_rng(3).normal(0, 3, (3, 5, 8, 7)).astype(np.float32)


@pytest.fixture
def scoring(kernels):
    """The machine, scoring images of SIZE."""
    kernels.image_size = SIZE
    return kernels


def assert_equal(got, expected):
    assert got.image_size == expected.image_size and got.rois.dtype == np.int32
    assert np.array_equal(got.rois, expected.rois) and len(got.labels) == len(expected.labels)
    for mine, reference in zip(got.labels, expected.labels):
        assert mine.dtype == np.uint8 and np.array_equal(mine, reference) and mine.flags.owndata
    assert got.pixel_scores.dtype == got.part_scores.dtype == np.float32
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.part_scores, expected.part_scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_golden_cases_from_host_arrays(kernels, golden, name):
    arguments, case = read_case(golden, name)
    kernels.image_size = arguments["image_size"]
    assert_golden(pixel_score(**arguments), case)


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8"])
def test_the_result_repeats_and_the_kernel_is_that_of_the_logits_type(scoring, logits, dtype):
    maps = logits.astype(dtype)
    expected = quality.pixel_score(maps, BOXES, SIZE)
    for _ in range(3):
        assert_equal(pixel_score(maps, BOXES, SIZE), expected)
    suffix = "f16" if dtype == "f2" else "f32"
    assert [record.name for record in scoring.launches[:2]] == [f"pixel_score_{suffix}", "pixel_score_finish"]
    assert scoring.launches[0].grid == (5, 3, 1)  # regions of 30x34 and 30x40 pixels in tiles of 32x8


def test_two_views_swap_classes_and_the_types_of_both_are_made_one(scoring, logits):
    mirrored = np.random.default_rng(4).normal(0, 3, logits.shape).astype(np.float16)
    expected = quality.pixel_score(logits, BOXES, SIZE, 0.3, mirrored, [(1, 2)])
    assert_equal(pixel_score(logits, BOXES, SIZE, 0.3, mirrored, [(1, 2)]), expected)
    assert scoring.launches[0].name == "pixel_score_f32" and scoring.launches[0].arguments[1] != 0
    half = logits.astype(np.float16)
    expected = quality.pixel_score(half, BOXES, SIZE, 0.3, mirrored, [(1, 2)])
    assert_equal(pixel_score(half, BOXES, SIZE, 0.3, mirrored, [(1, 2)]), expected)


def test_nobody_launches_nothing(scoring):
    found = pixel_score(np.zeros((0, 5, 8, 7), np.float32), np.zeros((0, 4)), SIZE)
    assert (found.rois.shape, found.pixel_scores.shape, found.part_scores.shape) == ((0, 4), (0,), (0, 4))
    assert found.labels == [] and found.image_size == SIZE and not scoring.launches


def test_people_outside_the_image_score_zero(scoring, logits):
    found = pixel_score(logits[:1], BOXES[1:2], SIZE)
    assert found.labels[0].size == 0 and found.pixel_scores[0] == 0 and not found.part_scores.any()
    assert scoring.launches[0].grid == (1, 1, 1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"logits": np.zeros((3, 1, 8, 7), np.float32)}, "number of classes"),
        ({"logits": np.full((3, 5, 8, 7), np.nan, np.float32)}, "not finite"),
        ({"boxes": BOXES[:2]}, "boxes do not fit"),
        ({"image_size": (0, 5)}, "image_size"),
        ({"threshold": 1.0}, "threshold"),
        ({"flipped_logits": np.zeros((3, 5, 8, 6), np.float32)}, "flipped_logits do not fit"),
        ({"flip_pairs": [(4, 5)]}, "flip pair is out of range"),
        ({"index": 1}, "no GPU 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_a_launch(scoring, logits, change, words):
    with pytest.raises(QanetError, match=words):
        pixel_score(**{"logits": logits, "boxes": BOXES, "image_size": SIZE} | change)
    assert not scoring.launches and scoring.calls["push"] == scoring.calls["pop"]


def test_a_launch_that_fails_is_told_in_the_drivers_words_and_leaves_nothing_in_flight(scoring, logits):
    expected = quality.pixel_score(logits, BOXES, SIZE)
    scoring.launch_error = "cuLaunchKernel failed: too many resources requested for launch"
    with pytest.raises(QanetError, match=r"launching pixel_score_f32 on a grid of \(5, 3, 1\) .*too many resources"):
        pixel_score(logits, BOXES, SIZE)
    assert not scoring.pending and scoring.calls["push"] == scoring.calls["pop"]
    scoring.launch_error = None
    scoring.sync_error = "cuStreamSynchronize failed: an illegal memory access was encountered"
    with pytest.raises(QanetError, match="CUDA failed while fetching labels .*illegal memory access"):
        pixel_score(logits, BOXES, SIZE)
    scoring.sync_error = None
    assert_equal(pixel_score(logits, BOXES, SIZE), expected)
    assert scoring.calls["push"] == scoring.calls["pop"]


def test_sums_left_behind_by_a_failure_are_zeroed_again(scoring, logits):
    real_launch, refused = scoring.launch, []

    def refuse_finish(record, handle, limit):
        if record.name == "pixel_score_finish" and not refused:
            refused.append(record)
            raise scoring.Error("cuLaunchKernel failed: out of resources")
        real_launch(record, handle, limit)

    scoring.launch = refuse_finish
    with pytest.raises(QanetError, match="launching pixel_score_finish"):
        pixel_score(logits, BOXES, SIZE)
    assert_equal(pixel_score(logits, BOXES, SIZE), quality.pixel_score(logits, BOXES, SIZE))


def test_twenty_threads_score_their_own_people(scoring):
    rng = np.random.default_rng(5)
    batches = [rng.normal(0, 3, (1 + index % 3, 5, 8, 7)).astype(np.float32) for index in range(20)]
    found = {}

    def work(index):
        found[index] = pixel_score(batches[index], BOXES[: len(batches[index])], SIZE)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, maps in enumerate(batches):
        assert_equal(found[index], quality.pixel_score(maps, BOXES[: len(maps)], SIZE))


@pytest.mark.parametrize("name", ["logits", "flipped_logits"])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_logits_on_the_gpu_that_are_not_finite_are_refused_in_the_words_of_the_reference(scoring, logits, name, dtype):
    good = {"logits": logits.astype(dtype), "flipped_logits": logits[..., ::-1].astype(dtype)}
    bad = good | {name: good[name].copy()}
    bad[name][1, 2, 3, 4:6] = np.nan, np.inf  # of the person outside the image, whom no pixel samples
    with pytest.raises(QanetError) as reference:
        quality.pixel_score(bad["logits"], BOXES, SIZE, flipped_logits=bad["flipped_logits"])
    gpu = shared_context()
    with gpu.active("testing"), ExitStack() as held:

        def put(key, values):
            tensor = held.enter_context(Tensor(gpu, key, values.shape, values.dtype))
            tensor.upload(values)
            return tensor.first(3)

        good_views, bad_views = (
            [put(f"test.{kind}.{key}", values) for key, values in views.items()]
            for kind, views in (("good", good), ("bad", bad))
        )
        with (
            pytest.raises(QanetError) as caught,
            score_people(gpu, bad_views[0], BOXES, SIZE, 0.2, bad_views[1]) as scored,
        ):
            scored.download()
        assert caught.value.line() == reference.value.line() and f"{name} are not finite" in caught.value.line()
        assert "got 2 nan or infinite" in caught.value.line()
        with score_people(gpu, good_views[0], BOXES, SIZE, 0.2, good_views[1]) as scored:
            found = scored.download()
    expected = quality.pixel_score(good["logits"], BOXES, SIZE, flipped_logits=good["flipped_logits"])
    np.testing.assert_allclose(found.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "shape, dtype, words",
    [
        ((3, 5, 0, 7), "f4", "empty map"),
        ((3, 300, 8, 7), "f4", "classes"),
        ((3, 5, 8), "f4", "floats"),
        ((2, 5, 8, 7), "f4", "boxes do not fit"),
        ((3, 5, 8, 7), "f8", "float32 or float16"),
        ((3, 5, 8, 7), "i4", "floats"),
    ],
)
def test_arrays_on_the_gpu_that_do_not_fit_are_refused(scoring, shape, dtype, words):
    gpu = shared_context()
    array = DeviceArray(1 << 32, shape, np.dtype(dtype))
    with pytest.raises(QanetError, match=words), score_people(gpu, array, BOXES, SIZE):
        pytest.fail("the block ran")
    assert not scoring.launches


def test_crops_of_a_frame_take_one_launch_and_equal_the_reference(kernels):
    image = np.random.default_rng(6).integers(0, 256, (*SIZE, 3), np.uint8)
    for count in (1, 3, 2, 3):
        got = crop_people(image, BOXES[:count], (16, 12))
        assert np.array_equal(got, choose_kernels().crop_people(image, BOXES[:count], (16, 12))) and got.flags.owndata
    assert [record.grid for record in kernels.launches] == [(1, 2, 1), (1, 2, 3), (1, 2, 2), (1, 2, 3)]
    assert crop_people(image, [], (16, 12)).shape == (0, 16, 12, 3)
    with pytest.raises(QanetError, match="the frame does not fit"):
        crop_people(image.astype(np.float32), BOXES, (16, 12))
