"""Scenes, labelled images and batches of the detector, and what `qanet train` says of folders that are not right."""

import json

import numpy as np
import pytest
from person_cases import write_backgrounds, write_ccp, write_labelled

from qanet.__main__ import main
from qanet.errors import QanetError
from qanet.train.detection.data import MOST_BOXES, PADDING, DetectionData, DetectionLoader
from qanet.train.detection.frames import LabelledImages
from qanet.train.detection.scenes.compose import clipped, compose, part_of, seen_boxes
from qanet.train.detection.scenes.people import CutPeople, turned, varied
from qanet.train.detection.targets import IGNORED
from qanet.train.recipe import Recipe

RECIPE = Recipe(
    "person-tiny", "personbox1", "detection", (64, 96), backbone="lite0-slim", width=16, batch_size=4,
    repeat_threshold=0.0, colour_jitter=0.0,
)  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    ccp, backgrounds = write_ccp(tmp_path / "ccp"), write_backgrounds(tmp_path / "backgrounds")
    write_labelled(tmp_path / "frames", "val", 2)
    (tmp_path / "frames").joinpath("train.json").unlink(missing_ok=True)
    return ccp, backgrounds, write_labelled(tmp_path / "frames")


def test_cut_people_are_the_mask_and_nothing_else(folders):
    people = CutPeople(folders[0], "train")
    person = people.person(0)
    assert len(people) == 5 and person.shape == (80, 40, 4)
    assert (person[..., 3] == 255).all() and (person[..., :3] == (30, 30, 220)).all()
    assert people.person(0) is person  # kept


def test_turned_people_keep_their_pixels():
    person = np.full((40, 20, 4), 255, np.uint8)
    lying = turned(person, 90)
    assert abs(lying.shape[0] - 20) <= 2 and abs(lying.shape[1] - 40) <= 2
    assert np.count_nonzero(lying[..., 3] > 127) == pytest.approx(800, rel=0.1)


def test_boxes_of_a_scene_hold_what_is_red():
    """People are red, backgrounds have hardly any: what the boxes say is what the pixels show."""
    person, background = np.full((80, 40, 4), 255, np.uint8), np.zeros((200, 300, 3), np.uint8)
    person[..., :3] = (0, 0, 255)
    found = 0
    for seed in range(30):
        image, boxes = compose(background, (96, 96), lambda: person, np.random.default_rng(seed))
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8 and boxes.shape[1] == 5
        assert (boxes[:, 2:4] > boxes[:, :2]).all() and (boxes[:, :4] == boxes[:, :4].clip(0, 96)).all()
        assert set(boxes[:, 4].tolist()) <= {1.0, IGNORED}
        for x0, y0, x1, y1, score in boxes.astype(int).tolist():
            if score == 1 and min(x1 - x0, y1 - y0) > 12:
                found += 1
                assert (image[y0:y1, x0:x1, 2] > 40).mean() > 0.2
    assert found > 30


def test_a_person_behind_another_is_boxed_by_what_is_seen():
    owner = np.zeros((50, 50), np.int32)
    owner[0:40, 0:20] = 1
    owner[10:50, 0:20] = 2
    owner[45:50, 30:40] = 3
    boxes = seen_boxes(owner, [800, 800, 800, 500])
    assert boxes[:2].tolist() == [[0, 0, 20, 10, IGNORED], [0, 10, 20, 50, 1]]
    assert len(boxes) == 2  # of the third hardly anything is seen, of the fourth nothing


