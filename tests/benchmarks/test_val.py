"""`qanet val` on every kind of data: photographs, scenes of several people, boxes of a detector."""

import json

import cv2
import numpy as np
import pytest
from official_sets import write_ccp, write_official

from qanet.__main__ import main
from qanet.benchmarks.val import validate
from qanet.bundle import open_bundle
from qanet.datasets import open_dataset, read_detections
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.runtime.evaluate import evaluate, predictions_of

CLASSES = [1, 2]  # of the two people: blue and green, as the tiny network sees them
COLOURS = [(255, 0, 0), (0, 255, 0)]
HW = (80, 120)


@pytest.fixture
def scenes(tmp_path):
    """CIHP's layout with ccp13's classes: one image, two people of one class each, and boxes of them in COCO's form."""
    root = write_official(tmp_path / "CIHP")
    image, category, human = np.zeros((*HW, 3), np.uint8), np.zeros(HW, np.uint8), np.zeros(HW, np.uint8)
    entries = []
    for person, (x, label, colour) in enumerate(zip((16, 72), CLASSES, COLOURS), start=1):
        image[8:72, x : x + 32], category[8:72, x : x + 32], human[8:72, x : x + 32] = colour, label, person
        entries.append({"image_id": 1, "category_id": 1, "bbox": [x, 8, 32, 64], "parsing_id": person})
    folder = root / "Validation"
    for kind, pixels in (("Category_ids", category), ("Human_ids", human), ("Instance_ids", human)):
        cv2.imwrite(str(folder / kind / "a.png"), pixels)
    cv2.imwrite(str(folder / "Images" / "a.png"), image)
    (folder / "Instance_ids" / "a.txt").write_text("".join(f"{p} {c} {p}\n" for p, c in enumerate(CLASSES, start=1)))
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": entries}
    (root / "annotations" / "CIHP_val.json").write_text(json.dumps(document))
    return root


def boxes_file(root, *rows):
    """(x, y, w, h, score) rows as COCO results of image 1."""
    path = root / "boxes.json"
    entries = [{"image_id": 1, "category_id": 1, "bbox": list(row[:4]), "score": row[4]} for row in rows]
    path.write_text(json.dumps(entries))
    return path


def test_several_people_are_measured_by_their_own_truth(scenes, tiny_parser):
    report = evaluate(tiny_parser, open_dataset(scenes, "cihp", CCP13), "strict")
    assert (report["images"], report["persons"], report["predictions"]) == (1, 2, 2)
    assert report["iou"][CLASSES].min() > 0.9 and report["pixel_accuracy"] > 0.97
    assert report["ap_p_50"] == report["ap_r_50"] == report["pcp_50"] == 1.0


def test_a_detector_s_boxes_bring_duplicates_and_nobodies(scenes, tiny_parser):
    data = open_dataset(scenes, "cihp", CCP13)
    path = boxes_file(scenes, (16, 8, 32, 64, 0.9), (15, 8, 33, 64, 0.4), (50, 2, 12, 12, 0.6))
    seen = []
    detected = read_detections(path, data.image_ids)
    report = evaluate(tiny_parser, data, "strict", lambda: seen.append(1), detected)
    assert report["predictions"] == 3 and report["persons"] == 2 and seen == [1]  # duplicates reach the metrics
    assert report["pcp_50"] == 0.5  # nobody looked at the second person
    assert 0 < report["ap_p_50"] <= 0.5


def test_the_exponents_of_the_score_can_be_chosen(scenes, tiny_parser):
    data = open_dataset(scenes, "cihp", CCP13)
    assert evaluate(tiny_parser, data, "official")["weights"] == (1, 0.5, 3)
    report = evaluate(tiny_parser, data, "official", weights=(1, 0, 0))
    assert report["weights"] == (1, 0, 0)


def test_the_mean_f_measure_is_of_the_foreground_that_occurs(scenes, tiny_parser):
    report = evaluate(tiny_parser, open_dataset(scenes, "cihp", CCP13), "official")
    occurring = report["iou"][CLASSES]
    assert report["mean_f_measure_foreground"] == pytest.approx((2 * occurring / (1 + occurring)).mean())
    assert report["mean_f_measure_foreground"] > 0.9 > report["miou"]


def test_no_boxes_in_an_image_are_no_people(scenes, tiny_parser):
    data = open_dataset(scenes, "cihp", CCP13)
    report = evaluate(tiny_parser, data, "strict", detected=read_detections(boxes_file(scenes), data.image_ids))
    assert report["images_without_prediction"] == 1 and report["predictions"] == 0


def test_other_classes_than_the_model_s_are_an_error(scenes, tiny_parser):
    with pytest.raises(QanetError, match="data and model have different classes .expected ccp13, got cihp20"):
        evaluate(tiny_parser, open_dataset(scenes, "cihp"), "official")


