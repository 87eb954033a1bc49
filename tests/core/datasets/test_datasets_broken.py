"""Broken data sets: each mistake is one clear error that names the file, at the latest when it is touched."""

import cv2
import numpy as np
import pytest
from official_sets import HW, edit_json, write_ccp, write_official

from qanet.datasets import open_dataset
from qanet.errors import QanetError

JSON = "annotations/CIHP_val.json"


@pytest.fixture
def cihp(tmp_path):
    return write_official(tmp_path / "CIHP")


def annotation(key, value):
    """An edit of the first annotation; None takes the key out."""

    def change(document):
        document["annotations"][0][key] = value
        if value is None:
            del document["annotations"][0][key]

    return lambda root: edit_json(root / JSON, change)


def image_entry(**changes):
    return lambda root: edit_json(root / JSON, lambda d: d["images"][0].update(changes))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / JSON).unlink(), r"no file .*CIHP_val.json"),
        (lambda r: (r / JSON).write_text("{"), r"CIHP_val.json is no JSON"),
        (lambda r: (r / JSON).write_bytes(b"\xff\xfe\x00"), r"CIHP_val.json is no JSON"),
        (lambda r: (r / JSON).write_text("[]"), r"no annotation file .*images.*annotations"),
        (lambda r: (r / JSON).write_text('{"images": [], "annotations": 3}'), r"no annotation file"),
        (lambda r: (r / JSON).write_text('{"images": [], "annotations": []}'), r"the split is empty"),
        (lambda r: edit_json(r / JSON, lambda d: d["annotations"].clear()), r"the split is empty"),
        (annotation("parsing_id", None), r"annotation 0 is incomplete .*got .*bbox"),
        (annotation("bbox", None), r"annotation 0 is incomplete"),
        (annotation("bbox", [1, 2, 3]), r"annotation 0 has a broken bbox .*got \[1, 2, 3\]"),
        (annotation("bbox", [1, 2, 0, 9]), r"annotation 0 has a broken bbox"),
        (annotation("bbox", [1, 2, float("nan"), 9]), r"annotation 0 has a broken bbox"),
        (annotation("parsing_id", 0), r"annotation 0 has a broken parsing_id .expected 1..255, got 0"),
        (annotation("parsing_id", 256), r"broken parsing_id"),
        (annotation("parsing_id", True), r"broken parsing_id"),
        (annotation("parsing_id", 2), r"annotation 1 has a parsing_id that is taken"),
        (annotation("area", "large"), r"annotation 0 has a broken area .*got large"),
        (annotation("image_id", 77), r"annotation 0 is of an image that is not in the file .*got 77"),
        (annotation("image_id", []), r"annotation 0 is of an image that is not in the file"),
        (image_entry(id=2), r"image 1 has an id that is taken"),
        (image_entry(file_name=None), r"image 0 is incomplete"),
        (image_entry(file_name="nowhere.jpg"), r"nowhere.jpg .and 4 more.*next: qanet check .* --format cihp"),
        (lambda r: (r / "Validation/Human_ids/b.png").unlink(), r"no file .*Human_ids/b.png"),
        (lambda r: (r / "Validation/Instance_ids/b.txt").unlink(), r"no file .*Instance_ids/b.txt"),
        (lambda r: (r / "Validation/Category_ids").rename(r / "elsewhere"), r"Validation has no ground truth"),
        (lambda r: (r / "annotations").rename(r / "elsewhere"), r"no data set at .*expected annotations/"),
    ],
)
def test_what_is_found_when_it_is_opened(cihp, break_it, message):
    break_it(cihp)
    with pytest.raises(QanetError, match=message):
        open_dataset(cihp, "cihp", split="val")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Images/a.jpg", b"not a picture", r"broken image file .*a.jpg .*got unreadable"),
        ("Images/a.jpg", b"", r"broken image file .*a.jpg .*got 0 bytes"),
        ("Images/a.jpg", "half", r"broken image file .*a.jpg .*got truncated"),
        ("Category_ids/a.png", b"\x89PNG broken", r"broken label file .*Category_ids/a.png"),
        ("Category_ids/a.png", "half", r"broken label file .*Category_ids/a.png .*got truncated"),
        ("Human_ids/a.png", b"", r"broken label file .*Human_ids/a.png .*got 0 bytes"),
        ("Category_ids/a.png", np.zeros((*HW, 3), np.uint8), r"broken label file .*got uint8 \(40, 60, 3\)"),
        ("Category_ids/a.png", np.zeros(HW, np.uint16), r"broken label file .*got uint16"),
        ("Category_ids/a.png", np.full(HW, 20, np.uint8), r"a.png holds label ids outside the set .*got \[20\]"),
        ("Human_ids/a.png", np.zeros((5, 5), np.uint8), r"Human_ids/a.png and its Category_ids differ in size"),
        ("Images/a.jpg", np.zeros((7, 9, 3), np.uint8), r"image and labels differ in size .*\(7, 9\).*\(40, 60\)"),
        ("Human_ids/a.png", np.full(HW, 2, np.uint8), r"a.jpg: person 1 has no pixels .*got \[2\]"),
    ],
)
def test_what_is_found_when_a_person_or_an_image_is_read(cihp, file, content, message):
    path = cihp / "Validation" / file
    if isinstance(content, np.ndarray):
        cv2.imwrite(str(path), content)
    else:
        path.write_bytes(path.read_bytes()[:60] if content == "half" else content)
    data = open_dataset(cihp, "cihp")
    for read in (lambda: data[0], lambda: data.image(0)):
        with pytest.raises(QanetError, match=message):
            read()
    assert data[2].name == "b#1"  # the others are whole


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", b"1 1\n", r"broken part table .*a.txt .*got \[1, 1\]"),
        ("a.txt", b"1 one 1\n", r"broken part table .*a.txt"),
        ("a.txt", b"1 20 1\n", r"a.txt holds ids outside the set .expected classes 0..19, got \[20\]"),
        ("a.txt", b"-1 2 1\n", r"a.txt holds ids outside the set"),
        ("a.png", np.zeros((5, 5), np.uint8), r"a.jpg: image and Instance_ids differ in size"),
    ],
)
def test_broken_parts_are_named(cihp, file, content, message):
    path = cihp / "Validation" / "Instance_ids" / file
    if isinstance(content, np.ndarray):
        cv2.imwrite(str(path), content)
    else:
        path.write_bytes(content)
    with pytest.raises(QanetError, match=message):
        open_dataset(cihp, "cihp").image(0)


