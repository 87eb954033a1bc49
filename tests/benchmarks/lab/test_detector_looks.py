"""Looks of two detectors at a folder of photographs: what is written, what is not looked at again, what is refused."""

import json

import cv2
import numpy as np
import pytest
from person_cases import write_people

from qanet.benchmarks.lab.detector_looks import Nanodet, look_at, looks_of, main
from qanet.errors import QanetError


def test_all_looks_see_the_walkers(shared):
    models = shared / "data" / "models"
    looks = looks_of([models / "yolox_nano.onnx", models / "nanodet_m_416.onnx"], threads=1)
    capture = cv2.VideoCapture(str(shared / "data" / "video" / "vtest.avi"))
    read, image = capture.read()
    assert read and len(looks) == 3
    found = [look(image) for look in looks]
    assert all(3 <= np.count_nonzero(one.scores > 0.35) <= 10 for one in found)
    for one in found:  # pedestrians: upright, and inside the frame
        sure = one.boxes[one.scores > 0.35]
        assert ((sure[:, 3] - sure[:, 1]) > (sure[:, 2] - sure[:, 0])).mean() > 0.8
        assert (one.boxes >= 0).all() and (one.boxes <= [768, 576, 768, 576]).all()
    with pytest.raises(QanetError, match="is no NanoDet"):
        Nanodet(models / "yolox_nano.onnx")


def test_pictures_are_looked_at_once(shared, tmp_path, capsys):
    people = write_people(tmp_path / "people", 2)
    models = shared / "data" / "models"
    output = tmp_path / "looks.json"
    command = [
        str(people),
        "--detector",
        str(models / "yolox_nano.onnx"),
        "--detector",
        str(models / "nanodet_m_416.onnx"),
        "--output",
        str(output),
        "--threads",
        "1",
    ]
    assert main(command) == 0
    assert "4 of 4 pictures looked at" in capsys.readouterr().out
    document = json.loads(output.read_text())
    assert document["looks"] == 3 and set(document["seen"]) == {
        f"{kind}/drawn/{number}.png" for kind in ("labelled", "unlabelled") for number in (0, 1)
    }
    assert all(len(row) == 6 for rows in document["seen"].values() for row in rows)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["looked_at"] == 0


def test_what_is_refused(tmp_path):
    with pytest.raises(QanetError, match="no pictures"):
        look_at([tmp_path], [], tmp_path / "looks.json")
    people = write_people(tmp_path / "people", 1)
    with pytest.raises(QanetError, match="one detector is not enough"):
        look_at([people], [tmp_path / "a.onnx"], tmp_path / "looks.json")
    with pytest.raises(QanetError, match="no detector at"):
        look_at([people], [tmp_path / "a.onnx", tmp_path / "b.onnx"], tmp_path / "looks.json")
