"""Results files: read in pieces wherever the pieces end, written whole, every mistake told by its place."""

import json

import pytest

from qanet.coco import results as module
from qanet.coco.results import stream_results, write_results, xyxy
from qanet.errors import QanetError

RESULTS = [
    {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3.5, 4], "score": 0.25, "note": 'a "quote", é and ] }'},
    {"image_id": "b", "category_id": 2, "bbox": [0, 0, 1, 1], "score": 1, "inner": [[1, 2], {"x": [3]}]},
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(module, "_CHUNK_CHARS", chunk)
    (tmp_path / "r.json").write_text("\n " + json.dumps(RESULTS, indent=indent, ensure_ascii=False) + "\n", "utf-8")
    assert list(stream_results(tmp_path / "r.json")) == RESULTS


def test_what_is_written_is_read_again_and_always_the_same(tmp_path):
    assert write_results(tmp_path / "a.json", RESULTS) == 2
    assert write_results(tmp_path / "b.json", iter(RESULTS)) == 2
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == RESULTS == list(stream_results(tmp_path / "a.json"))
    assert write_results(tmp_path / "none.json", []) == 0
    assert list(stream_results(tmp_path / "none.json")) == []


def test_a_result_that_fails_leaves_the_old_file(tmp_path):
    write_results(tmp_path / "a.json", RESULTS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path / "a.json", [RESULTS[0], {"score": float("nan")}])
    assert list(stream_results(tmp_path / "a.json")) == RESULTS
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


GOOD = json.dumps(RESULTS[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ('{"images": []}', 'no results file .*got {"images'),
        ("[" + GOOD, "ends in the middle"),
        ("[" + GOOD + ",", "ends in the middle"),
        ("[", "ends in the middle"),
        ("[" + GOOD[:-20], "ends in the middle or is not JSON"),
        ("[" + GOOD + GOOD + "]", "expected ',' or ']'"),
        ("[" + GOOD + ",]", "not JSON"),
        ("[,]", "not JSON"),
        ("[3]", "entry 0 is no result .expected an object, got int"),
        ("[" + GOOD + ", [1]]", "entry 1 is no result"),
        ('[{"image_id": 1}]', "result 0 has no 'category_id'"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN}]', r"result 0: score is out of range .*\[0, 1\], got nan"),
        ('[{"image_id": 1, "category_id": 1, "score": 1.5}]', "got 1.5"),
        ('[{"image_id": 1, "category_id": 1, "score": "0.5"}]', "score is out of range"),
        ('[{"image_id": 1, "category_id": 1, "score": true}]', "got True"),
    ],
)
def test_what_is_no_results_file_is_told(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(QanetError, match=message):
        list(stream_results(tmp_path / "r.json"))


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(QanetError, match="no file"):
        list(stream_results(tmp_path / "r.json"))
    (tmp_path / "r.json").write_bytes(b"[\xff\xfe")
    with pytest.raises(QanetError, match="is not text"):
        list(stream_results(tmp_path / "r.json"))


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 3, "4"], [1, 2, -3, 4], [1, 2, float("inf"), 4], "1234"])
def test_boxes_that_are_none(box):
    with pytest.raises(QanetError, match="result 3 has no usable bbox"):
        xyxy({"bbox": box}, "result 3")


def test_boxes_have_corners():
    assert xyxy({"bbox": [1, 2, 3.5, 0]}, "r") == (1, 2, 4.5, 2)
