"""Folders of photographs: what each kind says of its pictures, which are held back, and what is wrong with a folder."""

import json

import cv2
import numpy as np
import pytest
from person_cases import write_people

from qanet.errors import QanetError
from qanet.train.detection.photographs import IGNORED, KINDS, Album, Photograph, read_photographs


def test_every_kind_says_what_it_knows(tmp_path):
    found = read_photographs(write_people(tmp_path))
    assert [p.kind for p in found] == [kind for kind in KINDS for _ in range(4)]
    assert found[0].name == "labelled/drawn/0.png" and found[0].rows.tolist() == [[10, 20, 35, 80, 1]]
    album = Album(found)
    assert [len(album[k][1]) for k in (0, 4, 8, 12)] == [1, 2, 0, 0]
    assert album[4][1][1].tolist() == [0, 0, 128, 96, IGNORED]  # of a partial one nothing else is known


def test_large_pictures_are_shrunk_with_their_boxes_once(tmp_path):
    album = Album(read_photographs(write_people(tmp_path)), longest_px=64)
    image, rows = album[0]
    assert image.shape == (48, 64, 3) and rows[0].tolist() == [5, 10, 17.5, 40, 1]
    rows[:] = 0
    assert album[0][0] is image and album[0][1][0, 4] == 1  # the pixels are kept, the rows are the caller's


def test_a_tenth_is_held_back_by_name_alone(tmp_path):
    def held(kind):
        rows = np.zeros((0, 5), np.float32)
        return [Photograph(tmp_path / f"{k}.png", kind, "s", "s", rows).held_back for k in range(999)]

    assert 60 < sum(held("labelled")) < 140 and 60 < sum(held("without_people")) < 140
    assert held("labelled") == held("labelled")
    assert not any(held("unlabelled")) and not any(held("partial"))


def test_frames_of_a_film_are_one_scene_and_numbered_photographs_each_their_own(tmp_path):
    labels = write_people(tmp_path) / "labelled" / "drawn" / "persons.json"
    document = json.loads(labels.read_text())
    origins = (
        "a/b:x/clip_mp4-1_jpg.rf.09a.jpg",
        "x/clip_mp4-22_jpg.rf.1.jpg",
        "000000009.jpg; licence 3",
        "12_jpg.rf.9",
    )
    for image, origin in zip(document["images"], origins):
        image["source"] = origin
    labels.write_text(json.dumps(document))
    scenes = [p.scene for p in read_photographs(tmp_path)]
    assert scenes[:4] == ["drawn/clip_mp-", "drawn/clip_mp-", "drawn/000000009", "drawn/12"]
    assert set(scenes[8:12]) == {"drawn/"}


def test_crowds_are_ignored_and_a_teachers_doubts_are_kept(tmp_path):
    labels = write_people(tmp_path) / "labelled" / "drawn" / "persons.json"
    document = json.loads(labels.read_text())
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1]["score"] = 0.25
    labels.write_text(json.dumps(document))
    found = read_photographs(tmp_path)
    assert found[0].rows[0, 4] == IGNORED and found[1].rows[0, 4] == 0.25


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(QanetError, match="no photographs of people in"):
        read_photographs(tmp_path)
    root = write_people(tmp_path / "people")
    labels = root / "labelled" / "drawn" / "persons.json"
    for text in ("{", "[]", json.dumps({"images": [], "annotations": [{"image_id": 2, "bbox": [0, 0, 1, 1]}]})):
        labels.write_text(text)
        with pytest.raises(QanetError, match="is not a file of labels"):
            read_photographs(root)
    labels.unlink()
    with pytest.raises(QanetError, match=r"no persons\.json in"):
        read_photographs(root)


def test_broken_pictures_are_named(tmp_path):
    root = write_people(tmp_path)
    (root / "labelled" / "drawn" / "images" / "0.png").write_bytes(b"no picture")
    assert cv2.imread(str(root / "labelled" / "drawn" / "images" / "1.png")) is not None
    with pytest.raises(QanetError, match=r"0\.png"):
        Album(read_photographs(root))[0]
