"""A result paints by quality, tells everything it knows as JSON, and draws on any image."""

import json

import numpy as np
import pytest

from qanet import rle
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.results import ParsingResult, PersonParsing


def person(quality, class_id, roi, **fields):
    x0, y0, x1, y1 = roi
    labels = np.full((y1 - y0, x1 - x0), class_id, np.uint8)
    labels[0, 0] = 0  # background never covers what lies under it
    scores = np.zeros(12, np.float32)
    scores[class_id - 1] = 0.75
    values = {"box": np.array(roi, np.float32), "box_score": 0.9, "iou_score": 0.8, "pixel_score": 0.7}
    return PersonParsing(
        **values
        | {"quality": quality, "part_scores": scores, "part_quality": scores / 2, "labels": labels, "roi": roi}
        | fields
    )


@pytest.fixture
def result():
    people = [person(0.3, 4, (0, 0, 6, 4)), person(0.9, 6, (4, 2, 10, 8), track_id=7), person(0.5, 2, (3, 0, 6, 3))]
    return ParsingResult(np.full((9, 12, 3), 200, np.uint8), CCP13, people)


def test_people_come_best_first_and_the_best_is_painted_on_top(result):
    assert [p.quality for p in result] == [0.9, 0.5, 0.3]
    assert len(result) == 3 and result[0].track_id == 7 and result.image_size == (9, 12)
    assert result.labels[:4].tolist() == [
        [0, 4, 4, 4, 2, 2, 0, 0, 0, 0, 0, 0],
        [4, 4, 4, 2, 2, 2, 0, 0, 0, 0, 0, 0],
        [4, 4, 4, 2, 2, 6, 6, 6, 6, 6, 0, 0],
        [4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 0, 0],
    ]


def test_json_tells_everything_and_its_masks_are_the_labels(result):
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["image_size"] == [9, 12] and document["label_set"] == "ccp13"
    best = document["people"][0]
    assert best["box_xyxy"] == [4, 2, 10, 8] and best["track_id"] == 7 and "track_id" not in document["people"][1]
    assert [best[k] for k in ("box_score", "iou_score", "pixel_score", "quality")] == [0.9, 0.8, 0.7, 0.9]
    (part,) = best["parts"]
    mask = np.zeros((9, 12), np.uint8)
    mask[2:8, 4:10] = 1
    mask[2, 4] = 0
    assert np.array_equal(rle.decode(part.pop("rle")), mask)
    assert part == {"class": "pants", "class_id": 6, "pixel_score": 0.75, "quality": 0.375, "area_px": 35}


def test_masks_can_be_left_out(result):
    assert all("rle" not in part for p in result.to_json(masks=False)["people"] for part in p["parts"])


def test_drawing_covers_the_parts_and_leaves_the_image(result):
    before = result.image.copy()
    drawn = result.draw(boxes=False, legend=False, alpha=1.0)
    labels = result.labels
    assert np.array_equal(drawn[labels == 6], np.tile(CCP13.colours_rgb[6, ::-1], ((labels == 6).sum(), 1)))
    assert (drawn[labels == 0] == 200).all() and np.array_equal(result.image, before)


def test_a_box_is_drawn_where_it_is():
    image = np.full((300, 400, 3), 127, np.uint8)
    drawn = ParsingResult(image, CCP13, [person(0.9, 1, (100, 150, 200, 250))]).draw(alpha=0.0, legend=False)
    changed = (drawn != 127).any(2)
    assert changed[200, 98:103].any() and changed[250, 100:200].all() and not changed[160:240, 110:190].any()


def test_a_wide_image_can_be_shrunk_while_it_is_drawn(result):
    assert result.draw(max_width=6).shape == (4, 6, 3) and result.draw(max_width=600).shape == (9, 12, 3)


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (40, 50)])
@pytest.mark.parametrize("box", [[0, 0, 1, 1], [-1e6, -1e6, 1e6, 1e6], [0.2, 0.1, 0.4, 0.3]])
def test_drawing_works_at_any_size(hw, box):
    fields = {"box": np.array(box, np.float32), "labels": np.full(hw, 5, np.uint8), "track_id": 3}
    one = person(0.9, 5, (0, 0, hw[1], hw[0]), **fields)
    drawn = ParsingResult(np.zeros((*hw, 3), np.uint8), CCP13, [one]).draw()
    assert drawn.shape == (*hw, 3) and drawn.any()


def test_nobody_draws_and_paints_nothing():
    empty = ParsingResult(np.full((5, 6, 3), 9, np.uint8), CCP13, [])
    assert not empty.labels.any() and (empty.draw() == 9).all() and empty.to_json()["people"] == []


@pytest.mark.parametrize("image", [np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3), np.float32)])
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(QanetError, match=r"image does not fit .expected uint8 \(H, W, 3\), got"):
        ParsingResult(image, CCP13, [])
