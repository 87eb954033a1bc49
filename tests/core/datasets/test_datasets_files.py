"""Files of data sets: palettes and few bits are ids all the same; boxes of detectors are checked."""

import json
import zlib

import cv2
import numpy as np
import pytest
from official_sets import write_ccp, write_official

from qanet.datasets import open_dataset, read_detections
from qanet.datasets.decoding import decode_ids, ids_of_png
from qanet.errors import QanetError, QanetWarning


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def write_png(path, ids, depth, colour_type, palette=None):
    """A PNG by hand: cv2 writes no palettes and no depths below 8."""
    height, width = ids.shape
    rows = b""
    for row in ids:
        bits = "".join(format(int(v), f"0{depth}b") for v in row)
        rows += b"\0" + bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour_type, 0, 0, 0])
    middle = b"" if palette is None else chunk(b"PLTE", bytes(palette)) + chunk(b"tRNS", b"\0")
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    path.write_bytes(data)


@pytest.mark.parametrize("colour_type", [0, 3])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_ids_do_not_depend_on_palette_and_depth(tmp_path, depth, colour_type):
    ids = np.random.default_rng(depth).integers(0, 2**depth, (7, 13)).astype(np.uint8)
    palette = [60] * (3 * 2**depth) if colour_type == 3 else None  # all colours alike: only the indices tell
    write_png(tmp_path / "ids.png", ids, depth, colour_type, palette)
    assert np.array_equal(decode_ids(tmp_path / "ids.png"), ids)


def test_sixteen_bits_are_for_parts_only(tmp_path):
    path = tmp_path / "parts.png"
    cv2.imwrite(str(path), np.full((4, 5), 300, np.uint16))
    assert decode_ids(path, deep=True).tolist() == [[300] * 5] * 4
    with pytest.raises(QanetError, match="broken label file .*expected an 8-bit one-channel PNG of ids, got uint16"):
        decode_ids(path)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"0" * 40])
def test_other_bytes_pass_unchanged(data):
    assert ids_of_png(data) == (data, 1)


@pytest.fixture
def cihp(tmp_path):
    return write_official(tmp_path / "CIHP")


def write_boxes(path, *entries):
    path.write_text(json.dumps(entries))
    return path


def box(image_id=1, bbox=(5, 5, 10, 30), score=0.5, category_id=1):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox), "score": score}


def test_detected_boxes_take_the_place_of_the_true_ones(cihp):
    data = open_dataset(cihp, "cihp")
    entries = [
        box(),
        box(bbox=(-3, 30, 8, 90), score=0.25),
        box(bbox=(70, 0, 9, 9)),
        box(bbox=(0, 0, 0.4, 9)),
        box(category_id=3, image_id=999),
    ]
    detected = read_detections(write_boxes(cihp / "boxes.json", *entries), data.image_ids)
    first, second = data.images(detected)
    assert first.boxes.tolist() == [[5, 5, 15, 35], [0, 30, 5, 40]]  # cut at the border; what is outside is gone
    assert first.box_scores.tolist() == [0.5, 0.25]
    assert second.boxes.shape == (0, 4) and second.box_scores.shape == (0,)


def test_boxes_of_photographs_go_by_their_names(tmp_path):
    data = open_dataset(write_ccp(tmp_path / "ccp"), "ccp")
    detected = read_detections(write_boxes(tmp_path / "boxes.json", box("p6")), data.image_ids)
    assert [len(scene.boxes) for scene in data.images(detected)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no file .*boxes.json"),
        ("{", r"boxes.json is no JSON"),
        ('{"a": 1}', r"no COCO results file .*got dict"),
        ("[3]", r"entry 0 is no detection .*got int"),
        (json.dumps([{"image_id": 1, "bbox": [0, 0, 1, 1]}]), r"entry 0 is no detection .*got \['bbox', 'image_id'\]"),
        (json.dumps([box(), box(image_id=9)]), r"entry 1 is of an image that is not in the data set .*got 9"),
        (json.dumps([box(bbox=(0, 0, 1))]), r"entry 0 has a broken box"),
        (json.dumps([box(bbox=(0, 0, 1, float("inf")))]), r"entry 0 has a broken box"),
        (json.dumps([box(score="high")]), r"entry 0 has a broken box"),
        (json.dumps([box(score=float("nan"))]), r"entry 0 has a broken box"),
    ],
)
def test_broken_boxes_files_are_named(cihp, text, message):
    path = cihp / "boxes.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QanetError, match=message):
        read_detections(path, open_dataset(cihp, "cihp").image_ids)


