"""The truth by eye is well formed, films are known by their hash, and a detector is judged on them."""

import json

import numpy as np
import pytest

from qanet.benchmarks.lab import detector_on_films as films
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detections

CLIPS = json.loads(films.TRUTH.read_text())["clips"]


def test_every_box_lies_in_its_frame():
    for clip in CLIPS:
        boxes = np.array([b for f in clip["frames"] for k in ("boxes", "ignore") for b in f[k]], float).reshape(-1, 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, 2] <= clip["width"]).all() and (boxes[:, 3] <= clip["height"]).all()
    assert sum(len(f["boxes"]) for clip in CLIPS for f in clip["frames"]) == 163
    assert [len(clip["frames"]) for clip in CLIPS] == [23, 15, 15]


def test_a_film_that_is_missing_or_another_is_an_error(tmp_path):
    with pytest.raises(QanetError, match="no film .*sports2d_demo.mp4"):
        next(films.frames_of(CLIPS[0], tmp_path))
    (tmp_path / "sports2d_demo.mp4").write_bytes(b"another")
    with pytest.raises(QanetError, match="is another film"):
        next(films.frames_of(CLIPS[0], tmp_path))


class Knowing:
    """Gives the true boxes, and one in an ignored area, which counts neither way."""

    name = "knowing"

    def __init__(self, clips):
        self.clips = iter([(frame["boxes"], frame["ignore"]) for clip in clips for frame in clip["frames"]])

    def detect(self, image, frame=0):
        boxes, ignore = next(self.clips)
        rows = np.array(boxes + ignore[:1], np.float32).reshape(-1, 4)
        return Detections(rows, np.full(len(rows), 0.9, np.float32))


def test_a_detector_that_knows_the_truth_is_perfect(shared, tmp_path, monkeypatch):
    folder = shared / "data" / "video"
    if not all((folder / clip["file"]).is_file() for clip in CLIPS):
        pytest.skip("the films are not there")
    monkeypatch.setattr(films, "open_for_ranking", lambda *_: Knowing(CLIPS))
    rows = films.judge(["knowing"], folder, tmp_path / "sheets")
    assert [row["recall"] for row in rows] == [1.0] * 4 and [row["precision"] for row in rows] == [1.0] * 4
    assert rows[-1]["people"] == 163 and len(list((tmp_path / "sheets").iterdir())) == 3
