"""`qanet check`: every broken file is named, whole sets pass, counts are right."""

import json

import cv2
import numpy as np
import pytest
from official_sets import HW, edit_json, write_ccp, write_official

from qanet.__main__ import main
from qanet.datasets.check import Findings, check_dataset, doubts
from qanet.labels import CCP13


@pytest.fixture
def cihp(tmp_path):
    return write_official(tmp_path / "CIHP")


def test_a_whole_set_is_whole_and_counted(cihp):
    seen = []
    found = check_dataset(cihp, "cihp", progress=lambda done, count: seen.append((done, count)))
    assert found.problems == [] and found.remarks == []
    assert (found.images, found.people, found.void_pixels) == (2, 3, 150)
    assert found.pixels[:4].tolist() == [2 * HW[0] * HW[1] - 900, 300, 450, 0]
    assert found.images_with[:4].tolist() == [2, 2, 2, 0] and seen == [(1, 2), (2, 2)]


def set_key(number, **changes):
    def change(document):
        document["annotations"][number].update(changes)

    return lambda root: edit_json(root / "annotations/CIHP_val.json", change)


def write(name, content):
    def change(root):
        path = root / "Validation" / name
        if isinstance(content, np.ndarray):
            cv2.imwrite(str(path), content)
        else:
            path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("break_it", "kind", "message"),
    [
        (write("Images/a.jpg", b"x"), "problems", "broken image file"),
        (write("Category_ids/b.png", b"x"), "problems", "broken label file"),
        (write("Category_ids/b.png", np.full(HW, 77, np.uint8)), "problems", "ids outside the set"),
        (write("Human_ids/b.png", np.zeros(HW, np.uint8)), "problems", "person 1 has no pixels"),
        (write("Human_ids/b.png", np.zeros((3, 3), np.uint8)), "problems", "differ in size"),
        (write("Images/b.jpg", np.zeros((9, 9, 3), np.uint8)), "problems", "differ in size"),
        (write("Images/b.jpg", np.zeros((9, 9, 3), np.uint8)), "problems", "the JSON file says (40, 60)"),
        (write("Instance_ids/b.txt", b"1 1\n"), "problems", "broken part table"),
        (write("Instance_ids/b.txt", b"1 1 1\n"), "problems", "the part table lacks the parts [2]"),
        (write("Instance_ids/b.txt", b"1 1 1\n1 1 1\n2 2 1\n"), "problems", "names a part twice"),
        (write("Instance_ids/b.png", np.zeros((3, 3), np.uint8)), "problems", "Instance_ids (3, 3) and labels"),
        (lambda r: (r / "Validation/Category_ids/b.png").unlink(), "problems", "no such file"),
        (set_key(2, bbox=[40, 5, 10, 30]), "problems", "does not fit the pixels"),
        (set_key(2, bbox=[90, 5, 10, 30]), "problems", "lies outside the image"),
        (set_key(2, bbox=[5, 5, 14, 30]), "remarks", "does not fit the pixels"),
        (set_key(2, parsing_id=0), "problems", "broken parsing_id"),
        (set_key(2, iscrowd=1), "remarks", "no person is annotated for the values [1]"),
        (write("Instance_ids/b.txt", b"1 1 1\n2 2 1\n7 3 1\n"), "remarks", "parts without pixels: [7]"),
        (write("Instance_ids/b.txt", b"1 1 1\n2 3 1\n"), "remarks", "150 pixels of parts have another class"),
        (write("Images/c.jpg", b"x"), "remarks", "1 images of"),
    ],
)
def test_each_mistake_is_found_and_alone(cihp, break_it, kind, message):
    break_it(cihp)
    found = check_dataset(cihp, "cihp", split="val")
    assert any(message in line for line in getattr(found, kind))
    assert kind == "problems" or not found.problems