def test_windows_of_labelled_images_move_their_boxes_along():
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:70] = 255
    boxes = np.array([[40, 30, 70, 90, 0.8]], np.float32)
    whole = 0
    for seed in range(40):
        window, moved = part_of(image, boxes, (96, 96), np.random.default_rng(seed))
        assert window.shape == (96, 96, 3)
        for x0, y0, x1, y1, score in moved:
            if score > 0 and x1 - x0 > 8 and y1 - y0 > 8:
                assert window[int(y0) + 2 : int(y1) - 2, int(x0) + 2 : int(x1) - 2].mean() > 200
                whole += 1
    assert whole > 20
    window, none = part_of(image, boxes[:0], (96, 96), np.random.default_rng(0))
    assert window.shape == (96, 96, 3) and none.shape == (0, 5)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10, 10, 30, 50, 0.7], [[10, 10, 30, 50, 0.7]]),
        ([-10, 10, 30, 50, 0.7], [[0, 10, 30, 50, 0.7]]),
        ([-30, 10, 10, 50, 0.7], [[0, 10, 10, 50, IGNORED]]),  # a quarter is left
        ([-60, 10, 4, 50, 0.7], []),
        ([70, 10, 90, 50, 0.7], []),
        ([10, 10, 14, 50, 0.7], [[10, 10, 14, 50, IGNORED]]),  # too thin to be asked for
    ],
)
def test_boxes_at_the_border(box, expected):
    got = clipped(np.array([box], np.float32), (64, 64))
    assert got.tolist() == np.array(expected, np.float32).reshape(-1, 5).tolist()


def test_batches_are_padded_and_the_same_each_time(folders):
    data = DetectionData(folders[0], folders[1], [folders[2]], length=10, scenes=0.45)
    loader = DetectionLoader(data, RECIPE, workers=2)
    batches, again = list(loader.epoch(0)), list(DetectionLoader(data, RECIPE, workers=1).epoch(0))
    assert len(loader) == len(batches) == 3
    for batch, same in zip(batches, again):
        assert batch.crops.shape == (4, 64, 64, 3) and batch.labels.shape == (4, MOST_BOXES, 5)
        assert (batch.crops == same.crops).all() and (batch.labels == same.labels).all()
        assert (batch.labels[:, -1, 4] == PADDING).all()
    assert any((batch.labels[..., 4] > 0).any() for batch in batches)
    assert not (next(iter(loader.epoch(1))).crops == batches[0].crops).all()


def test_labelled_images_say_what_is_wrong(tmp_path):
    root = write_labelled(tmp_path / "frames")
    images = LabelledImages(root, "train")
    assert len(images) == 4 and images.image(0).shape == (96, 128, 3)
    assert images.boxes[0].tolist() == [pytest.approx([10, 20, 35, 80, 0.9])]
    stray = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 2, "bbox": [0, 0, 1, 1]}]}
    for text, message in (
        ("{", "is not a file of labels"), ("[]", "is not a file of labels"),
        (json.dumps({"images": [], "annotations": []}), "has no images"),
        (json.dumps(stray), "is not a file of labels"),
    ):  # fmt: skip
        (root / "train.json").write_text(text)
        with pytest.raises(QanetError, match=message):
            LabelledImages(root, "train")
    with pytest.raises(QanetError, match="no val.json"):
        LabelledImages(root, "val")


def test_train_names_folders_that_are_missing(folders, tmp_path, capsys):
    ccp, backgrounds, frames = map(str, folders)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["--data", ccp], "needs photographs without people"),
        (["--data", ccp, "--backgrounds", str(tmp_path / "empty")], "no photographs in"),
        (["--data", str(tmp_path), "--backgrounds", backgrounds], "no data set at"),
        (["--data", ccp, "--backgrounds", backgrounds, "--labelled", ccp], "no train.json in"),
        (["--data", ccp, "--backgrounds", backgrounds, "--images", "0"], "bad training data"),
    ):
        assert main(["train", "person-lite0", *arguments, "--output", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err


def test_people_are_varied_at_the_height_asked_for():
    person = np.full((80, 40, 4), 255, np.uint8)
    heights = [varied(person, 50, np.random.default_rng(seed)).shape[0] for seed in range(60)]
    assert np.median(heights) == 50 and min(heights) < 40 and min(heights) >= 2
