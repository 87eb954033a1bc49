"""`qanet val --suite real` and `qanet calibrate-quality`: numbers by hand on drawn people, the files, the refusals."""

import json

import cv2
import numpy as np
import pytest
from official_sets import write_ccp

from qanet.__main__ import main
from qanet.benchmarks.calibrate_quality import calibrate_quality, fit_map, measure
from qanet.benchmarks.real import GROUPS, grouped, judge_real
from qanet.benchmarks.report.real import real_text, write_real
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.labels import CCP13, CIHP20, IGNORE
from qanet.runtime.detectors.base import NOBODY, Detections


class Eyes:
    """Finds whatever is not black, with a score of 0.9."""

    name = "eyes"

    def detect(self, image, frame=0):
        ys, xs = np.nonzero(image.any(-1))
        if len(ys) == 0:
            return NOBODY
        return Detections(
            np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32), np.array([0.9], np.float32)
        )


@pytest.fixture
def truth(tmp_path):
    """CIHP's layout: a hat (blue) that is a hat, a hat that is a skirt, and one on whom the truth has nobody."""
    root = tmp_path / "real" / "parsing"
    for kind in ("Images", "Category_ids"):
        (root / kind).mkdir(parents=True)
    for name, label in (("a", 1), ("b", CIHP20.classes.index("skirt")), ("c", 0)):
        image, ids = np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8)
        image[16:80, 24:72], ids[16:80, 24:72] = (255, 0, 0), label
        cv2.imwrite(str(root / "Images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "Category_ids" / f"{name}.png"), ids)
    boxed = tmp_path / "real" / "boxes"
    (boxed / "images").mkdir(parents=True)
    cv2.imwrite(str(boxed / "images" / "a.png"), cv2.imread(str(root / "Images" / "a.png")))
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "bbox": [24, 16, 48, 64], "iscrowd": 0}],
    }
    (boxed / "persons.json").write_text(json.dumps(document))
    return tmp_path / "real"


def test_detector_and_pipeline_by_hand(truth, tiny_parser):
    report = judge_real(tiny_parser, Eyes(), Eyes(), [truth])
    (boxes,), (parsed,) = report.detection, report.parsing
    assert (boxes.photographs, boxes.people, boxes.ap50.value, boxes.recall.value, boxes.precision.value) == (
        1,
        1,
        1,
        1,
        1,
    )
    assert (parsed.boxes, parsed.photographs, parsed.people, parsed.without_truth) == ("detector", 3, 2, 1)
    area, inside = 64 * 48, parsed.classes["hat"]
    assert inside == pytest.approx(1 / 3, abs=0.03)  # three hats were seen, one is one
    assert parsed.classes["skirt"] == 0 and set(parsed.classes) == {"background", "hat", "skirt"}
    assert parsed.person_iou.value == pytest.approx(2 / 3, abs=0.03)  # the third is nobody
    assert parsed.pixel_accuracy.value == pytest.approx(1 - 2 * area / (3 * 96 * 96), abs=0.02)
    assert parsed.miou.low <= parsed.miou.value <= parsed.miou.high
    assert [person.photo for person in parsed.worst] == ["b.png", "a.png"]
    assert parsed.worst[0].true_miou < 0.3 and parsed.worst[1].true_miou > 0.85 and parsed.ece_expected is None


def test_names_of_both_sides_meet_in_the_groups():
    assert grouped(CIHP20.classes, IGNORE)[CIHP20.classes.index("glove")] == IGNORE
    for ours, theirs in (
        ("glasses", "sunglasses"),
        ("upper-clothes", "coat"),
        ("shoes", "left-shoe"),
        ("skin", "face"),
    ):
        assert (
            grouped(CCP13.classes, 0)[CCP13.classes.index(ours)]
            == grouped(CIHP20.classes, 9)[CIHP20.classes.index(theirs)]
        )
    assert set(grouped(CCP13.classes, 0)[:13].tolist()) == set(range(len(GROUPS)))


def test_the_command_prints_and_writes(truth, tiny_bundle, tmp_path, capsys):
    arguments = [
        "val",
        str(tiny_bundle),
        "--suite",
        "real",
        "--data",
        str(truth),
        "--threads",
        "1",
        "--precision",
        "fp32",
    ]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["detector"] == "person-lite0" and document["detection"][0]["people"] == 1
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert "people against background" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "calibration error" in page and "data:image/png;base64" in page


def test_the_pictures_show_photograph_truth_and_parsing(truth, tiny_parser, tmp_path):
    report = judge_real(tiny_parser, Eyes(), Eyes(), [truth])
    assert "parsing by tiny" in real_text(report)
    _, picture = write_real(tmp_path / "out", report, CCP13)
    sheet = cv2.imread(str(picture))
    assert sheet.shape[0] > 300 and (sheet.reshape(-1, 3) != 255).any()


def test_folders_without_truth_and_two_data_sets_are_refused(truth, tiny_parser, tiny_bundle, tmp_path):
    with pytest.raises(QanetError, match="no truth in"):
        judge_real(tiny_parser, Eyes(), Eyes(), [tmp_path / "nothing"])
    (truth / "parsing" / "Category_ids" / "b.png").unlink()
    with pytest.raises(QanetError, match=r"b\.png has no truth"):
        judge_real(tiny_parser, Eyes(), Eyes(), [truth / "parsing"])
    assert main(["val", str(tiny_bundle), "--data", "a", "--data", "b"]) == 2


def _rows(qualities, ious):
    """One person and one part a photograph, whose pixel score is the quality; box and IoU score are 1."""
    ones = np.ones(1)
    rows = [np.column_stack([ones, ones, [q], [q], [iou]]) for q, iou in zip(qualities, ious)]
    return [[(row, row)] for row in rows]


def test_a_map_repairs_what_q_promises():
    qualities = np.random.default_rng(0).uniform(0.6, 1.0, 200)
    scored = _rows(qualities, qualities**2 - 0.3)
    found = measure("fp32", scored, (0.0, 0.0, 1.0))
    assert found.before["ece"] > 0.4 > 0.02 > found.after["ece"]
    assert found.after["rank_correlation"] == pytest.approx(1, abs=0.01) and found.people == 200
    assert fit_map(scored, (0.0, 0.0, 1.0)).people(0.8) == pytest.approx(0.34, abs=0.01)


def test_the_command_fits_and_keeps_a_map_that_the_bundle_can_read(tiny_bundle, tmp_path, capsys):
    root = write_ccp(tmp_path / "CCP", [f"{k:04d}" for k in range(1, 25)])
    assert main(["calibrate-quality", str(tiny_bundle), "--data", str(root), "--split", "train", "--threads", "1"]) == 0
    assert "expected IoU" in capsys.readouterr().out
    entry = open_bundle(tiny_bundle).manifest["quality_map"]["fp32"]
    assert open_bundle(tiny_bundle).quality_map("fp32") is not None
    assert entry["fitted_people"] >= 20 and "train" in entry["fitted_on"] and "ece_map" in entry


def test_too_few_people_are_refused(tiny_bundle, tmp_path):
    with pytest.raises(QanetError, match="too few people .*expected 20 or more"):
        calibrate_quality(tiny_bundle, write_ccp(tmp_path / "CCP"))
