"""Scenes as a folder of labelled images, and pictures against the light."""

import json

import numpy as np
import pytest
from person_cases import write_backgrounds, write_ccp

from qanet.errors import QanetError
from qanet.train.detection.data import DetectionData
from qanet.train.detection.frames import LabelledImages
from qanet.train.detection.scenes.light import against_light
from qanet.train.detection.scenes.write import main, write_scenes
from qanet.train.detection.targets import IGNORED


@pytest.fixture
def folders(tmp_path):
    return write_ccp(tmp_path / "ccp"), write_backgrounds(tmp_path / "backgrounds")


def test_scenes_are_labelled_images_and_the_same_for_a_seed(folders, tmp_path):
    data = DetectionData(*folders, [], length=1, scenes=1.0)
    done = write_scenes(data, 12, 96, tmp_path / "a")
    write_scenes(data, 12, 96, tmp_path / "b")
    write_scenes(data, 12, 96, tmp_path / "c", seed=1)
    images = LabelledImages(tmp_path / "a", "train")
    boxes = np.concatenate(images.boxes)
    assert done["images"] == len(images) == 12 and done["boxes"] == len(boxes) > 8
    assert set(boxes[:, 4].tolist()) <= {1.0, IGNORED} and (boxes[:, 4] == 1).any()
    assert (boxes[:, :4] >= 0).all() and (boxes[:, :4] <= 96).all() and (boxes[:, 2:4] > boxes[:, :2]).all()
    files = {name: (tmp_path / name / "train" / "000003.jpg").read_bytes() for name in "abc"}
    assert files["a"] == files["b"] != files["c"] and images.image(3).shape == (96, 96, 3)
    texts = {name: (tmp_path / name / "train.json").read_text() for name in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]


def test_people_in_the_scenes_are_where_the_boxes_say(folders, tmp_path):
    """The drawn people are red and nothing else is."""
    main(["--data", str(folders[0]), "--backgrounds", str(folders[1]), "--count", "30", "--side", "128",
          "--output", str(tmp_path / "out")])  # fmt: skip
    images = LabelledImages(tmp_path / "out", "train")
    inside, outside = [], []
    for index in range(len(images)):
        blue, _, red = np.moveaxis(images.image(index).astype(int), 2, 0)
        there = np.zeros(red.shape, bool)
        for x0, y0, x1, y1, score in images.boxes[index].astype(int).tolist():
            there[y0:y1, x0:x1] = True
            if score == 1:
                inside.append(np.mean((red - blue)[y0:y1, x0:x1]))
        outside.append(np.mean((red - blue)[~there]) if (~there).any() else 0)
    assert np.mean(inside) > 25 > np.mean(outside)


def test_bad_numbers_are_refused(folders, tmp_path):
    with pytest.raises(QanetError, match="bad --count, --side or --seed .*got .*0, 512, 0"):
        main(["--data", str(folders[0]), "--backgrounds", str(folders[1]), "--count", "0", "--output", str(tmp_path)])
    assert not (tmp_path / "train.json").exists()


def test_against_the_light_blacks_are_lifted_and_nothing_wraps_round():
    rng = np.random.default_rng(0)
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    image[:20], image[40:] = 0, 255
    lit = [against_light(image, rng) for _ in range(40)]
    assert all(picture.shape == image.shape and picture.dtype == np.uint8 for picture in lit)
    assert all((p[40:].min((0, 1)) >= p[:20].max((0, 1))).all() for p in lit)  # light is added: black stays below
    assert np.mean([picture[:20].mean() for picture in lit]) > 10  # a veil and a glare on black
    assert min(picture[40:].min() for picture in lit) > 130  # white stays bright, whatever the veil's colour
    same = [against_light(image, np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*same) and not np.array_equal(same[0], lit[0])


def test_the_file_is_json_that_says_where_it_comes_from(folders, tmp_path):
    write_scenes(DetectionData(*folders, [], length=1, scenes=1.0), 1, 64, tmp_path)
    assert "synthetic" in json.loads((tmp_path / "train.json").read_text())["info"]["description"]
