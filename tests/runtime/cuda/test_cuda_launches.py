"""What is launched on a GPU, as numbers, against numbers worked out by hand; no GPU, real or made up."""

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.geometry import subsamples
from qanet.runtime.cuda import tail as plan
from qanet.runtime.cuda.crop import MAX_SAMPLES, crop_launch
from qanet.runtime.cuda.gpu_context import DeviceArray, Launch

# A crop of 64x64 pixels laid over as many of the image reaches half a pixel beyond its box: the next pixel's centre.
BOXES = np.array([[10, 20, 74, 84], [-100, -100, -50, -50], [90, 0, 154, 64]], np.float32)


def test_regions_lie_one_after_another_and_tiles_are_of_the_largest():
    regions = plan.plan_regions(BOXES, (16, 16), (100, 120))
    assert regions.rois.dtype == np.int32 and regions.offsets.dtype == np.int64
    assert regions.rois.tolist() == [[9, 19, 75, 85], [0, 0, 0, 0], [89, 0, 120, 65]]
    assert regions.sizes == [(66, 66), (0, 0), (65, 31)]
    assert regions.offsets.tolist() == [0, 4356, 4356] and regions.nbytes == 4356 + 65 * 31
    assert regions.tiles == 3 * 9


@pytest.mark.parametrize(
    "size, tiles", [((8, 32), 1), ((9, 32), 2), ((8, 33), 2), ((17, 65), 9), ((1, 1), 1), ((1080, 1920), 60 * 135)]
)
def test_tiles_of_a_whole_image(size, tiles):
    box = np.array([[-1000, -1000, 4000, 4000]], np.float32)
    assert plan.plan_regions(box, (4, 4), size).tiles == tiles


def test_nobody_and_nothing_in_the_image_still_make_a_plan():
    nobody = plan.plan_regions(np.zeros((0, 4), np.float32), (4, 4), (10, 10))
    assert (nobody.rois.shape, nobody.offsets.shape, nobody.nbytes, nobody.tiles) == ((0, 4), (0,), 0, 1)
    outside = plan.plan_regions(BOXES[1:2], (4, 4), (10, 10))
    assert (outside.nbytes, outside.tiles, outside.sizes) == (0, 1, [(0, 0)])


def test_blocks_that_travel_are_laid_out_by_hand():
    assert plan.parameter_layout(3, 20) == plan.ParameterLayout(0, 24, 72, 120, 200)
    assert plan.result_layout(3, 20, 1000) == plan.ResultLayout(0, 12, 240, 256, 1256)  # 3 * 21 words: 252 bytes
    assert plan.result_layout(16, 20, 0).labels == 1536  # 16 * 21 words: 1344 bytes
    assert plan.workspace_layout(3, 20) == plan.WorkspaceLayout(0, 960, 972)
    regions, classes = plan.plan_regions(BOXES, (16, 16), (100, 120)), plan.flip_classes(5, [(1, 2)])
    assert classes.tolist() == [0, 2, 1, 3, 4]
    block = np.zeros(plan.parameter_layout(3, 5).nbytes, np.uint8)
    plan.pack_parameters(BOXES, regions, classes, block)
    assert block[:24].view(np.int64).tolist() == regions.offsets.tolist()
    assert np.array_equal(block[24:72].view(np.float32).reshape(3, 4), BOXES)
    assert np.array_equal(block[72:120].view(np.int32).reshape(3, 4), regions.rois)
    assert np.array_equal(block[120:].view(np.int32), classes)


@pytest.mark.parametrize("dtype, function", [("float32", "pixel_score_f32"), ("float16", "pixel_score_f16")])
def test_the_launch_of_the_pixel_score(dtype, function):
    addresses = (1000, 0, 2000, 3000, 4000)  # logits, flipped, parameters, labels, workspace
    launch = plan.score_launch(np.dtype(dtype), (3, 20, 128, 96), 77, 0.25, *addresses)
    arguments = (1000, 0, 2120, 2024, 2072, 2000, 20, 128, 96, 0.25, 3000, 4000, 4960, 10_240)
    assert launch == Launch("pixel_score", function, "PPPPPPiiifPPPi", arguments, (77, 3, 1), (32, 8, 1), 40_960)


def test_the_launches_that_finish_and_crop():
    assert plan.finish_launch(3, 20, 4000, 8192) == Launch(
        "pixel_score", "pixel_score_finish", "PPiPPP", (4000, 4960, 20, 8192, 8204, 8432), (3, 1, 1), (256, 1, 1)
    )
    image = DeviceArray(100, (720, 1280, 3), np.dtype(np.uint8))
    crops = DeviceArray(200, (5, 512, 384, 3), np.dtype(np.uint8))
    assert crop_launch(image, 300, crops, mirrored=400) == Launch(
        "crop", "crop_people", "PqiiPiiiPP", (100, 3840, 720, 1280, 300, 512, 384, 8, 200, 400), (12, 64, 5), (32, 8, 1)
    )
    assert crop_launch(image, 300, DeviceArray(200, (1, 9, 33, 3), np.dtype(np.uint8))).grid == (2, 2, 1)
    assert subsamples(np.array([[99.0, 0, 0], [0, 99.0, 0]])) == (MAX_SAMPLES, MAX_SAMPLES)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plan.score_launch(np.dtype("f8"), (1, 2, 3, 4), 1, 0, 0, 0, 0, 0, 0), "expected float32 or"),
        (lambda: plan.finish_launch(0, 2, 0, 0), "cannot be launched at once"),
        (lambda: plan.score_launch(np.dtype("f4"), (70_000, 2, 3, 4), 1, 0, 0, 0, 0, 0, 0), "fewer people"),
        (lambda: plan.flip_classes(5, [(1, 5)]), "flip pair is out of range"),
        (lambda: plan.flip_classes(5, [(-1, 2)]), "flip pair is out of range"),
    ],
)
def test_what_cannot_be_launched_is_refused(call, words):
    with pytest.raises(QanetError, match=words):
        call()