def test_a_box_outside_the_image_is_an_error(cihp):
    annotation("bbox", [100, 5, 10, 10])(cihp)
    with pytest.raises(QanetError, match=r"a.jpg: a person's box lies outside the image .*60x40"):
        open_dataset(cihp, "cihp")[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: open_dataset(r, "coco"), r"unknown data format 'coco' .expected one of ccp, .*cihp"),
        (lambda r: open_dataset(r, "cihp", "nope"), r"unknown label set 'nope'"),
        (lambda r: open_dataset(r, "cihp", split="dev"), r"no split 'dev' .*expected train, val, test"),
        (lambda r: open_dataset(r, "cihp", split="train"), r"no file .*CIHP_train.json"),
        (lambda r: open_dataset(r / "nowhere", "mhp"), r"no data set at .*got no such folder"),
        (lambda r: open_dataset(r, "ccp"), r"no data set at .*expected a folder with photos"),
    ],
)
def test_wrong_names_are_told(cihp, call, message):
    with pytest.raises(QanetError, match=message):
        call(cihp)


@pytest.mark.parametrize(
    ("raw_id", "labels", "fine"),
    [
        (58, "ccp59", True),
        (58, "ccp13", True),
        (59, "ccp59", False),
        (59, "ccp13", False),
        (254, "ccp13", False),
        (255, "ccp59", True),
        (255, "ccp13", True),
    ],
)
def test_raw_ids_of_ccp_end_at_58_and_void_is_255(tmp_path, raw_id, labels, fine):
    root = write_ccp(tmp_path / "ccp")
    raw = np.zeros((120, 80), np.uint8)
    raw[10:20, 10:20] = raw_id
    cv2.imwrite(str(root / "labels" / "p5.png"), raw)
    data = open_dataset(root, "ccp", labels)
    if fine:
        assert data[0].labels[15, 15] == (58 if raw_id == 58 and labels == "ccp59" else 9 if raw_id == 58 else 255)
        return
    with pytest.raises(QanetError, match=rf"p5.png holds label ids outside the set .*0..58.*got \[{raw_id}\]"):
        data[0]
    with pytest.raises(QanetError, match="outside the set"):
        data.class_presence()


def test_an_empty_split_of_photographs_is_an_error(tmp_path):
    root = write_ccp(tmp_path / "ccp")
    (root / "val.txt").write_text("\n")
    with pytest.raises(QanetError, match="the split is empty"):
        open_dataset(root, "ccp")
    with pytest.raises(QanetError, match=r"no split 'test' in .*expected a file test.txt"):
        open_dataset(root, "ccp", split="test")
