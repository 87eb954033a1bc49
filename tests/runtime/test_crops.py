"""Crops of people for calibration: from a data set's labels, or from whatever a detector finds."""

import cv2
import numpy as np
import pytest
from official_sets import write_official

from qanet.datasets import format_of
from qanet.errors import QanetError
from qanet.runtime.crops import people_crops
from qanet.runtime.detectors.base import NOBODY, WholeImage


class Nobody:
    name = "nobody"

    def detect(self, image, frame=0):
        return NOBODY


@pytest.fixture
def data_set(tmp_path, people):
    """photos/ and labels/ of ten frames; the annotated person is the one who walks."""
    for folder in ("photos", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(10):
        image, labels = people(index), np.zeros((120, 160), np.uint8)
        labels[20:100, 20 + index : 60 + index] = 1
        cv2.imwrite(str(tmp_path / "data" / "photos" / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / "data" / "labels" / f"{index}.png"), labels)
    return tmp_path / "data"


def test_a_data_set_gives_its_people_spread_evenly(data_set):
    crops = people_crops(data_set, (64, 48), 4)
    batches = list(crops)
    assert crops.expected == 4 and [b.shape for b in batches] == [(1, 64, 48, 3)] * 4
    assert all(b[0, 20, 24].tolist() == [255, 0, 0] and b[0, 44, 24].tolist() == [0, 255, 0] for b in batches)


def test_the_train_split_is_taken_where_there_is_one(data_set):
    (data_set / "train.txt").write_text("3\n5\n")
    assert len(list(people_crops(data_set, (64, 48), 50))) == 2


def test_the_digest_tells_the_same_crops_from_others(data_set):
    digests = []
    for limit in (3, 3, 4):
        crops = people_crops(data_set, (64, 48), limit)
        assert len(list(crops)) == limit
        digests.append(crops.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_clip_gives_what_the_detector_finds_up_to_the_limit(make_clip):
    batches = list(people_crops(make_clip(12), (64, 48), 5, WholeImage()))
    assert sum(len(b) for b in batches) == 5 and batches[0].shape == (1, 64, 48, 3)


def test_a_clip_of_nobody_is_an_error(make_clip):
    with pytest.raises(QanetError, match="no people were found in .*clip.avi .*; next: give --detector ONNX"):
        list(people_crops(make_clip(3), (64, 48), 5, Nobody()))


@pytest.mark.parametrize(("format", "name", "split"), [("cihp", "CIHP", "val"), ("ppp", "PASCAL-Person-Part", "train")])
def test_official_layouts_are_found_by_their_names(tmp_path, format, name, split):
    root = write_official(tmp_path / name, name, split)
    assert format_of(root) == format == format_of(tmp_path)
    batches = list(people_crops(root, (64, 48), 10))
    assert [batch.shape for batch in batches] == [(1, 64, 48, 3)] * 3  # people, not images


def test_faces_and_photographs_are_told_apart_and_a_folder_of_images_is_none(tmp_path, data_set):
    assert format_of(data_set) == "ccp" and format_of(tmp_path) is None
    (data_set / "photos").rename(data_set / "images")
    assert format_of(data_set) == "celebamask"
    assert len(list(people_crops(data_set, (64, 48), 3))) == 3
