"""One interface for all data sets: people to train on, images to evaluate on, in every layout."""

import cv2
import numpy as np
import pytest
from official_sets import HW, edit_json, write_ccp, write_official

from qanet.datasets import DATA_FORMATS, open_dataset, splits_of
from qanet.errors import QanetError
from qanet.labels import CCP59, CIHP20, IGNORE, label_set


@pytest.fixture
def cihp(tmp_path):
    """Two images, three people."""
    return write_official(tmp_path / "CIHP")


@pytest.mark.parametrize(
    ("format", "name", "split", "classes"),
    [
        ("cihp", "CIHP", "val", 20),
        ("lip", "LIP", "val", 20),
        ("atr", "ATR", "val", 18),
        ("mhp", "MHP-v2", "val", 59),
        ("ppp", "PASCAL-Person-Part", "test", 7),
        ("ppp-arms-first", "PASCAL-Person-Part", "test", 7),
    ],
)
def test_every_official_layout_opens_under_its_own_names(tmp_path, format, name, split, classes):
    data = open_dataset(write_official(tmp_path / name, name, split), format)
    assert len(data) == 3 and data.names == ["a#1", "a#2", "b#1"]
    assert data.image_names == ["a", "b"] and data.image_ids == [1, 2]
    assert data.label_set.num_classes == classes and data[0].image.shape == (*HW, 3)
    assert splits_of(tmp_path / name, format) == (("test", "val") if split == "test" else ("val",))
    assert open_dataset(tmp_path, format).names == data.names  # the folder that holds <DS> will do


def test_every_format_is_tested():
    assert DATA_FORMATS == ("ccp", "celebamask", "folder", "cihp", "lip", "atr", "mhp", "ppp", "ppp-arms-first")


def test_a_person_has_own_pixels_and_box(cihp):
    sample = open_dataset(cihp, "cihp", split="val")[1]
    assert sample.box.tolist() == [25, 5, 35, 35] and sample.box.dtype == np.float32
    assert set(np.unique(sample.labels[:, 25:35])) == {0, 1, 2, IGNORE}
    assert not sample.labels[:, :25].any()  # the other person is background, as published
    assert sample.image[20, 30, 2] > 150


def test_other_people_can_be_void(cihp):
    labels = open_dataset(cihp, "cihp", split="val", other_people="ignore")[1].labels
    assert (labels[5:35, 5:15] == IGNORE).all() and (labels[5:15, 25:35] == 1).all() and labels[0, 0] == 0
    with pytest.raises(QanetError, match="bad other_people .expected background or ignore"):
        open_dataset(cihp, "cihp", split="val", other_people="void")


def test_an_image_has_the_exact_truth(cihp):
    first, second = open_dataset(cihp, "cihp").images()
    assert (first.name, first.image_id, second.image_id) == ("a", 1, 2)
    assert first.boxes.tolist() == [[5, 5, 15, 35], [25, 5, 35, 35]] and first.box_scores.tolist() == [1, 1]
    truth = first.truth
    assert np.bincount(truth.category.ravel(), minlength=256)[[1, 2, 255]].tolist() == [200, 300, 100]
    assert np.bincount(truth.human.ravel()).tolist() == [HW[0] * HW[1] - 600, 300, 300]
    assert truth.part_table.tolist() == [[1, 1, 1], [2, 2, 1], [3, 1, 2], [4, 2, 2]]
    assert (truth.category[truth.parts == 3] == 1).all() and (truth.human[truth.parts == 3] == 2).all()


def test_a_single_person_set_needs_no_human_ids(tmp_path):
    data = open_dataset(write_official(tmp_path / "LIP", "LIP", with_people=False, people=1), "lip")
    scene = data.image(0)
    assert len(data) == 2 and scene.truth.parts is None
    assert np.array_equal(scene.truth.human, (scene.truth.category > 0).astype(np.uint8))
    assert (data[0].labels == scene.truth.category).all()


def test_two_people_without_human_ids_are_an_error(tmp_path):
    data = open_dataset(write_official(tmp_path / "LIP", "LIP", with_people=False, people=2), "lip")
    with pytest.raises(QanetError, match=r"a.jpg has 2 people and no map of their pixels"):
        data[0]


def test_class_presence_counts_each_person_alone(cihp):
    data = open_dataset(cihp, "cihp")
    assert data.class_presence(100)[:, :4].tolist() == [[False, True, True, False]] * 3
    assert not data.class_presence(151).any()


