"""`qanet new`: a drawing in any form of annotation gives the same folder; what cannot be right is refused."""

import json

import cv2
import numpy as np
import pytest

from qanet.datasets import open_dataset
from qanet.datasets.importing import find_annotations
from qanet.datasets.new import ClassPlan, make_folder
from qanet.errors import QanetError

HW = (40, 60)
TRUTH = np.zeros(HW, np.uint8)
TRUTH[4:20, 5:30], TRUTH[22:38, 10:50] = 1, 2
CORNERS = {"hat": (5, 4, 29, 19), "coat": (10, 22, 49, 37)}  # x0 y0 x1 y1, the last pixels


def ring(name):
    x0, y0, x1, y1 = CORNERS[name]
    return [[x0, y0], [x1 + 1, y0], [x1 + 1, y1 + 1], [x0, y1 + 1]]


def photographs(folder, count=3):
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"p{number}.jpg"), np.full((*HW, 3), 60 * number, np.uint8))


def masks(root, picture):
    photographs(root / "images")
    (root / "masks").mkdir()
    for number in range(3):
        cv2.imwrite(str(root / "masks" / f"p{number}.png"), picture)


def ids(root):
    masks(root, TRUTH)


def colours(root):
    masks(root, np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)[TRUTH])
    (root / "labelmap.txt").write_text("# label:color\nbackground:0,0,0::\nhat:255,0,0::\ncoat:0,255,0::\n")


def coco(root):
    photographs(root / "images")
    entries = [
        {"image_id": n, "category_id": c, "segmentation": [sum(ring(name), [])], "area": 1}
        for n in range(3)
        for c, name in enumerate(CORNERS)
    ]
    images = [{"id": n, "file_name": f"p{n}.jpg", "height": HW[0], "width": HW[1]} for n in range(3)]
    categories = [{"id": c, "name": name} for c, name in enumerate(CORNERS)]
    document = {"images": images, "annotations": entries, "categories": categories}
    (root / "people.json").write_text(json.dumps(document))


def cvat(root):
    photographs(root / "images")
    shapes = "".join(
        f'<polygon label="{name}" points="{";".join(f"{x},{y}" for x, y in ring(name))}" z_order="0"/>'
        for name in CORNERS
    )
    images = "".join(f'<image name="p{n}.jpg" height="{HW[0]}" width="{HW[1]}">{shapes}</image>' for n in range(3))
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>")


def labelme(root):
    photographs(root)
    shapes = [{"label": name, "points": ring(name), "shape_type": "polygon"} for name in CORNERS]
    for n in range(3):
        document = {"imagePath": f"p{n}.jpg", "imageHeight": HW[0], "imageWidth": HW[1], "shapes": shapes}
        (root / f"p{n}.json").write_text(json.dumps(document))


@pytest.mark.parametrize("write", [ids, colours, coco, cvat, labelme], ids=lambda write: write.__name__)
def test_every_form_gives_the_same_folder(write, tmp_path):
    write(tmp_path / "source") if write in (labelme,) else (tmp_path / "source").mkdir() or write(tmp_path / "source")
    found = find_annotations(tmp_path / "source")
    folder = make_folder(tmp_path / "mine", found, ClassPlan.parse("hat,coat"))
    data = open_dataset(folder, "folder", split="train")
    assert data.label_set.name == "mine" and data.label_set.classes == ("background", "hat", "coat")
    assert len(data) == 2 and len(open_dataset(folder, "folder", split="val")) == 1
    agree = np.mean(data[0].labels == TRUTH)
    assert agree == 1 if found.form.startswith("masks") else agree > 0.97
    assert json.loads((folder / "recipe.json").read_text())["labels"] == "labels.json"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("hat", "masks of ids without a name"),  # an id without a class
        ("hat,coat=1+2", "without a name|is in two classes"),
        ("hat,,coat", "bad --classes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message, tmp_path):
    (tmp_path / "source").mkdir()
    ids(tmp_path / "source")
    with pytest.raises(QanetError, match=message):
        make_folder(tmp_path / "mine", find_annotations(tmp_path / "source"), ClassPlan.parse(classes))
    assert not (tmp_path / "mine").exists()


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(QanetError, match="no annotations were recognised"):
        find_annotations(tmp_path)
