"""Draws and batches of the detector, and what `qanet train` says of folders that are not right."""

import numpy as np
import pytest
from person_cases import write_people

from qanet.__main__ import main
from qanet.errors import QanetError
from qanet.train.detection.data import (
    MOST_BOXES,
    PADDING,
    DetectionData,
    DetectionLoader,
    clipped,
    degraded,
    mosaic,
    part,
    training_image,
)
from qanet.train.detection.photographs import IGNORED, Photograph, read_photographs
from qanet.train.recipes import Recipe

RECIPE = Recipe(
    "person-tiny",
    "personbox1",
    "detection",
    (64, 96),
    backbone="lite0-slim",
    width=16,
    batch_size=4,
    repeat_threshold=0.0,
)


def test_batches_are_padded_and_the_same_each_time(tmp_path):
    data = DetectionData(read_photographs(write_people(tmp_path)), length=10)
    loader = DetectionLoader(data, RECIPE, workers=2)
    batches, again = list(loader.epoch(0)), list(DetectionLoader(data, RECIPE, workers=1).epoch(0))
    assert len(loader) == len(batches) == 3
    for batch, same in zip(batches, again):
        assert batch.crops.shape == (4, 64, 64, 3) and batch.labels.shape == (4, MOST_BOXES, 5)
        assert (batch.crops == same.crops).all() and (batch.labels == same.labels).all()
        assert (batch.labels[:, -1, 4] == PADDING).all()
    assert any((batch.labels[..., 4] > 0).any() for batch in batches)
    assert not (next(iter(loader.epoch(1))).crops == batches[0].crops).all()


def test_scenes_are_drawn_by_the_roots_of_their_sizes(tmp_path):
    nothing = np.zeros((0, 5), np.float32)
    sizes = {"film": 400, "photograph": 1, "other": 1}
    scenes = [scene for scene, size in sizes.items() for _ in range(size)]
    data = DetectionData([Photograph(tmp_path, "labelled", "s", scene, nothing) for scene in scenes], 1)
    shares = np.diff(data._edges, prepend=0)
    assert [shares[:400].sum(), *shares[400:]] == pytest.approx([20 / 22, 1 / 22, 1 / 22])


def test_of_too_many_boxes_those_that_silence_stay(tmp_path):
    class Crowd:
        names = ("crowd",)

        def draw(self, side, rng, calm=False):
            rows = np.tile(np.array([[1, 1, 9, 9, 1]], np.float32), (MOST_BOXES + 5, 1))
            rows[-1, 4] = -1
            return np.zeros((side, side, 3), np.uint8), rows

        def __len__(self):
            return 1

    batch = next(iter(DetectionLoader(Crowd(), RECIPE, workers=1).epoch(0)))
    assert batch.labels[0, 0, 4] == -1 and (batch.labels[0, 1:, 4] == 1).all()


def test_nothing_to_train_on_is_named():
    with pytest.raises(QanetError, match="nothing to train on"):
        DetectionData([], 4)


def test_train_names_folders_that_are_not_right(tmp_path, capsys):
    people = write_people(tmp_path / "people")
    for arguments, message in (
        (["--data", str(tmp_path)], "no photographs of people in"),
        (["--data", str(people)], "has photographs without labels"),
        (["--data", str(people), "--more", str(tmp_path)], "no photographs of people in"),
        (["--data", str(people), "--looks", str(tmp_path / "a.json")], "no looks at"),
    ):
        assert main(["train", "person-lite0", *arguments, "--output", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err


ROWS = np.array([[40, 30, 70, 90, 1]], np.float32)


def picture():
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:70] = 255
    return image, ROWS.copy()


def on_white(image, rows, margin=2):
    """Of the boxes that are asked for and large enough: whether they hold white alone."""
    inner = [
        image[int(y0) + margin : int(y1) - margin, int(x0) + margin : int(x1) - margin].mean() > 200
        for x0, y0, x1, y1, score in rows
        if score > 0 and min(x1 - x0, y1 - y0) > 10
    ]
    return inner


def test_parts_move_their_boxes_along():
    verdicts = []
    for seed in range(60):
        image, rows = part(*picture(), (96, 128), 1.0, np.random.default_rng(seed))
        assert image.shape == (96, 128, 3) and image.dtype == np.uint8
        verdicts += on_white(image, rows)
    assert len(verdicts) > 25 and all(verdicts)


def test_square_pictures_come_at_many_aspects():
    square, rows = np.zeros((128, 128, 3), np.uint8), np.array([[32, 32, 96, 96, 1]], np.float32)
    found = [part(square, rows, (320, 320), 0.5, np.random.default_rng(seed))[1] for seed in range(60)]
    aspects = [(r[0, 2] - r[0, 0]) / (r[0, 3] - r[0, 1]) for r in found if len(r)]
    assert min(aspects) < 0.85 and max(aspects) > 1.5


@pytest.mark.parametrize(("count", "least"), [(2, 25), (3, 25)])
def test_mosaics_hold_parts_of_many(count, least):
    verdicts, counts = [], []
    for seed in range(40):
        image, rows = mosaic(picture, 192, count, np.random.default_rng(seed))
        assert image.shape == (192, 192, 3) and (rows[:, :4] == rows[:, :4].clip(0, 192)).all()
        verdicts += on_white(image, rows)
        counts.append(len(rows))
    assert len(verdicts) > least and all(verdicts) and max(counts) > count * count - 2


def test_the_same_generator_gives_the_same_image():
    image, rows = training_image(picture, 96, np.random.default_rng(3))
    same, again = training_image(picture, 96, np.random.default_rng(3))
    assert (image == same).all() and (rows == again).all()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([10, 10, 30, 50, 0.7], [[10, 10, 30, 50, 0.7]]),
        ([-10, 10, 30, 50, 0.7], [[0, 10, 30, 50, 0.7]]),
        ([-30, 10, 10, 50, 0.7], [[0, 10, 10, 50, IGNORED]]),  # a quarter is left
        ([-60, 10, 4, 50, 0.7], []),
        ([-600, 10, 40, 50, IGNORED], [[0, 10, 40, 50, IGNORED]]),  # an area of which nothing is known stays one
        ([70, 10, 90, 50, 0.7], []),
        ([10, 10, 14, 50, 0.7], [[10, 10, 14, 50, IGNORED]]),  # too thin to be asked for
    ],
)
def test_boxes_at_the_border(row, expected):
    got = clipped(np.array([row], np.float32), (64, 64))
    assert got.tolist() == np.array(expected, np.float32).reshape(-1, 5).tolist()
    assert clipped(np.zeros((0, 5), np.float32), (64, 64)).shape == (0, 5)


def test_degraded_pictures_are_pictures():
    grey = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    for seed in range(60):
        image = degraded(grey, np.random.default_rng(seed))
        assert image.shape == grey.shape and image.dtype == np.uint8 and image.std() > 3
