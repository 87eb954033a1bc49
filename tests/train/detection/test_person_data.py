"""Draws and batches of the detector, and what `qanet train` says of folders that are not right."""

import numpy as np
import pytest
from person_cases import write_people

from qanet.__main__ import main
from qanet.errors import QanetError
from qanet.train.detection.data import MOST_BOXES, PADDING, DetectionData, DetectionLoader
from qanet.train.detection.photographs import Photograph, read_photographs
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
