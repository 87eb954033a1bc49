"""Synthetic data sets: every layout is whole, the truth is exact, train and val share nobody, a seed is a data set."""

import json

import cv2
import numpy as np
import pytest
from official_sets import write_ccp

from qanet.benchmarks.lab.synthetic import SINGLE_PERSON, Order, main, make
from qanet.datasets import open_dataset, read_detections
from qanet.datasets.check import check_dataset
from qanet.datasets.official import LAYOUTS
from qanet.errors import QanetError
from qanet.metrics import ParsingEvaluator, Prediction


@pytest.fixture(scope="module")
def ccp(tmp_path_factory):
    """Eight drawn people, the last three in val."""
    return write_ccp(tmp_path_factory.mktemp("people") / "ccp")


def scenes(ccp, output, format="cihp", split="val", count=2, seed=0, labels=None):
    return make(Order(ccp, format, split, count, seed, output, labels))


def perfect(scene):
    """Predictions that are the truth itself."""
    people = []
    for human in [int(i) for i in np.unique(scene.truth.human) if i]:
        labels = np.where((scene.truth.human == human) & (scene.truth.category < 255), scene.truth.category, 0)
        people.append(Prediction(labels.astype(np.uint8), 1.0, 1.0, 1.0, np.ones(12)))
    return people


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("labels", [None, "ccp13"])
def test_every_layout_is_whole(ccp, tmp_path, format, labels):
    scenes(ccp, tmp_path / "set", format, "val", labels=labels)
    found = check_dataset(tmp_path / "set", format, labels, "val")
    assert found.problems == [] and found.remarks == [] and found.images == 2
    assert (found.people == 2) if format in SINGLE_PERSON else (found.people > 2)
    data = open_dataset(tmp_path / "set", format, labels)
    assert all(data[i].labels.any() for i in range(len(data)))
    has_people = (data.folder / "Human_ids").is_dir(), (data.folder / "Instance_ids").is_dir()
    assert has_people == ((False, False) if format in SINGLE_PERSON else (True, True))


def test_the_truth_as_a_prediction_is_perfect(ccp, tmp_path):
    scenes(ccp, tmp_path / "set", labels="ccp13", count=3)
    data = open_dataset(tmp_path / "set", "cihp", "ccp13")
    evaluator = ParsingEvaluator(13, "strict")
    for scene in data.images():
        evaluator.add(scene.truth, perfect(scene))
    report = evaluator.report()
    assert report["persons"] == len(data) > 3
    for key in ("miou", "pixel_accuracy", "ap_p", "pcp", "ap_r", "ap_h"):
        assert report[key] == pytest.approx(1), key


def test_boxes_and_areas_are_those_of_the_visible_pixels(ccp, tmp_path):
    scenes(ccp, tmp_path / "set", count=4)
    document = json.loads((tmp_path / "set" / "annotations" / "CIHP_val.json").read_text())
    names = {image["id"]: image["file_name"].replace(".jpg", ".png") for image in document["images"]}
    for entry in document["annotations"]:
        path = tmp_path / "set" / "Validation" / "Human_ids" / names[entry["image_id"]]
        own = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == entry["parsing_id"]
        x, y, w, h = cv2.boundingRect(own.astype(np.uint8))
        assert entry["bbox"] == [x, y, w, h] and entry["area"] == own.sum()