def test_predictions_keep_scores_and_windows(scenes, tiny_parser):
    people = tiny_parser(np.full((*HW, 3), COLOURS[0], np.uint8), boxes=[[10, 10, 50, 70]], box_scores=[0.3]).people
    (prediction,) = predictions_of(people)
    assert prediction.box_score == pytest.approx(0.3) and prediction.roi == people[0].roi
    assert len(prediction.part_pixel_scores) == 12


@pytest.fixture(scope="module")
def ccp(tmp_path_factory):
    return write_ccp(tmp_path_factory.mktemp("val") / "ccp")


def val(capsys, *arguments):
    code = main(["val", *arguments, "--threads", "1", "--device", "cpu"])
    return code, capsys.readouterr()


def test_the_command_on_photographs(shared_tiny_bundle, ccp, capsys):
    code, printed = val(capsys, str(shared_tiny_bundle), "--data", str(ccp), "--json")
    document = json.loads(printed.out)
    assert code == 0 and (document["images"], document["split"], document["format"]) == (3, "val", "ccp")
    assert document["boxes"] == "ground truth" and document["synthetic"] is False
    code, printed = val(capsys, str(shared_tiny_bundle), "--data", str(ccp))
    assert "mean recognition rate" in printed.out and "ground-truth boxes" in printed.out
    assert "SYNTHETIC" not in printed.out and "AP^r 50 x 100" in printed.out
    data = open_dataset(ccp, "ccp", CCP13, "val")
    absent = CCP13.num_classes - np.count_nonzero(sum(data.class_pixels(i).sum(0) for i in range(len(data))))
    assert document["classes_absent"] == absent > 0
    assert (
        f"mIoU of pictures ({absent} of {CCP13.num_classes} classes absent from the data, counted as 0)" in printed.out
    )


def test_the_command_on_scenes_with_boxes_and_looks(shared_tiny_bundle, scenes, capsys):
    path = boxes_file(scenes, (16, 8, 32, 64, 0.9))
    (scenes / "synthetic_val.json").write_text("{}")
    arguments = [
        str(shared_tiny_bundle),
        "--data",
        str(scenes),
        "--format",
        "cihp",
        "--boxes",
        str(path),
        "--flip",
        "--scales",
        "1,1.1",
        "--weights",
        "1,0,3",
    ]
    code, printed = val(capsys, *arguments)
    assert code == 0
    head = printed.out.splitlines()[0]
    for words in ("flip", "scales 1 1.1", "boxes of boxes.json", "QAM exponents 1 0 3", "SYNTHETIC", "2 people"):
        assert words in head
    code, printed = val(capsys, *arguments, "--json")
    document = json.loads(printed.out)
    assert (document["synthetic"], document["flip"], document["scales"]) == (True, True, [1.0, 1.1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "coco"], "invalid choice"),
        (["--format", "mhp"], "no file"),
        (["--format", "cihp", "--split", "dev"], "no split 'dev'"),
        (["--format", "cihp", "--boxes", "nowhere.json"], "no file nowhere.json"),
        (["--format", "cihp", "--weights", "1,2"], "bad --weights"),
        (["--format", "cihp", "--weights", "0,0,0"], "bad --weights"),
        (["--format", "cihp", "--weights", "a,b,c"], "invalid _numbers value"),
        (["--format", "cihp", "--save", "--flip"], "an accuracy card holds numbers of the plain parser"),
    ],
)
def test_what_val_refuses(shared_tiny_bundle, scenes, capsys, arguments, message):
    code, printed = val(capsys, str(shared_tiny_bundle), "--data", str(scenes), *arguments)
    assert code == 2 and message in printed.err


def test_a_card_is_kept(tiny_bundle, ccp, capsys):
    assert val(capsys, str(tiny_bundle), "--data", str(ccp), "--save")[0] == 0
    card = open_bundle(tiny_bundle).manifest["accuracy"]["fp32"]
    assert card["images"] == 3 and card["split"] == "val" and 0 <= card["pixel_accuracy"] <= 1


def test_the_library_validates_without_a_command_line(shared_tiny_bundle, tmp_path):
    root, seen = write_ccp(tmp_path / "ccp"), []
    report = validate(shared_tiny_bundle, root, device="cpu", threads=1, progress=lambda *counts: seen.append(counts))
    assert seen == [(n + 1, len(seen)) for n in range(report.metrics["images"])]
    assert report.runtime == "openvino" and report.graph == "fp32" and report.boxes == "ground truth"
    assert report.miou == report.to_json()["miou"] and 0 <= report.pixel_accuracy <= 1
    assert "ground-truth boxes" in str(report) and report.card()["images"] == report.metrics["images"]
    with pytest.raises(QanetError, match="bad --weights"):
        validate(shared_tiny_bundle, root, weights=(1, 2))
