"""Masks of people: crops in, results out, with an engine whose logits are the crop's own pixels."""

import json
import sys

import numpy as np
import pytest
from coco_cases import SIDE, write_people

from qanet.bundle import create
from qanet.coco.annotations import read_annotation_file
from qanet.errors import QanetError
from qanet.geometry import crop_boxes
from qanet.quality import fuse_quality, mask_score
from qanet.rle import decode
from qanet.runtime.cli.masks import truth_of_people
from qanet.runtime.mask_parser import MaskParser, annotated_boxes, detected_boxes, mask_images, result_of

CROP = (64, 64)


class RedEngine:
    """A pixel's logit is how red it is: the mask of whatever is red. The predicted IoU is the mean of the left half."""

    runtime, precision, outputs = "fake", "fp32", ("logits", "iou_scores")

    def __init__(self):
        self.batches = []

    def run(self, crops, box_scores):
        self.batches.append(len(crops))
        assert crops.dtype == np.uint8 and crops.flags.c_contiguous and len(box_scores) == len(crops)
        red = crops[..., 2].astype(np.float32).reshape(len(crops), 16, 4, 16, 4).mean((2, 4))
        return {"logits": (red[:, None] - 128) / 16, "iou_scores": crops[:, :, :32, 2].mean((1, 2)) / 128}


@pytest.fixture
def bundle(tmp_path):
    return create(
        tmp_path / "m.qanet", labels="person1", input_hw=list(CROP), qam_weights=[1, 0.5, 3], pixel_score_threshold=0.25
    )


def picture():
    """(80, 100, 3) BGR: a red block on black."""
    image = np.zeros((80, 100, 3), np.uint8)
    image[20:60, 30:70, 2] = 255
    return image


BOXES = np.array([[30, 20, 70, 60], [25, 10, 60, 70], [60, 50, 99, 79]], np.float32)


def test_masks_and_scores_are_those_of_the_reference(bundle):
    engine = RedEngine()
    scores = np.array([1, 0.5, 0.9], np.float32)
    people = MaskParser(bundle, engine)(picture(), BOXES, scores)
    assert engine.batches == [3] and [p.box_score for p in people] == pytest.approx([1, 0.5, 0.9])
    from qanet.runtime.kernels import choose_kernels

    grown = crop_boxes(BOXES, CROP)
    outputs = engine.run(choose_kernels().crop_people(picture(), grown, CROP), scores)
    expected = mask_score(outputs["logits"], grown, (80, 100), 0.25)
    iou = np.clip(outputs["iou_scores"], 0, 1)
    quality = fuse_quality(scores, iou, expected.pixel_scores, (1, 0.5, 3))
    for index, person in enumerate(people):
        assert np.array_equal(person.mask, expected.full(index)) and np.array_equal(person.box, BOXES[index])
        assert person.pixel_score == expected.pixel_scores[index] and person.iou_score == iou[index]
        assert person.quality == quality[index]
    truth = picture()[..., 2] > 0
    assert (people[0].mask & truth).sum() / (people[0].mask | truth).sum() > 0.9


def test_flipped_crops_are_averaged(bundle):
    engine = RedEngine()
    plain, flipped = (MaskParser(bundle, engine, flip)(picture(), BOXES) for flip in (False, True))
    assert engine.batches == [3, 3, 3]
    for one, two in zip(plain, flipped):  # this engine sees a mirrored crop as it sees the crop
        assert (one.mask != two.mask).mean() < 0.01
    assert flipped[1].iou_score != plain[1].iou_score  # of the left half only, which the mirror changes


def test_many_people_come_in_batches(bundle):
    engine = RedEngine()
    people = MaskParser(bundle, engine)(picture(), np.tile(BOXES, (7, 1)))
    assert engine.batches == [16, 5] and len(people) == 21
    assert np.array_equal(people[20].mask, people[2].mask)
    assert MaskParser(bundle, engine)(picture(), np.zeros((0, 4), np.float32)) == []


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [
        ([[30, 20, 30, 60]], None, "box 0 is empty"),
        ([[300, 20, 330, 60]], None, "wholly outside"),
        ([[0, 0, 9, 9]], [0.5, 0.5], r"box_scores do not fit .expected \(1,\)"),
        ([[0, 0, 9, 9]], [1.5], "do not fit"),
        ([[0, 0, 9, 9]], [np.nan], "do not fit"),
    ],
)
def test_bad_boxes_are_named(bundle, boxes, scores, message):
    given = None if scores is None else np.array(scores, np.float32)
    with pytest.raises(QanetError, match=message):
        MaskParser(bundle, RedEngine())(picture(), np.array(boxes, np.float32), given)


def test_a_bundle_of_another_task_is_refused(tmp_path):
    other = create(tmp_path / "p.qanet", labels="ccp13", input_hw=list(CROP))
    with pytest.raises(QanetError, match="gives no instance masks .expected labels person1, got ccp13"):
        MaskParser(other, RedEngine())


def test_results_carry_what_rescoring_needs(bundle):
    person = MaskParser(bundle, RedEngine())(picture(), BOXES[:1], np.array([0.8], np.float32))[0]
    result = result_of(person, "a7", 3)
    assert result["image_id"] == "a7" and result["category_id"] == 3 and result["bbox"] == [30, 20, 40, 40]
    assert np.array_equal(decode(result["segmentation"]), person.mask)
    assert result["score"] == person.quality and result["box_score"] == pytest.approx(0.8)
    assert json.loads(json.dumps(result)) == result


def test_every_image_with_boxes_is_masked(bundle, tmp_path):
    path = write_people(tmp_path / "data", "val", 3, seed=2)
    document = read_annotation_file(path)
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 2]
    boxes = annotated_boxes(document, 1)
    assert boxes.keys() == {1, 3} and boxes[1][0].shape == (2, 4) and boxes[1][1].tolist() == [1, 1]
    parser = MaskParser(bundle, RedEngine())
    results = list(mask_images(parser, document["images"], tmp_path / "data" / "val", boxes, 1))
    assert [r["image_id"] for r in results] == [1, 1, 3, 3]
    document["images"][0]["width"] = 50
    with pytest.raises(QanetError, match="001.png and its annotation differ in size"):
        list(mask_images(parser, document["images"], tmp_path / "data" / "val", boxes, 1))


def test_detected_boxes_are_cut_at_the_border(tmp_path):
    path = write_people(tmp_path / "data", "val", 2, seed=2)
    found = [
        {"image_id": 2, "category_id": 1, "bbox": [-10, 5, 30, 200], "score": 0.7},
        {"image_id": 2, "category_id": 1, "bbox": [SIDE - 0.5, 5, 30, 20], "score": 0.6},
        {"image_id": 1, "category_id": 2, "bbox": [5, 5, 30, 20], "score": 0.6},
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    boxes = detected_boxes(tmp_path / "found.json", read_annotation_file(path))
    assert boxes.keys() == {2} and boxes[2][0].tolist() == [[0, 5, 20, SIDE]]
    assert boxes[2][1].tolist() == pytest.approx([0.7])


def test_ap_is_left_out_where_it_cannot_be_had(tmp_path, monkeypatch, capsys):
    document = read_annotation_file(write_people(tmp_path / "data", "val", 1, seed=2))
    assert truth_of_people({**document, "annotations": []}, 1) is None and capsys.readouterr().err == ""
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, name, None)
    assert truth_of_people(document, 1) is None
    assert "no AP: mask AP is computed by pycocotools" in capsys.readouterr().err
