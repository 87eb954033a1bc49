"""The overlay: scores that can be read beside each other, a legend that fits, numbers where colours do not suffice."""

from dataclasses import replace

import numpy as np
import pytest

from qanet.drawing import draw_people
from qanet.labels import CCP13, MHP59
from qanet.results import People, Person

PAPER = 250


def person(box, quality=0.8, class_id=4, track_id=None):
    x0, y0, x1, y1 = (int(v) for v in box)
    labels = np.full((y1 - y0, x1 - x0), class_id, np.uint8)
    scores = np.full(58, 0.5, np.float32)
    return Person(np.array(box, np.float32), 0.9, 0.8, 0.7, quality, scores, scores, labels, (x0, y0, x1, y1), track_id)


def plates(before, after):
    """How many pixels became paper."""
    return int(((after == PAPER).all(2) & ~(before == PAPER).all(2)).sum())


def draw(image, people, label_set=CCP13, **options):
    result = People(image, label_set, people)
    given = {"alpha": 0.5, "boxes": True, "legend": True} | options
    return draw_people(image, result.labels, label_set, result.people, **given)


@pytest.mark.parametrize("hw", [(240, 320), (720, 1280), (1080, 1920)])
def test_scores_of_neighbours_do_not_cover_each_other(hw):
    image = np.full((*hw, 3), 90, np.uint8)
    height, width = hw
    side = width // 30
    left = [width // 2 + i * (side + 2) for i in range(3)]
    boxes = [(x, height // 2, x + side, height // 2 + 3 * side) for x in left]
    alone = [plates(image, draw(image, [person(box)], alpha=0.0, legend=False)) for box in boxes]
    together = plates(image, draw(image, [person(box) for box in boxes], alpha=0.0, legend=False))
    assert together > 0.9 * sum(alone)  # the boxes touch the plates at their edges only


def test_the_best_person_has_the_first_choice_of_a_place():
    image = np.full((400, 600, 3), 90, np.uint8)
    near = (305, 200, 335, 300)
    best_alone = draw(image, [person((300, 200, 330, 300), 0.9)], alpha=0.0, legend=False)
    both = draw(image, [person(near, 0.4), person((300, 200, 330, 300), 0.9)], alpha=0.0, legend=False)
    above = (slice(178, 196), slice(302, 360))
    assert np.array_equal(both[above], best_alone[above])


@pytest.mark.parametrize("box", [(0, 0, 600, 400), (0, 0, 30, 30), (560, 370, 600, 400), (-300, -200, 900, 800)])
def test_scores_are_inside_the_picture(box):
    image = np.full((400, 600, 3), 90, np.uint8)
    one = replace(person((0, 0, 2, 2)), box=np.array(box, np.float32))
    bare = draw(image, [replace(one, quality=0.0)], alpha=0.0, legend=False)
    middle = draw(image, [person((300, 200, 330, 300))], alpha=0.0, legend=False)
    assert plates(image, bare) > 0.5 * plates(image, middle)


def test_scores_keep_clear_of_the_legend():
    image = np.full((400, 600, 3), 90, np.uint8)
    people = [person((5, 40, 45, 140), 0.8)]
    legend_alone = draw(image, people, boxes=False)
    with_scores = draw(image, people)
    legend = (slice(2, 28), slice(2, 120))
    box_edge = np.abs(with_scores[legend].astype(int) - legend_alone[legend]).max(2) > 0
    assert not box_edge[:, 50:].any()


@pytest.mark.parametrize("shape", [(30, 200), (60, 500), (2000, 60), (720, 1280)])
def test_a_legend_of_many_classes_is_whole_or_not_there(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[-1, :58] = np.arange(1, 59)[: shape[1]]
    drawn = draw_people(image, labels, MHP59, [], alpha=0.0, boxes=False, legend=True)
    colours = {tuple(c) for c in drawn.reshape(-1, 3).tolist()}
    shown = [c for c in range(1, 59) if tuple(MHP59.colours_rgb[c, ::-1].tolist()) in colours]
    assert len(shown) in (0, 58)
    assert len(shown) == (58 if shape == (720, 1280) else 0)


def test_parts_of_large_sets_bear_the_numbers_of_the_legend():
    image = np.full((400, 600, 3), 90, np.uint8)
    one = person((300, 100, 400, 300), class_id=40)
    large = draw(image, [one], MHP59, boxes=False, alpha=1.0)
    inside = large[100:300, 300:400]
    colour = MHP59.colours_rgb[40, ::-1]
    rows, columns = np.nonzero((inside != colour).any(2))
    assert len(rows) > 30 and 30 < rows.min() < rows.max() < 170 and abs(columns.mean() - 50) < 6
    assert (draw(image, [one], MHP59, boxes=False, legend=False, alpha=1.0)[100:300, 300:400] == colour).all()
    small = draw(image, [person((300, 100, 400, 300), class_id=4)], boxes=False, alpha=1.0)
    assert (small[100:300, 300:400] == CCP13.colours_rgb[4, ::-1]).all()


def test_a_part_too_narrow_for_its_number_has_none():
    image = np.full((400, 600, 3), 90, np.uint8)
    drawn = draw(image, [person((300, 100, 304, 300), class_id=40)], MHP59, boxes=False, alpha=1.0)
    assert (drawn[100:300, 300:304] == MHP59.colours_rgb[40, ::-1]).all()
