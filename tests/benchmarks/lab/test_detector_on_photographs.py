"""Detectors judged on photographs with truth: numbers by hand, the command, and what is wrong with a folder."""

import json

import cv2
import numpy as np
import pytest

from qanet.benchmarks.lab.detector_on_photographs import judge, main, report
from qanet.benchmarks.real import read_truth
from qanet.errors import QanetError
from qanet.runtime.detectors.base import NOBODY, Detections


class Seeing:
    """Finds the bright square of these photographs, with a score; or nobody."""

    name = "seeing"

    def __init__(self, score=0.9):
        self.score = score

    def detect(self, image, frame=0):
        ys, xs = np.nonzero(image[..., 0] > 128)
        if self.score == 0 or len(ys) == 0:
            return NOBODY
        box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
        return Detections(box, np.array([self.score], np.float32))


@pytest.fixture
def folder(tmp_path):
    """Three photographs: a square that is a person, one that is a crowd, and nothing."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number, bright in enumerate((True, True, False), start=1):
        image = np.zeros((60, 80, 3), np.uint8)
        if bright:
            image[10:40, 20:35] = 255
            annotations.append({"image_id": number, "bbox": [20, 10, 15, 30], "iscrowd": int(number == 2)})
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png"})
    (tmp_path / "persons.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return tmp_path


def test_two_detectors_by_hand(folder):
    first, second = report(judge(folder, [("sees", Seeing()), ("blind", Seeing(0))]), 0.5, 0.35)
    assert (first["ap"], first["recall"], first["precision"]) == (1, 1, 1)  # the crowd's square does not count
    assert (first["photographs"], first["people"], first["minus_first"]) == (3, 1, 0)
    assert (second["ap"], second["recall"], second["minus_first"]) == (0, 0, -1)
    assert np.isnan(second["precision"]) and first["cpu_ms"] >= 0


def test_the_command_judges_the_shipped_detector(folder, capsys):
    assert main(["person-lite0", "--data", str(folder), "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["detectors"][0]["people"] == 1
    assert main(["person-lite0", "--data", str(folder), "--threads", "1"]) == 0
    assert "person-lite0: AP50 0." in capsys.readouterr().out


def test_what_is_wrong_is_named(folder):
    with pytest.raises(QanetError, match="bad --iou"):
        main(["person-lite0", "--data", str(folder), "--iou", "0"])
    with pytest.raises(QanetError, match="cannot be saved"):
        main(["person-lite0", "--data", str(folder), "--threads", "1", "--save"])
    for text, message in (("{", "is not a file of labels"), ('{"images": [], "annotations": []}', "has no images")):
        (folder / "persons.json").write_text(text)
        with pytest.raises(QanetError, match=message):
            read_truth(folder)
    (folder / "persons.json").unlink()
    with pytest.raises(QanetError, match=r"no persons\.json in"):
        read_truth(folder)
