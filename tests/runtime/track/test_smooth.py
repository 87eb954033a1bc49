"""Labels that flicker where nothing moves are held; what moves, turns or leaves is not smeared."""

import numpy as np
import pytest
from flicker import Flicker

from qanet.labels import CCP13
from qanet.results import People, Person
from qanet.runtime.track.smooth import LabelSmoother

ROI = (20, 10, 84, 110)  # x0 y0 x1 y1


def scene(shift=(0, 0), seed=7, noise=0.0, frame=0):
    """(160, 200, 3): a textured person before a textured wall, the person moved by `shift`; and the true labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (40, 50), np.uint8).repeat(4, 0).repeat(4, 1)
    image, labels = np.repeat(coarse[..., None], 3, 2).astype(float), np.zeros((160, 200), np.uint8)
    person = rng.integers(40, 216, (20, 10), np.uint8).repeat(4, 0).repeat(4, 1)
    x, y = 32 + shift[0], 20 + shift[1]
    image[y : y + 80, x : x + 40] = person[..., None]
    labels[y : y + 40, x : x + 40], labels[y + 40 : y + 80, x : x + 40] = 4, 6
    image += np.random.default_rng(frame).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def parsed(image, labels, roi=ROI, track=1, score=0.9, box=None):
    """A result of one person whose labels are cut out of a whole image's."""
    x0, y0, x1, y1 = roi
    part = labels[y0:y1, x0:x1].copy()
    there = np.bincount(part.ravel(), minlength=13)[1:] > 0
    scores = np.where(there, score, 0).astype(np.float32)
    box = np.array(box or roi, np.float32)
    person = Person(box, 0.9, score, score, score, scores, scores.copy(), part, roi, track)
    return People(image, CCP13, [person])


def spoiled(labels, frame, share=0.1):
    """Labels with a share of the person's pixels in a wrong class, others in every frame."""
    rng = np.random.default_rng(100 + frame)
    wrong = (rng.random(labels.shape) < share) & (labels > 0)
    return np.where(wrong, 9, labels).astype(np.uint8)


def errors(result, labels):
    """Share of the person's pixels that differ from the truth."""
    return float((result.labels != labels)[labels > 0].mean())


def test_flicker_of_a_still_person_is_held():
    smoother, before, after, late = LabelSmoother(), Flicker(), Flicker(), []
    for frame in range(12):
        image, truth = scene(noise=3, frame=frame)
        raw = spoiled(truth, frame)
        before.add(parsed(image, raw))
        smoothed = smoother(parsed(image, raw))
        after.add(smoothed)
        late.append(errors(smoothed, truth))
    assert before.share == pytest.approx(0.18, abs=0.01)  # 1 - 0.9^2 - 0.1^2
    assert after.share < 0.25 * before.share and max(late[4:]) < 0.03


def test_what_moves_along_is_smoothed_where_it_is():
    smoother, late = LabelSmoother(), []
    for frame in range(10):
        image, truth = scene((5 * frame, 2 * frame))
        x, y = 20 + 5 * frame + frame % 3, 10 + 2 * frame  # a box that jitters
        smoothed = smoother(parsed(image, spoiled(truth, frame), (x, y, x + 64, y + 100)))
        late.append(errors(smoothed, truth))
        inside = np.zeros(truth.shape, bool)
        inside[y : y + 100, x : x + 64] = True
        assert ((smoothed.labels > 0) & (truth == 0) & inside).sum() < 100  # no trail
    assert max(late[4:]) < 0.04


def test_another_picture_takes_its_own_labels_at_once():
    smoother = LabelSmoother()
    for _ in range(5):
        smoother(parsed(*scene()))
    image, truth = scene(seed=8)
    turned = np.where(truth == 4, 5, truth).astype(np.uint8)
    assert errors(smoother(parsed(image, turned)), turned) < 0.02


