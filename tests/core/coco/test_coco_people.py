"""People of a COCO data set: which annotations are people, their masks and boxes, folders, and broken files."""

import json

import numpy as np
import pytest
from coco_cases import SIDE, annotation, ellipse, write_people

from qanet.coco.annotations import is_lvis, read_annotation_file
from qanet.coco.people import CocoPeople, open_coco_people, open_train_and_val
from qanet.errors import QanetError
from qanet.rle import decode


@pytest.fixture
def root(tmp_path):
    """Three images of two people each."""
    write_people(tmp_path / "coco", "train", 3, seed=5)
    return tmp_path / "coco"


def change(root, edit):
    """Apply `edit` to the document of the annotation file and write it back; the file's path."""
    path = root / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return path


def test_a_sample_is_one_person_and_others_are_background(root):
    data = open_coco_people(root, "train")
    assert len(data) == 6 and data.names[:3] == ["001#1", "001#2", "002#3"]
    assert data.image_names == ["001", "002", "003"] and data.image_ids == [1, 2, 3]
    document = read_annotation_file(root / "annotations" / "instances_train.json")
    for index, entry in enumerate(document["annotations"]):
        sample = data[index]
        assert sample.image.shape == (SIDE, SIDE, 3) and sample.image.dtype == np.uint8
        assert np.array_equal(sample.labels, decode(entry["segmentation"])) and sample.labels.dtype == np.uint8
        x, y, w, h = entry["bbox"]
        assert sample.box.tolist() == [x, y, x + w, y + h] and sample.box.dtype == np.float32
    assert data.class_presence().all() and data.class_presence().shape == (6, 2)
    assert data.label_set.name == "person1"


def test_an_image_has_everybody(root):
    data = open_coco_people(root, "train")
    scene = data.image(1)
    assert scene.image_id == 2 and scene.boxes.shape == (2, 4) and scene.box_scores.tolist() == [1, 1]
    for number, person in enumerate(data.people_of(1), 1):
        assert np.array_equal(scene.truth.human == number, data.mask(person) > 0)
    assert np.array_equal(scene.truth.category, scene.truth.human > 0)


def test_polygons_crowds_and_other_categories(root):
    def edit(document):
        first, second, third, fourth, fifth, sixth = document["annotations"]
        first["segmentation"] = [[10, 10, 30, 10, 30, 50, 10, 50]]
        second["iscrowd"] = 1
        third["category_id"] = 2
        fourth["area"] = 0
        fifth["bbox"] = [3, 3, 0.5, 20]
        sixth["segmentation"] = []

    data = CocoPeople(change(root, edit), root / "train")
    assert data.names == ["001#1"] and data.mask(0).sum() == 20 * 40
    assert data.people_of(2) == [] and data.image(2).boxes.shape == (0, 4)


def test_the_person_category_goes_by_its_name(root):
    def edit(document):
        document["categories"] = [{"id": 5, "name": "person"}]
        document["annotations"][0]["category_id"] = 5

    assert len(CocoPeople(change(root, edit), root / "train")) == 1
    path = change(root, lambda document: document.update(categories=[{"id": 1, "name": "cat"}]))
    with pytest.raises(QanetError, match="has no category person .expected person, got cat"):
        CocoPeople(path, root / "train")
    assert len(CocoPeople(change(root, lambda document: document.pop("categories")), root / "train")) == 5


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("instances_val2017", "val2017"), ("instances_val", "images/val"), ("val", "images/val2017"), ("val", "images")],
)
def test_folders_may_be_arranged_in_several_ways(root, annotations, images):
    (root / images).parent.mkdir(exist_ok=True)
    (root / "train").rename(root / images)
    (root / "annotations" / "instances_train.json").rename(root / "annotations" / f"{annotations}.json")
    assert len(open_coco_people(root, "val")) == 6


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: d["annotations"].clear(), "has no person to use"),
        (lambda d: d.pop("annotations"), "is no annotation file .*got categories, images"),
        (lambda d: d["images"][1].pop("height"), r"images\[1\] lacks 'height'"),
        (lambda d: d["annotations"][2].pop("segmentation"), r"annotations\[2\] lacks 'segmentation'"),
        (lambda d: d["annotations"].append(3), r"annotations\[6\] lacks 'id'"),
        (lambda d: d["annotations"][2].update(image_id=9), r"annotations\[2\] is of no image .*got 9"),
        (lambda d: d["images"][2].update(file_name="x.png"), "lacks images .*1 missing, the first is x.png"),
    ],
)
def test_broken_annotation_files_are_named(root, break_it, message):
    path = change(root, break_it)
    with pytest.raises(QanetError, match=message):
        CocoPeople(path, root / "train")


def test_broken_entries_are_named_when_they_are_reached(root):
    def edit(document):
        document["annotations"][0]["segmentation"] = [[1, 2, 3]]
        document["images"][1]["height"] = 50

    data = CocoPeople(change(root, edit), root / "train")
    with pytest.raises(QanetError, match="annotation 1: a polygon needs three points"):
        data[0]
    with pytest.raises(QanetError, match=r"002.png and its annotation differ in size .*\(50, 96\), got \(96, 96\)"):
        data[2]
    (root / "train" / "003.png").write_bytes(b"\x89PNG")
    with pytest.raises(QanetError, match=r"broken image file .*003.png"):
        data[4]


def test_no_such_layout(root, tmp_path):
    with pytest.raises(QanetError, match="no annotations of split 'val'"):
        open_coco_people(root, "val")
    (root / "train").rename(root / "elsewhere")
    with pytest.raises(QanetError, match="no images of split 'train'"):
        open_coco_people(root, "train")
    with pytest.raises(QanetError, match="got no folder"):
        open_coco_people(tmp_path / "none", "train")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(QanetError, match=r"no annotation file .*got a list \(results, perhaps\)"):
        read_annotation_file(tmp_path / "list.json")


def test_lvis_is_told_by_its_images():
    image = {"id": 1, "not_exhaustive_category_ids": []}
    assert is_lvis({"images": [image]}) and not is_lvis({"images": [{"id": 1}]})
    assert annotation(1, 1, ellipse(48, 48, 9, 9))["iscrowd"] == 0


def test_a_val_split_is_taken_where_there_is_one(root):
    train, val = open_train_and_val(root)
    assert len(train) == 6 and val is None
    write_people(root, "val", 1, seed=6)
    train, val = open_train_and_val(root)
    assert len(train) == 6 and val is not None and len(val) == 2
