"""The emulation's cases on a GPU, through the package's own launches; skipped where there is none."""

import numpy as np
import pytest
from cuda_emulation.cases import CROPS, SHAPES, check_definition, crop_definition, load_golden
from golden_cases import PIXEL_SCORE_CASES

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu():
    """A GPU with a driver, or the reason that there is none."""
    driver = pytest.importorskip("pycuda.driver", reason="no GPU tests: pycuda is not installed")
    try:
        driver.init()
    except driver.Error as error:
        pytest.skip(f"no GPU: {error}")
    if not driver.Device.count():
        pytest.skip("no GPU in this machine")


def pairs_of(views):
    """The arguments of the second view as `tail.pixel_score` takes them."""
    if not views:
        return {}
    pairs = [(left, int(right)) for left, right in enumerate(views["flip_classes"]) if left < right]
    return {"flipped_logits": views["flipped"], "flip_pairs": pairs}


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_golden_cases(golden, name):
    from qanet.runtime.cuda.tail import pixel_score

    case, image_hw, views = load_golden(golden, name)
    got = pixel_score(
        case["logits"].astype(np.float32), case["boxes_xyxy"], image_hw, float(case["threshold"]), **pairs_of(views)
    )
    for index, expected in enumerate(case["labels"]):
        sure = case["ambiguous"][index] == 0
        assert np.array_equal(got.full(index)[sure], expected[sure])
    np.testing.assert_allclose(got.pixel_scores, case["instance_pixel_scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.part_scores, case["category_pixel_scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes_and_the_same_bits_twice(shape, kind):
    from qanet.runtime.cuda.tail import pixel_score

    classes, map_hw, image_hw, boxes = SHAPES[shape]
    logits = np.random.default_rng(7).normal(0, 3, (len(boxes), classes, *map_hw)).astype(kind)
    boxes = np.array(boxes, np.float32)
    got, again = (pixel_score(logits, boxes, image_hw) for _ in range(2))
    check_definition(got, logits, boxes, 0.2)
    assert got.part_scores.tobytes() == again.part_scores.tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(got.labels, again.labels))


@pytest.mark.parametrize("shape", CROPS)
def test_crops(shape):
    from qanet.runtime.cuda.crop import crop_people

    image_hw, crop_hw, boxes = CROPS[shape]
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)
    for person, box in zip(crop_people(image, boxes, crop_hw), boxes):
        assert np.abs(person - crop_definition(image, box, crop_hw)).max() <= 0.5 + 2e-3
