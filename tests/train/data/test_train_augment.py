"""Cut, covered and spoilt crops: image and labels stay together, and what cannot be seen is not asked for."""

import json

import cv2
import numpy as np
import pytest

from qanet.datasets import Sample
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.data.augment import Surroundings, cut, random_affine, spoil, training_crop
from qanet.train.data.people import BOTTOM, TOP
from qanet.train.data.scenery import Scenery, put_before, put_behind
from qanet.train.recipes import recipe

HAIR, DRESS = CCP13.classes.index("hair"), CCP13.classes.index("dress")


@pytest.fixture
def lady():
    """200x100 pixels: hair above a dress; every pixel's colour says where it is."""
    rows, columns = np.mgrid[:200, :100]
    image = np.stack([rows, columns, np.full_like(rows, 99)], 2).astype(np.uint8)
    labels = np.zeros((200, 100), np.uint8)
    labels[20:50, 30:70], labels[50:180, 30:70] = HAIR, DRESS
    return Sample("lady", image, labels, np.array([30, 20, 70, 180], np.float32))


def test_cuts_keep_pixels_and_labels_together_and_box_what_is_left(lady):
    changed = 0
    for seed in range(60):
        part = cut(lady, CCP13, np.random.default_rng(seed))
        height, width = part.labels.shape
        assert part.image.shape[:2] == (height, width)
        x0, y0, x1, y1 = part.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        top, left = part.image[0, 0, 0], part.image[0, 0, 1]
        there = lady.labels[top : top + height, left : left + width]
        assert ((part.labels != 0) == (there != 0)).all()
        changed += (x1 - x0) * (y1 - y0) < 0.9 * 40 * 160
    assert changed > 40


def test_a_dress_of_which_little_is_seen_may_be_something_else(lady):
    seen = set()
    for seed in range(60):
        seen |= set(np.unique(cut(lady, CCP13, np.random.default_rng(seed)).labels).tolist())
    assert {TOP, BOTTOM, DRESS, HAIR} <= seen


def test_a_person_of_few_pixels_is_not_cut(lady):
    lady.labels[:] = 0
    lady.labels[20, 30] = HAIR
    assert cut(lady, CCP13, np.random.default_rng(0)) is lady


def test_scenery_stands_behind_and_black_stays_black():
    crop, view = np.full((40, 40, 3), 200, np.uint8), np.full((40, 40, 3), 20, np.uint8)
    target, inside = np.zeros((40, 40), np.uint8), np.ones((40, 40), np.uint8)
    target[10:30, 10:30], inside[:, 35:], crop[:, 35:] = 1, 0, 0
    mixed = put_behind(crop, target, view, inside)
    assert mixed[20, 20, 0] == 200 and mixed[20, 2, 0] == 20 and mixed[20, 37, 0] == 0


def test_what_stands_in_front_is_background():
    covered = 0
    for seed in range(40):
        crop, target = np.full((80, 60, 3), 200, np.uint8), np.ones((80, 60), np.uint8)
        put_before(crop, target, np.full((80, 60, 3), 20, np.uint8), np.random.default_rng(seed))
        assert (target == 0).mean() <= 0.6 and (crop[target == 1] == 200).all()
        covered += (target == 0).any()
    assert covered > 30


def test_spoilt_crops_are_crops():
    crop = np.random.default_rng(0).integers(0, 255, (48, 36, 3)).astype(np.uint8)
    for seed in range(40):
        worse = spoil(crop, np.random.default_rng(seed))
        assert worse.shape == crop.shape and worse.dtype == np.uint8


def test_views_come_from_any_photograph(tmp_path):
    for name, hw in (("tall", (90, 20)), ("wide", (20, 90)), ("tiny", (9, 9))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((*hw, 3), 7, np.uint8))
    scenery = Scenery([tmp_path])
    for seed in range(20):
        assert scenery.view((96, 64), np.random.default_rng(seed)).shape == (96, 64, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(QanetError, match="no photographs"):
        Scenery([tmp_path / "empty"])


def test_a_folder_with_boxes_gives_the_photographs_without_people(tmp_path):
    photos = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    (tmp_path / "persons.json").write_text(json.dumps({"images": photos, "annotations": [{"image_id": 1}]}))
    assert Scenery([tmp_path]).files == [tmp_path / "images" / "b.png"]


def test_a_stretch_changes_the_aspect_alone(lady):
    still = {"scale_std": "0", "rotation_probability": "0", "shift_std": "0", "flip_probability": "0"}
    settings = recipe("ccp13-lite0", {**still, "aspect_std": "0.2"})
    plain, _ = random_affine(lady.box, recipe("ccp13-lite0", still), np.random.default_rng(0))
    stretched, _ = random_affine(lady.box, settings, np.random.default_rng(0))
    assert np.linalg.det(stretched[:, :2]) == pytest.approx(np.linalg.det(plain[:, :2]))
    assert stretched[0, 0] != pytest.approx(plain[0, 0])


def test_everything_at_once_is_repeatable(lady, tmp_path):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((50, 60, 3), 30, np.uint8))
    names = ("cut", "scenery", "cover", "spoil", "bystander")
    settings = recipe("ccp13-lite0", {"input_hw": "96x64", **{f"{name}_probability": "1" for name in names}})
    around = Surroundings(lambda _: lady, Scenery([tmp_path]))
    first, again = (training_crop(lady, settings, CCP13, np.random.default_rng(5), around) for _ in range(2))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
