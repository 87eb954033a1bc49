"""Files of data sets: palettes and few bits are ids all the same; boxes of detectors are checked."""

import json
import zlib

import cv2
import numpy as np
import pytest
from official_sets import write_ccp, write_official

from qanet.datasets import open_dataset, read_detections
from qanet.datasets.decoding import decode_ids, ids_of_png
from qanet.errors import QanetError


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