def photo_folder(root, photos, split=None):
    """A folder in CCP's layout: file name -> (pixels (H, W, 3), EXIF orientation); labels of the shown size."""
    image = pytest.importorskip("PIL.Image")
    (root / "photos").mkdir(parents=True)
    (root / "labels").mkdir()
    for name, (pixels, orientation) in photos.items():
        exif = image.Exif()
        exif[0x0112] = orientation
        image.fromarray(pixels).save(root / "photos" / name, exif=exif)
        shown = pixels.shape[:2] if orientation < 5 else pixels.shape[1::-1]
        cv2.imwrite(str(root / "labels" / f"{name.rsplit('.', 1)[0]}.png"), np.ones(shown, np.uint8))
    if split is not None:
        (root / "val.txt").write_bytes(split)
    return root


HALVES = np.zeros((8, 12, 3), np.uint8)
HALVES[:, :6] = 255  # white on the left


@pytest.mark.parametrize(
    ("orientation", "bright"), [(1, np.s_[:, :5]), (3, np.s_[:, 7:]), (6, np.s_[:5]), (8, np.s_[7:])]
)
def test_a_photograph_is_turned_as_its_labels_are(tmp_path, orientation, bright):
    root = photo_folder(tmp_path, {"a.png": (HALVES, orientation)})
    sample = open_dataset(root, "ccp")[0]
    assert sample.image.shape[:2] == sample.labels.shape
    assert (sample.image[bright] == 255).all() and (sample.image == 255).mean() == 0.5
    if orientation > 4:  # labels drawn by a program that ignores EXIF
        cv2.imwrite(str(root / "labels" / "a.png"), np.ones(HALVES.shape[:2], np.uint8))
        assert np.array_equal(open_dataset(root, "ccp")[0].image, HALVES)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"\xef\xbb\xbfa\r\nb c\r\n", ["a", "b c"]),
        (b"\n  a  \n\n\nd\n\n", ["a", "d"]),
        (b"a.png\nb c.png\n", ["a", "b c"]),
        (b"a d\n", ["a", "d"]),
        (b"d", ["d"]),
    ],
    ids=["BOM", "blank lines", "file names", "two on a line", "no end of line"],
)
def test_a_split_file_is_read_as_it_was_meant(tmp_path, text, names):
    root = photo_folder(tmp_path, {f"{name}.png": (HALVES, 1) for name in ("a", "b c", "d")}, text)
    assert open_dataset(root, "ccp", split="val").names == names


@pytest.mark.parametrize(
    ("text", "message"), [(b"e\n", "the first is e"), (b"\xff\xfe", "cannot be read"), (b"\n\n", "the split is empty")]
)
def test_a_wrong_split_file_is_refused(tmp_path, text, message):
    root = photo_folder(tmp_path, {"a.png": (HALVES, 1)}, text)
    with pytest.raises(QanetError, match=message):
        open_dataset(root, "ccp", split="val")


def test_names_that_come_again_count_once_and_are_said(tmp_path):
    root = photo_folder(tmp_path, {"a.png": (HALVES, 1), "b.png": (HALVES, 1)}, b"a\nb\na.png\n")
    with pytest.warns(QanetWarning, match="names 1 photographs again"):
        assert open_dataset(root, "ccp", split="val").names == ["a", "b"]


def test_two_photographs_of_one_name_are_refused(tmp_path):
    root = photo_folder(tmp_path, {"a.png": (HALVES, 1), "a.jpg": (HALVES, 1)})
    with pytest.raises(QanetError, match="two photographs of one name .*a.jpg and a.png"):
        open_dataset(root, "ccp")


def test_a_photograph_without_its_last_bytes_is_learnt_from_and_said(tmp_path):
    root = photo_folder(tmp_path, {"a.jpg": (HALVES, 1)})
    whole = open_dataset(root, "ccp")[0].image
    path = root / "photos" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.warns(QanetWarning, match="a.jpg lacks its last bytes"):
        assert np.array_equal(open_dataset(root, "ccp")[0].image, whole)