def test_a_class_that_stays_is_believed_after_a_few_frames():
    smoother = LabelSmoother()
    image, truth = scene()
    for _ in range(6):
        smoother(parsed(image, truth))
    changed = np.where(truth == 6, 7, truth).astype(np.uint8)
    held = [errors(smoother(parsed(image, changed)), changed) for _ in range(8)]
    assert held[0] > 0.4 and held[-1] == 0 and sorted(held, reverse=True) == held


def test_a_vote_weighs_as_much_as_its_score():
    """A doubtful frame changes nothing, a confident one outweighs a doubtful past."""
    image, truth = scene()
    changed = np.where(truth == 6, 7, truth).astype(np.uint8)
    for past, present, expected in ((0.9, 0.3, 6), (0.3, 0.9, 7)):
        smoother = LabelSmoother()
        smoother(parsed(image, truth, score=past))
        assert smoother(parsed(image, changed, score=present)).labels[80, 50] == expected


def test_scores_belong_to_the_parts_that_are_there():
    smoother = LabelSmoother()
    image, truth = scene()
    for _ in range(3):
        smoother(parsed(image, truth))
    lost = np.where(truth == 6, 0, truth).astype(np.uint8)
    person = smoother(parsed(image, lost))[0]
    assert 6 in person.labels and person.part_scores[5] == pytest.approx(0.9)
    speck = truth.copy()
    speck[30:32, 40:42] = 9
    person = smoother(parsed(image, speck))[0]
    assert 9 not in person.labels and person.part_scores[8] == 0


def test_people_without_a_number_and_without_pixels_are_left_alone():
    smoother = LabelSmoother()
    image, truth = scene()
    for frame in range(3):
        raw = spoiled(truth, frame)
        assert (smoother(parsed(image, raw, track=None)).labels == parsed(image, raw).labels).all()
        assert smoother(parsed(image, raw, roi=(50, 50, 50, 60), box=[49, 50, 50, 60])).labels.sum() == 0


def test_frames_of_another_size_begin_anew():
    smoother = LabelSmoother()
    image, truth = scene()
    for _ in range(3):
        smoother(parsed(image, truth))
    changed = np.where(truth == 6, 7, truth)[:120, :160].astype(np.uint8)
    assert errors(smoother(parsed(image[:120, :160].copy(), changed)), changed) == 0


@pytest.mark.parametrize("roi", [(0, 0, 3, 2), (190, 150, 200, 160), (0, 0, 200, 160)])
def test_regions_of_any_size_and_place_keep_theirs(roi):
    smoother = LabelSmoother()
    for frame in range(3):
        image, truth = scene((frame, 0))
        x0, y0, x1, y1 = roi
        assert smoother(parsed(image, truth, roi))[0].labels.shape == (y1 - y0, x1 - x0)


def test_the_measure_counts_still_pixels_of_people_only():
    meter = Flicker()
    image, truth = scene()
    assert meter.share == 0
    meter.add(parsed(image, truth))
    half = truth.copy()
    half[20:60] = np.where(truth[20:60] > 0, 5, 0)  # half of the person takes another class
    meter.add(parsed(image, half))
    assert meter.share == 0.5 and meter.still_px == 3200
    covered = image.copy()
    covered[14:50] = 255 - covered[14:50]
    meter.add(parsed(covered, truth))  # back again, but over most of it the picture changed
    assert 0.25 < meter.share < 0.45


def test_the_measure_goes_along_with_a_person_who_moves():
    meter = Flicker()
    for frame in range(6):
        image, truth = scene((5 * frame, 2 * frame))
        meter.add(parsed(image, truth, (20 + 5 * frame, 10 + 2 * frame, 84 + 5 * frame, 110 + 2 * frame)))
    assert meter.still_px > 5 * 2500 and meter.share < 0.02


def test_the_measure_compares_nobody_with_somebody_else():
    meter = Flicker()
    image, truth = scene()
    meter.add(parsed(image, truth, track=1))
    meter.add(parsed(image, truth, track=2))
    meter.add(parsed(image, truth, track=None))
    meter.add(parsed(image[:120, :160].copy(), truth[:120, :160], track=2))
    assert meter.still_px == 0 and meter.share == 0
