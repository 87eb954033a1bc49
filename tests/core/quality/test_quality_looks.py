"""Averages of several looks: one look is the pixel score, many are the mean of what each pastes."""

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case
from tail_backends import assert_same, dense

from qanet.errors import QanetError
from qanet.quality import Look, PixelScores, average_looks, pixel_score, region_of, score_looks, unflip

PAIRS = [(1, 2), (4, 3)]


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_looks_equal_the_official_code(golden, name):
    arguments, case = read_case(golden, name)
    pairs = arguments.pop("flip_pairs", ())
    looks = [Look(arguments.pop("logits"), arguments["boxes"])]
    if "flipped_logits" in arguments:
        looks.append(Look(arguments.pop("flipped_logits"), arguments["boxes"], mirrored=True))
    del arguments["boxes"]
    assert_golden(average_looks(looks, **arguments, flip_pairs=pairs), case)


def make_looks(seed, people=2, classes=5, scales=(1.0, 0.8, 1.3), mirrored=True):
    """Looks of random logits, with boxes scaled about their centres."""
    rng = np.random.default_rng(seed)
    boxes = np.array([[5.3, 2.1, 30.2, 40.9], [-8.5, 10.0, 21.0, 70.25]][:people], np.float32)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    looks = []
    for scale in scales:
        where = np.concatenate([centre - scale * half, centre + scale * half], 1)
        for flipped in (False, True)[: 1 + mirrored]:
            logits = (3 * rng.standard_normal((people, classes, 6, 4))).astype(np.float32)
            looks.append(Look(logits, where, flipped))
    return looks


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("seed", range(3))
def test_looks_of_many_boxes_are_averaged_after_pasting(seed, threshold):
    looks, image_hw = make_looks(seed), (60, 48)
    turned = [unflip(v.logits, PAIRS) if v.mirrored else v.logits for v in looks]
    pasted = [np.mean([dense(m[i], v.boxes[i], image_hw) for m, v in zip(turned, looks)], 0) for i in range(2)]
    scored = average_looks(looks, image_hw, threshold, PAIRS)
    expected = reference(pasted, scored.rois, image_hw, threshold)
    assert_same(scored, expected, pasted, threshold)
    largest = [region_of(box, (6, 4), image_hw) for box in looks[-1].boxes]
    assert np.array_equal(scored.rois, largest)
    # the largest box alone reaches the rim: a sixth or a third of a probability there, below 0.45
    alone = average_looks(looks[-2:], image_hw, threshold, PAIRS)
    assert not np.array_equal(alone.full(0), scored.full(0))


def reference(pasted, rois, image_hw, threshold):
    """Labels and scores of pasted mean probabilities, a list of (C, H, W), in float64."""
    labels, pixel, parts = [], [], []
    for maps, (x0, y0, x1, y1) in zip(pasted, rois):
        best, winner = maps.max(0), maps.argmax(0)
        labels.append(np.where(best >= 1 / len(maps), winner, 0)[y0:y1, x0:x1].astype(np.uint8))
        inside = np.zeros(best.shape, bool)
        inside[y0:y1, x0:x1] = True
        sure = inside & (best >= threshold)
        pixel.append(best[sure].mean() if sure.any() else 0)
        chosen = [best[sure & (winner == c)] for c in range(1, len(maps))]
        parts.append([values.mean() if values.size else 0 for values in chosen])
    return PixelScores(rois, labels, np.array(pixel), np.array(parts), image_hw)


def test_thresholds_in_one_pass_are_what_each_is_alone():
    looks, thresholds = make_looks(5), (0.5, 0.1, 0.3, 0.9, 0.0)  # in no order
    swept = score_looks(looks, (60, 48), thresholds, PAIRS)
    assert swept.pixel_scores.shape == (2, 5) and swept.part_scores.shape == (2, 5, 4)
    for column, threshold in enumerate(thresholds):
        alone = average_looks(looks, (60, 48), threshold, PAIRS)
        np.testing.assert_array_equal(swept.pixel_scores[:, column], alone.pixel_scores)
        np.testing.assert_array_equal(swept.part_scores[:, column], alone.part_scores)
        assert all(np.array_equal(a, b) for a, b in zip(swept.labels, alone.labels))
    assert len(set(swept.pixel_scores[0].tolist())) == 5


def test_one_box_and_its_mirror_are_the_pixel_score_with_a_flip():
    plain, mirrored = make_looks(8, scales=(1.0,))
    ours = average_looks([plain, mirrored], (60, 48), 0.3, PAIRS)
    theirs = pixel_score(plain.logits, plain.boxes, (60, 48), 0.3, mirrored.logits, PAIRS)
    assert np.array_equal(ours.rois, theirs.rois) and np.array_equal(ours.full(1), theirs.full(1))
    np.testing.assert_allclose(ours.pixel_scores, theirs.pixel_scores, atol=1e-6)
    np.testing.assert_allclose(ours.part_scores, theirs.part_scores, atol=1e-6)


def test_a_person_outside_the_image_and_nobody_at_all():
    logits = np.ones((1, 3, 2, 2), np.float32)
    outside = average_looks([Look(logits, np.array([[90.0, 90, 95, 95]]))], (20, 30))
    assert outside.labels[0].size == 0 and outside.pixel_scores.tolist() == [0]
    nobody = average_looks([Look(logits[:0], np.zeros((0, 4)))], (20, 30))
    assert len(nobody.labels) == 0 and nobody.part_scores.shape == (0, 2)


ONE = Look(np.zeros((1, 3, 2, 2), np.float32), np.array([[0.0, 0, 4, 4]]))


@pytest.mark.parametrize(
    ("looks", "thresholds", "message"),
    [
        ([], (0.2,), "no look to average"),
        ([ONE], (), "no threshold"),
        ([ONE], (0.2, 1.0), "threshold out of range .expected 0 <= T < 1, got 1.0"),
        ([ONE, Look(np.zeros((1, 4, 2, 2), np.float32), ONE.boxes)], (0.2,), r"other people or classes .*\(1, 4\)"),
        ([Look(ONE.logits, np.zeros((2, 4)))], (0.2,), "boxes do not fit"),
        ([ONE, Look(np.full((1, 3, 2, 2), np.nan, np.float32), ONE.boxes, True)], (0.2,), "logits are not finite"),
    ],
)
def test_looks_that_do_not_fit_are_named(looks, thresholds, message):
    with pytest.raises(QanetError, match=message):
        score_looks(looks, (8, 8), thresholds)
