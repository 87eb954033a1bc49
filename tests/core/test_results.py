"""A result paints by quality, tells everything it knows as JSON, and draws on any image."""

import json
import sys

import cv2
import numpy as np
import pytest

from qanet import results, rle
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.results import People, Person


def person(quality, class_id, roi, **fields):
    x0, y0, x1, y1 = roi
    labels = np.full((y1 - y0, x1 - x0), class_id, np.uint8)
    labels[0, 0] = 0  # background never covers what lies under it
    scores = np.zeros(12, np.float32)
    scores[class_id - 1] = 0.75
    values = {"box": np.array(roi, np.float32), "box_score": 0.9, "iou_score": 0.8, "pixel_score": 0.7}
    return Person(
        **values
        | {"quality": quality, "part_scores": scores, "part_quality": scores / 2, "labels": labels, "roi": roi}
        | fields
    )


@pytest.fixture
def result():
    people = [person(0.3, 4, (0, 0, 6, 4)), person(0.9, 6, (4, 2, 10, 8), track_id=7), person(0.5, 2, (3, 0, 6, 3))]
    return People(np.full((9, 12, 3), 200, np.uint8), CCP13, people)


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
    drawn = People(image, CCP13, [person(0.9, 1, (100, 150, 200, 250))]).draw(alpha=0.0, legend=False)
    changed = (drawn != 127).any(2)
    assert changed[200, 98:103].any() and changed[250, 100:200].all() and not changed[160:240, 110:190].any()


def test_a_wide_image_can_be_shrunk_while_it_is_drawn(result):
    assert result.draw(max_width=6).shape == (4, 6, 3) and result.draw(max_width=600).shape == (9, 12, 3)


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (300, 1), (40, 50)])
@pytest.mark.parametrize("box", [[0, 0, 1, 1], [-1e6, -1e6, 1e6, 1e6], [0.2, 0.1, 0.4, 0.3]])
def test_drawing_works_at_any_size(hw, box):
    fields = {"box": np.array(box, np.float32), "labels": np.full(hw, 5, np.uint8), "track_id": 3}
    one = person(0.9, 5, (0, 0, hw[1], hw[0]), **fields)
    drawn = People(np.zeros((*hw, 3), np.uint8), CCP13, [one]).draw()
    assert drawn.shape == (*hw, 3) and drawn.any()


def test_nobody_draws_and_paints_nothing():
    empty = People(np.full((5, 6, 3), 9, np.uint8), CCP13, [])
    assert not empty.labels.any() and (empty.draw() == 9).all() and empty.to_json()["people"] == []


@pytest.mark.parametrize("image", [np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3), np.float32)])
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(QanetError, match=r"image does not fit .expected uint8 \(H, W, 3\), got"):
        People(image, CCP13, [])


def test_the_columns_are_arrays_in_the_order_of_the_people(result):
    assert result.boxes.tolist() == [[4, 2, 10, 8], [3, 0, 6, 3], [0, 0, 6, 4]] and result.boxes.dtype == np.float32
    assert result.quality.tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert result.track_ids.tolist() == [7, -1, -1]
    for name, value in (("scores", 0.9), ("iou", 0.8), ("pixel", 0.7)):
        assert getattr(result, name).tolist() == pytest.approx([value] * 3)
    assert result.part_quality.shape == result.part_scores.shape == (3, 12)


def test_an_empty_result_has_empty_columns_of_the_same_shape():
    empty = People(np.zeros((5, 7, 3), np.uint8), CCP13, [])
    assert empty.boxes.shape == (0, 4) and empty.quality.shape == empty.track_ids.shape == (0,)
    assert empty.part_quality.shape == (0, 12) and not empty.mask().any() and empty.to_coco() == []
    assert repr(empty) == "People(0 of ccp13, 5x7)"


def test_parts_are_found_by_name(result):
    assert result[0].part_scores["pants"] == 0.75 and result[0].part_quality["pants"] == 0.375
    assert result[0].part_scores["hair"] == 0 and result[0].part_scores.to_dict()["pants"] == 0.75
    assert float(result[0].part_scores[5]) == 0.75  # by position as before: class 6 without the background
    with pytest.raises(KeyError, match="no part 'tail'"):
        result[0].part_scores["tail"]


def test_masks_are_the_pixels_of_a_part_or_of_a_person(result):
    assert np.array_equal(result.mask("pants"), result.labels == 6)
    assert np.array_equal(result.mask(), result.labels > 0)
    below = result.mask(None, person=2)  # what lies on top of a person does not count
    assert below.sum() == 23 and np.array_equal(result.mask(4, person=2), below)
    with pytest.raises(QanetError, match=r"no part 'tail' in ccp13 \(expected one of background, .*hair"):
        result.mask("tail")


def test_a_repr_tells_what_matters_and_no_pixels(result):
    assert repr(result) == "People(3 of ccp13, 9x12, best Q 0.90)"
    assert repr(result[0]) == "Person(#7 Q 0.90, iou 0.80, pixel 0.70, box 0.90 at (4, 2, 10, 8))"


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp"])
def test_the_picture_is_saved_in_the_format_of_its_suffix(result, tmp_path, name):
    assert result.save(tmp_path / name) == tmp_path / name
    assert cv2.imread(str(tmp_path / name)).shape == (9, 12, 3) and result._repr_png_().startswith(b"\x89PNG")


def test_a_suffix_of_no_picture_is_an_error(result, tmp_path):
    with pytest.raises(QanetError, match=r"no picture format of this name .*got \.txt"):
        result.save(tmp_path / "out.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parts", [False, True])
def test_pycocotools_reads_the_coco_entries(result, parts):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools reads the entries")
    from pycocotools import mask as masks

    truth = coco.COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(CCP13.classes)]
    truth.dataset = {"images": [{"id": 7, "height": 9, "width": 12}], "annotations": [], "categories": categories}
    truth.createIndex()
    loaded = truth.loadRes(json.loads(json.dumps(result.to_coco(image_id=7, parts=parts))))
    entries = loaded.loadAnns(loaded.getAnnIds(imgIds=[7]))
    assert [e["score"] for e in entries] == pytest.approx([0.375] * 3 if parts else [0.9, 0.5, 0.3])
    assert [e["category_id"] for e in entries] == ([6, 2, 4] if parts else [1, 1, 1])
    for number, entry in enumerate(entries):
        assert np.array_equal(masks.decode(entry["segmentation"]) > 0, result.mask(None, number))
    assert entries[0]["bbox"] == [4, 2, 6, 6]


def test_other_libraries_get_their_types(result):
    pandas = pytest.importorskip("pandas", reason="people become a pandas.DataFrame")
    frame = result.to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 3
    assert frame.loc[0, "quality pants"] == pytest.approx(0.375) and frame["track_id"].tolist() == [7, -1, -1]


def test_supervision_gets_its_detections(result):
    pytest.importorskip("supervision", reason="people become supervision.Detections")
    found = result.to_supervision()
    assert len(found) == 3 and found.mask.shape == (3, 9, 12) and found.tracker_id.tolist() == [7, -1, -1]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5, 0.3])


def test_a_library_that_is_missing_is_named_with_its_command(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(QanetError, match="pandas is not installed; next: pip install pandas"):
        result.to_dataframe()
    with pytest.raises(QanetError, match="supervision is not installed"):
        result.to_supervision()


@pytest.mark.parametrize(("old", "new"), [("ParsingResult", "People"), ("PersonParsing", "Person")])
def test_the_old_names_still_work_and_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        assert getattr(results, old) is getattr(results, new)
    with pytest.raises(AttributeError):
        assert results.Nothing
