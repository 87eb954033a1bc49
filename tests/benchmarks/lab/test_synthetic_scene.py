"""The pieces of a synthetic scene: classes translated, holes filled, people painted, boxes detected."""

import numpy as np
import pytest

from qanet.benchmarks.lab.synthetic_people import Cutout, mirrored_street, rules, translate
from qanet.benchmarks.lab.synthetic_scene import DetectorStyle, SceneStyle, box_iou, compose, detect, mirrored, resized
from qanet.datasets.official import LAYOUTS
from qanet.labels import CCP59, CIHP20, IGNORE, LABEL_SETS, label_set

BODY = [name for name in LABEL_SETS if name not in ("celebamask19", "person1", "personbox1")]
SKIN, SHOES, BAG, RING = (CCP59.classes.index(name) for name in ("skin", "shoes", "bag", "ring"))


@pytest.mark.parametrize("name", BODY)
def test_every_rule_ends_at_the_feet_and_names_classes(name):
    labels = label_set(name)
    table = rules(labels)
    assert table[0] == ((1.0, "background"),)
    for bands in table.values():
        heights = [until for until, _ in bands]
        assert heights == sorted(heights) and heights[-1] == 1.0
        for _, target in bands:
            named = [f"left-{target[2:]}", f"right-{target[2:]}"] if target.startswith("*-") else [target]
            assert set(named) <= set(labels.classes)


def test_every_layout_can_be_written():
    assert {layout.labels for layout in LAYOUTS.values()} <= set(BODY)


def test_skin_is_told_by_height_and_side():
    labels = translate(np.full((100, 10), SKIN, np.uint8), CIHP20)
    names = np.array(CIHP20.classes)[labels]
    assert [names[row, column] for row, column in ((0, 0), (19, 9), (20, 0), (54, 9), (55, 0), (99, 9))] == [
        "face",
        "face",
        "right-arm",
        "left-arm",
        "right-leg",
        "left-leg",
    ]


def test_what_has_no_counterpart_is_void_and_what_is_none_is_background():
    raw = np.array([[0, RING, BAG, SHOES]], np.uint8)
    assert translate(raw, CIHP20).tolist() == [[0, IGNORE, 0, CIHP20.classes.index("left-shoe")]]
    assert translate(raw, label_set("ccp13")).tolist() == [[0, IGNORE, 11, 9]]
    assert translate(raw, CCP59).tolist() == raw.tolist()


def test_a_mirrored_person_has_left_and_right_swapped():
    labels = translate(np.full((100, 10), SHOES, np.uint8), CIHP20)
    person = Cutout("p", np.zeros((100, 10, 3), np.uint8), labels, np.ones((100, 10), bool))
    assert np.array_equal(mirrored(person, CIHP20).labels, labels)  # the person's left is on the right again


def test_a_resized_person_keeps_hard_labels():
    labels = np.zeros((40, 20), np.uint8)
    labels[10:30, 5:15] = 4
    person = Cutout("p", np.full((40, 20, 3), 50, np.uint8), labels, labels > 0)
    for scale in (0.3, 1.0, 2.7):
        small = resized(person, scale)
        assert set(np.unique(small.labels)) == {0, 4} and small.mask.dtype == bool
        assert small.image.shape[:2] == small.labels.shape == small.mask.shape


@pytest.mark.parametrize(("x0", "x1"), [(40, 60), (2, 60), (40, 99), (30, 70), (95, 99)])
def test_a_hole_is_filled_with_the_street_beside_it(x0, x1):
    image = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (4, 1, 3))
    image[:, x0:x1] = 250  # the person
    filled = mirrored_street(image, x0, x1)
    assert filled.shape == image.shape and filled.max() < 101
    if x0 >= 30:
        assert filled[0, x0, 0] == x0 - 1  # mirrored at the hole's edge
    if 100 - x1 >= 30:
        assert filled[0, x1 - 1, 0] == x1


def test_a_photograph_full_of_a_person_is_blurred():
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3)).astype(np.uint8)
    assert mirrored_street(image, 5, 95).std() < 0.2 * image.std()


def block(value, hw=(60, 20)):
    """A person that is one class all over."""
    labels = np.full(hw, value, np.uint8)
    return Cutout(f"p{value}", np.full((*hw, 3), 40 * value, np.uint8), labels, np.ones(hw, bool))


