"""Results and their probability maps: streamed, written the same every time, and errors that name the entry."""

import base64
import json
import zipfile

import numpy as np
import pytest

from qanet.coco import results as module
from qanet.coco.results import ARRAY, count_maps, inline_map, pack_map, stream_maps, stream_results, write_results, xyxy
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


MAPS = np.random.default_rng(0).uniform(0, 1, (7, 4, 5))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "float64"])
def test_a_file_gives_its_maps_block_by_block(tmp_path, monkeypatch, save, kind):
    monkeypatch.setattr(module, "_BLOCK_MAPS", 3)
    stored = np.rint(MAPS * 255).astype(np.uint8) if kind == "uint8" else MAPS.astype(kind)
    save(tmp_path / "m.npz", other=np.zeros(3), **{ARRAY: stored})
    assert count_maps(tmp_path / "m.npz") == 7
    got = np.stack(list(stream_maps(tmp_path / "m.npz")))
    assert got.dtype == np.float32
    expected = stored / np.float32(255) if kind == "uint8" else stored.astype(np.float32)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("kind", ["u1", "<f2", "<f4"])
def test_a_result_may_pack_its_map(kind):
    name = {"u1": "uint8", "<f2": "float16", "<f4": "float32"}[kind]
    stored = (MAPS[0] * (255 if kind == "u1" else 1)).astype(kind)
    value = {"size": [4, 5], "dtype": name, "data": base64.b64encode(stored.tobytes()).decode()}
    expected = stored / np.float32(255) if kind == "u1" else stored.astype(np.float32)
    assert np.array_equal(inline_map(value, "r"), expected)


def test_a_result_may_list_its_map_and_packing_rounds_to_a_255th():
    np.testing.assert_allclose(inline_map(MAPS[0].tolist(), "r"), MAPS[0], atol=1e-7)
    np.testing.assert_allclose(inline_map(pack_map(MAPS[0]), "r"), MAPS[0], atol=0.5 / 255 + 1e-6)


BYTES = base64.b64encode(bytes(20)).decode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0.5, float("nan")]], "map 4 holds no probabilities .expected 0 to 1, after the sigmoid, got 1 nan"),
        ([[0.5, 1.5]], "got 0.5 to 1.5"),
        ([[-3.0, 2.0]], "got -3 to 2"),
        ([0.5], r"wrong shape .*got \(1,\)"),
        ([[]], "wrong shape"),
        ([[0.1], [0.2, 0.3]], "are not numbers"),
        ("abc", "are not numbers"),
        ({"size": [4, 5], "dtype": "int8", "data": BYTES}, "not in a known form .*int8"),
        ({"size": [4, 0], "dtype": "uint8", "data": BYTES}, "not in a known form"),
        ({"size": [4, 5], "dtype": "uint8"}, "not in a known form"),
        ({"size": [4, 6], "dtype": "uint8", "data": BYTES}, "another count than their size .expected 24, got 20"),
        ({"size": [4, 5], "dtype": "uint8", "data": "=!"}, "not base64"),
        ({"size": [4, 5], "dtype": "float32", "data": base64.b64encode(bytes(7)).decode()}, "not base64 of whole"),
    ],
)
def test_maps_that_are_none_are_told(value, message):
    with pytest.raises(QanetError, match=message):
        inline_map(value, "map 4")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": MAPS}, f"has no array {ARRAY} .*got masks"),
        ({ARRAY: MAPS[0]}, "does not fit"),
        ({ARRAY: MAPS > 0}, "got bool"),
        ({ARRAY: MAPS[:, :0]}, "does not fit"),
        ({ARRAY: np.asfortranarray(MAPS)}, "column by column"),
        ({ARRAY: np.array([{"executed": 1}], object)}, "does not fit .*got object"),
    ],
)
def test_files_that_do_not_fit_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(QanetError, match=message):
        count_maps(tmp_path / "m.npz")


def test_a_bad_map_is_told_by_its_place(tmp_path):
    maps = MAPS.astype(np.float32)
    maps[5, 1, 1] = np.nan
    np.savez(tmp_path / "m.npz", **{ARRAY: maps})
    with pytest.raises(QanetError, match="map 5 holds no probabilities .*got 1 nan"):
        list(stream_maps(tmp_path / "m.npz"))


def test_files_that_are_missing_broken_or_cut_short(tmp_path):
    with pytest.raises(QanetError, match="no file"):
        count_maps(tmp_path / "m.npz")
    (tmp_path / "m.npz").write_bytes(b"PK not a zip")
    with pytest.raises(QanetError, match="not an .npz file"):
        count_maps(tmp_path / "m.npz")
    np.save(tmp_path / "whole.npy", MAPS.astype(np.float32))
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr(f"{ARRAY}.npy", (tmp_path / "whole.npy").read_bytes()[:-8])
    with pytest.raises(QanetError, match="is cut short .expected 7 maps"):
        list(stream_maps(tmp_path / "m.npz"))