@pytest.mark.parametrize(
    ("format", "labels", "expected"),
    [
        ("ppp", "ppp7", {1: "head", 2: "torso"}),
        ("ppp-arms-first", "ppp7-arms-first", {1: "lower-arms", 2: "head"}),
        ("ppp-arms-first", "ppp7", {1: "lower-arms", 2: "head"}),  # files of one order, a model of the other
        ("ppp", "ppp7-arms-first", {1: "head", 2: "torso"}),
    ],
)
def test_both_orders_of_pascal_person_part(tmp_path, format, labels, expected):
    name = "PASCAL-Person-Part"
    data = open_dataset(write_official(tmp_path / name, name, "test"), format, labels)
    scene = data.image(0)
    classes = {row: data.label_set.classes[scene.truth.category[y, 7]] for row, y in ((1, 7), (2, 20))}
    assert classes == expected
    named = [data.label_set.classes[c] for c in scene.truth.part_table[:2, 1]]
    assert named == list(expected.values())


def test_a_layout_can_hold_another_label_set(cihp):
    data = open_dataset(cihp, "cihp", "ccp13")
    assert data.label_set.name == "ccp13" and data[0].labels[7, 7] == 1


def test_crowds_other_things_and_people_without_area_are_no_people(cihp):
    def change(document):
        for key, value in (("iscrowd", 1), ("category_id", 2), ("area", 0)):
            other = dict(document["annotations"][0], parsing_id=9) | {key: value}
            document["annotations"].append(other)

    edit_json(cihp / "annotations" / "CIHP_val.json", change)
    assert len(open_dataset(cihp, "cihp")) == 3


def test_void_in_human_ids_is_nobody(cihp):
    path = cihp / "Validation" / "Human_ids" / "b.png"
    human = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    category = cv2.imread(str(cihp / "Validation" / "Category_ids" / "b.png"), cv2.IMREAD_UNCHANGED)
    category[:3], human[:3] = 255, 255
    cv2.imwrite(str(path), human)
    cv2.imwrite(str(cihp / "Validation" / "Category_ids" / "b.png"), category)
    truth = open_dataset(cihp, "cihp").image(1).truth
    assert sorted(np.unique(truth.human)) == [0, 1] and (truth.category[:3] == IGNORE).all()


def test_a_box_is_cut_at_the_border(cihp):
    def change(document):
        document["annotations"][0]["bbox"] = [-4, 5, 19, 80]

    edit_json(cihp / "annotations" / "CIHP_val.json", change)
    assert open_dataset(cihp, "cihp")[0].box.tolist() == [0, 5, 15, 40]


def test_ccp_groups_and_counts_and_gives_images(tmp_path):
    root = write_ccp(tmp_path / "ccp")
    data = open_dataset(root, "ccp")
    assert (len(data), data.label_set.name, data.image_ids) == (3, "ccp13", ["p5", "p6", "p7"])
    assert splits_of(root, "ccp") == ("train", "val")
    assert len(open_dataset(root, "ccp", CCP59, "train")) == 5
    scene = data.image(0)
    assert scene.boxes.tolist() == [[28, 10, 60, 110]] and sorted(np.unique(scene.truth.human)) == [0, 1]
    assert data.class_presence()[0].nonzero()[0].tolist() == [0, 2, 4, 6, 9, 11]


def test_faces_may_lie_in_images(tmp_path):
    root = write_ccp(tmp_path / "faces")
    (root / "photos").rename(root / "images")
    for path in (root / "labels").iterdir():
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.minimum(raw, 18))
    data = open_dataset(root, "celebamask")
    assert len(data) == 3 and data.label_set.name == "celebamask19" and data[0].labels.max() == 18


def test_a_photograph_of_nobody_is_background_all_over(tmp_path):
    root = write_ccp(tmp_path / "ccp")
    cv2.imwrite(str(root / "labels" / "p5.png"), np.zeros((120, 80), np.uint8))
    sample = open_dataset(root, "ccp")[0]
    assert not sample.labels.any() and sample.box.tolist() == [0, 0, 80, 120]


@pytest.mark.parametrize("name", ["cihp20", None])
def test_labels_come_by_name_or_by_themselves(cihp, name):
    assert open_dataset(cihp, "cihp", name).label_set is CIHP20
    assert open_dataset(cihp, "cihp", label_set("cihp20")).label_set is CIHP20