def test_nearer_people_cover_farther_ones_and_edges_are_soft_in_the_image_only():
    style = SceneStyle(people=(6, 6), height_px=(200, 200), brightness=0, flip=0, visible=0.3, aspect=(1.0, 1.0))
    people = iter([block(value) for value in (1, 2, 3, 4, 5, 6)])
    background = np.full((200, 200, 3), 7, np.uint8)
    scene = compose(lambda: next(people), background, "street", CIHP20, style, np.random.default_rng(1))
    count = len(scene.names)
    assert count >= 3 and scene.background == "street" and (scene.visible >= 0.3).all() and scene.visible.min() < 1
    for number, name in enumerate(scene.names, start=1):
        own = scene.human == number
        assert set(np.unique(scene.category[own])) == {int(name[1:])}
        x0, y0, x1, y1 = scene.boxes[number - 1].astype(int)
        assert own[y0:y1, x0:x1].sum() == own.sum() and own[y0].any() and own[:, x1 - 1].any()
        inner = scene.image[own] == 40 * int(name[1:])
        assert 0.6 < inner.mean() < 1  # blended at the edge
    feet = [scene.boxes[number - 1][3] for number in range(1, count + 1)]
    assert feet == sorted(feet)  # far to near
    assert (scene.category[scene.human == 0] == 0).all()
    assert scene.part_table[:, 2].tolist() == list(range(1, count + 1))


def test_a_scene_goes_without_whoever_has_no_place():
    style = SceneStyle(people=(30, 30), height_px=(150, 150), aspect=(0.5, 0.5), flip=0, visible=0.6)
    scene = compose(lambda: block(1), np.zeros((9, 9, 3), np.uint8), "s", CIHP20, style, np.random.default_rng(0))
    assert 1 <= len(scene.names) < 30 and (scene.visible >= 0.6).all()


BOXES = np.array([[20, 20, 120, 300], [300, 40, 420, 380]], np.float32)
HW = (400, 640)


def many(style, visible=(1.0, 1.0), runs=300):
    rng = np.random.default_rng(0)
    found = [detect(BOXES, np.array(visible), HW, style, rng) for _ in range(runs)]
    return [np.concatenate(values) for values in zip(*found)]


def test_a_perfect_detector_finds_what_is_there():
    style = DetectorStyle(jitter=0, missed=0, doubled=0, spurious=0, score_noise=0)
    rows, ious = detect(BOXES, np.ones(2), HW, style, np.random.default_rng(0))
    assert sorted(rows[:, :4].tolist()) == BOXES.tolist() and ious.tolist() == [1, 1]
    assert rows[:, 4].tolist() == pytest.approx([0.75, 0.75])


def test_how_often_people_are_missed_doubled_and_made_up():
    plain = DetectorStyle(missed=0, doubled=0, spurious=0)
    count = {
        "missed": len(many(DetectorStyle(missed=0.2, doubled=0, spurious=0))[0]),
        "covered": len(many(DetectorStyle(missed=0, missed_covered=1, doubled=0, spurious=0), (0.5, 0.5))[0]),
        "doubled": len(many(DetectorStyle(missed=0, doubled=0.5, spurious=0))[0]),
        "spurious": len(many(DetectorStyle(missed=0, doubled=0, spurious=1.0))[0]),
    }
    assert len(many(plain)[0]) == 600
    expected = {"missed": 480, "covered": 300, "doubled": 900, "spurious": 900}
    assert all(abs(count[name] - expected[name]) < 75 for name in expected)


def test_scores_follow_the_overlap_only_loosely_and_boxes_stay_inside():
    rows, ious = many(DetectorStyle())
    assert (rows[:, :4] >= 0).all() and (rows[:, [0, 2]] <= HW[1]).all() and (rows[:, [1, 3]] <= HW[0]).all()
    assert (rows[:, 2:4] - rows[:, :2] >= 2).all() and rows[:, 4].min() >= 0.05 and rows[:, 4].max() <= 1
    somebody = ious > 0.2
    correlation = np.corrcoef(rows[somebody, 4], ious[somebody])[0, 1]
    assert 0.1 < correlation < 0.6
    assert (box_iou(rows[~somebody, :4], BOXES).max(1) <= 0.2).all() and 0.1 < (~somebody).mean() < 0.5


def test_a_scene_of_nobody_has_spurious_boxes_alone():
    rows, ious = detect(
        np.zeros((0, 4), np.float32), np.zeros(0), HW, DetectorStyle(spurious=5), np.random.default_rng(0)
    )
    assert len(rows) > 0 and not ious.any()
    rows, ious = detect(BOXES[:0], np.zeros(0), HW, DetectorStyle(spurious=0), np.random.default_rng(0))
    assert rows.shape == (0, 5) and ious.shape == (0,)