@pytest.mark.parametrize(("split", "people"), [("train", range(5)), ("val", range(5, 8)), ("test", range(5, 8))])
def test_a_split_shows_people_of_its_own_list_only(ccp, tmp_path, split, people):
    manifest = scenes(ccp, tmp_path / "set", "cihp", split, count=6)
    assert set(manifest["photographs"]) <= {f"p{number}" for number in people}
    assert manifest["people_from"] == ("train.txt" if split == "train" else "val.txt")
    data = open_dataset(tmp_path / "set", "cihp", split=split)
    seen = set()
    for index in range(len(data)):
        sample = data[index]
        inner = cv2.erode((sample.labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        blue, green = np.median(sample.image[inner][:, :2], axis=0)  # a person's colour is (10 + 30 n, 255 - 30 n, 40)
        ratios = [(10 + 30 * n) / (255 - 30 * n) for n in range(8)]  # whatever the brightness
        seen.add(int(np.abs(np.log(ratios) - np.log(blue / green)).argmin()))
    assert seen <= set(people) and len(seen) > 1


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_seed_is_a_data_set(ccp, tmp_path):
    for name, count, seed in (("one", 2, 5), ("two", 2, 5), ("other", 2, 6), ("more", 3, 5)):
        scenes(ccp, tmp_path / name, count=count, seed=seed)
    one, two, other, more = (contents(tmp_path / name) for name in ("one", "two", "other", "more"))
    assert one == two
    images = [name for name in one if "/Images/" in name]
    assert len(images) == 2 and all(one[name] != other[name] and one[name] == more[name] for name in images)


def test_detections_are_of_this_data_set_and_called_synthetic(ccp, tmp_path):
    manifest = scenes(ccp, tmp_path / "set", count=12)
    data = open_dataset(tmp_path / "set", "cihp")
    detected = read_detections(tmp_path / "set" / "detections_val.json", data.image_ids)
    found = [scene.box_scores for scene in data.images(detected)]
    assert sum(len(scores) for scores in found) > len(data)  # doubles and nobodies outweigh those missed
    assert all(0 < score <= 1 for scores in found for score in scores)
    stored = json.loads((tmp_path / "set" / "synthetic_val.json").read_text())
    assert stored["synthetic"] is True and stored["detector"]["spurious"] > 0 and stored["images"] == 12
    assert stored["people"] == len(data) and stored["seed"] == manifest["seed"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "val.txt").unlink(), r"no val.txt in .*a photograph in both"),
        (lambda r: (r / "val.txt").write_text("p0\np7\n"), r"1 people are in train.txt and in val.txt .*got \['p0'\]"),
        (
            lambda r: [cv2.imwrite(str(p), np.zeros((120, 80), np.uint8)) for p in (r / "labels").iterdir()],
            "there are no people to paste",
        ),
    ],
)
def test_people_that_cannot_be_used_are_told(tmp_path, change, message):
    root = write_ccp(tmp_path / "ccp")
    change(root)
    with pytest.raises(QanetError, match=message):
        scenes(root, tmp_path / "set")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "coco"}, "these scenes cannot be made"),
        ({"split": "dev"}, "these scenes cannot be made"),
        ({"count": 0}, "scenes >= 1"),
        ({"labels": "celebamask19"}, "CCP's people have no labels of celebamask19"),
        ({"labels": "nope"}, "unknown label set"),
    ],
)
def test_orders_that_cannot_be_filled_are_told(ccp, tmp_path, changes, message):
    with pytest.raises(QanetError, match=message):
        scenes(ccp, tmp_path / "set", **changes)


def test_nothing_is_written_over(ccp, tmp_path):
    scenes(ccp, tmp_path / "set", split="train")
    before = contents(tmp_path / "set")
    with pytest.raises(QanetError, match="Training is not empty"):
        scenes(ccp, tmp_path / "set", split="train", seed=1)
    assert contents(tmp_path / "set") == before
    scenes(ccp, tmp_path / "set", split="val")  # another split of the same set
    assert open_dataset(tmp_path / "set", "cihp", split="train").names


def test_the_command(ccp, tmp_path, capsys):
    arguments = ["--people", str(ccp), "--format", "ppp", "--split", "test", "--scenes", "1"]
    assert main([*arguments, "--output", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == "ppp7"
    assert (tmp_path / "set" / "annotations" / "PASCAL-Person-Part_test.json").exists()
    with pytest.raises(QanetError, match="set"):  # it is there already
        main([*arguments, "--output", str(tmp_path / "set")])
    with pytest.raises(QanetError, match="required"):
        main(["--format", "cihp"])


def test_real_people(shared, tmp_path):
    manifest = scenes(shared / "data" / "ccp", tmp_path / "set", labels="ccp13")
    held_out = (shared / "data" / "ccp" / "val.txt").read_text().split()
    assert set(manifest["photographs"]) <= set(held_out)
    assert check_dataset(tmp_path / "set", "cihp", "ccp13").problems == []