def test_all_broken_files_are_named_at_once(cihp):
    write("Images/a.jpg", b"x")(cihp)
    write("Category_ids/b.png", b"x")(cihp)
    set_key(1, bbox=[0])(cihp)
    problems = "\n".join(check_dataset(cihp, "cihp").problems)
    assert all(name in problems for name in ("a.jpg", "Category_ids/b.png", "annotation 1 has a broken bbox"))


def test_photographs_are_checked_too(tmp_path):
    root = write_ccp(tmp_path / "ccp")
    assert check_dataset(root, "ccp").problems == []
    (root / "photos" / "p5.png").unlink()
    (root / "labels" / "p6.png").write_bytes(b"x")
    cv2.imwrite(str(root / "labels" / "p7.png"), np.zeros((120, 80), np.uint8))
    found = check_dataset(root, "ccp")
    assert [("p5" in line, "p6" in line) for line in found.problems] == [(True, False), (False, True)]
    assert ["p7.png shows no person" in line for line in found.remarks] == [True]
    assert (found.images, found.people) == (3, 1)


def test_the_command_prints_and_exits_with_2(cihp, capsys):
    assert main(["check", str(cihp), "--format", "cihp", "--split", "val"]) == 0
    text = capsys.readouterr().out
    assert "2 images, 3 people, cihp20" in text and "0 problems" in text and "upper-clothes" in text
    write("Images/a.jpg", b"x")(cihp)
    assert main(["check", str(cihp), "--format", "cihp", "--json"]) == 2
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["whole"] is False and "a.jpg" in document["problems"][0]
    assert document["classes"][1] == {"name": "hat", "pixels": 300, "images": 2}
    assert "is broken (expected no problem, got 1 problems, above)" in printed.err


@pytest.mark.parametrize(
    ("more", "splits", "images"), [([], ["val"], 2), (["--split", "train"], ["train"], 2), ([], ["train", "val"], 4)]
)
def test_every_split_is_walked_unless_one_is_named(cihp, capsys, more, splits, images):
    if "train" in splits:
        write_official(cihp, split="train")
    assert main(["check", str(cihp), "--format", "cihp", "--json", *more]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["splits"], document["images"]) == (splits, images)


def test_photographs_without_split_files_are_walked_whole(tmp_path, capsys):
    root = write_ccp(tmp_path / "ccp")
    assert main(["check", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == ["train", "val"]
    for name in ("train", "val"):
        (root / f"{name}.txt").unlink()
    assert main(["check", str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["splits"], document["images"]) == ([None], 8)


def test_a_layout_without_any_split_is_an_error(cihp, capsys):
    (cihp / "annotations" / "CIHP_val.json").unlink()
    assert main(["check", str(cihp), "--format", "cihp"]) == 2
    assert "has no split" in capsys.readouterr().err


def test_a_json_file_that_is_none_is_one_error(cihp, capsys):
    (cihp / "annotations" / "CIHP_val.json").write_text("{")
    assert main(["check", str(cihp), "--format", "cihp"]) == 2
    assert "is no JSON" in capsys.readouterr().err


def test_a_split_without_people_is_a_problem(cihp):
    edit_json(cihp / "annotations" / "CIHP_val.json", lambda d: d["annotations"].clear())
    assert check_dataset(cihp, "cihp").problems == ["the split val has no annotated person"]


@pytest.mark.parametrize(
    ("ids", "maps", "problem"),
    [
        ([0, 1, 2, 3], 30, "hold the ids 0 to 3 alone"),  # four classes of somebody's own, read as CCP
        ([0, 1, 2, 3], 4, ""),  # too few to say
        ([0, 3, 11], 30, ""),
        ([0], 30, "nothing can be learnt"),
    ],
)
def test_the_counts_of_a_whole_set_show_what_cannot_be_right(ids, maps, problem):
    found = Findings(CCP13.num_classes, images=maps)
    for _ in range(maps):
        found.count(np.array([ids], np.uint8), np.array([ids], np.uint8))
    problems, _ = doubts(found, CCP13)
    assert problem in " ".join(problems) and bool(problems) == bool(problem)
