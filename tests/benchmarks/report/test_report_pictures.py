"""The report's pictures: their size, the people in them, and which frames are shown."""

import cv2
import numpy as np
import pytest

from qanet.benchmarks.report.pictures import jpeg, overlay_frames, region_of_people


def test_jpeg_keeps_to_its_budget():
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), np.uint8)
    noise = np.repeat(np.repeat(noise[::8, ::8], 8, 0), 8, 1)
    picture = jpeg(noise, "noise", max_bytes=120_000)
    assert picture.data[:2] == b"\xff\xd8" and len(picture.data) <= 120_000 and picture.width == 1000
    wide = jpeg(np.zeros((100, 3000, 3), np.uint8), "wide")
    assert (wide.width, wide.height) == (1120, 37)


@pytest.mark.parametrize("boxes", [[[5, 5, 20, 60]], [[900, 400, 1000, 500], [0, 0, 50, 90]], [[990, 490, 999, 499]]])
def test_region_of_people_holds_the_boxes_inside_the_frame(boxes):
    boxes = np.array(boxes, np.float32)
    x0, y0, x1, y1 = region_of_people(boxes, (500, 1000))
    assert x0 >= 0 and y0 >= 0 and x1 <= 1000 and y1 <= 500
    assert (boxes[:, :2] >= [x0, y0]).all() and (boxes[:, 2:] <= [x1 + 1, y1 + 1]).all()


def test_overlay_frames_are_those_with_people(tmp_path):
    path = tmp_path / "overlay.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(20):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    people = [0] * 10 + [2] * 8 + [0] * 2
    captions = [picture.caption for picture in overlay_frames(path, people)]
    assert [int(c.split()[1]) for c in captions] == [11, 13, 15, 17] and "8 of 20" in captions[0]
    assert [int(p.caption.split()[1]) for p in overlay_frames(path)] == [2, 7, 12, 17]
