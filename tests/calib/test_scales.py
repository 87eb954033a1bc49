"""scales.json: it survives a round trip and a careful hand, and is checked against the graph."""

import json

import pytest

from qanet.calib.scales import Range, Scales, load_scales
from qanet.errors import QanetError

pytest.importorskip("onnxruntime")


@pytest.fixture
def scales(small_model, crops):
    from qanet.calib.calibrate import calibrate

    return calibrate(small_model, [crops], "entropy", data_sha256="ab" * 32)


def test_round_trip_and_one_line_a_tensor(scales, small_model, tmp_path):
    path = tmp_path / "scales.json"
    scales.save(path)
    assert load_scales(path, small_model) == scales
    lines = path.read_text().splitlines()
    assert sum('"amax"' in line for line in lines) == len(scales.ranges)
    assert list(json.loads(path.read_text())["tensors"]) == list(scales.ranges)  # graph order


def test_a_hand_edited_range_is_taken(scales, small_model, tmp_path):
    path = tmp_path / "scales.json"
    document = json.loads(scales.to_json())
    document["tensors"]["project"] = {"amax": 3}
    path.write_text(json.dumps(document))
    assert load_scales(path, small_model).ranges["project"] == Range(3.0, "hand", 3.0)


@pytest.mark.parametrize("amax", [0, -1.5, float("nan"), float("inf"), None, "6", True])
def test_an_amax_that_is_no_range_is_refused_by_name(scales, tmp_path, amax):
    document = json.loads(scales.to_json())
    document["tensors"]["project"]["amax"] = amax
    path = tmp_path / "scales.json"
    path.write_text(json.dumps(document))
    with pytest.raises(QanetError, match="amax of tensor 'project'"):
        load_scales(path)


def _without_project(document):
    del document["tensors"]["project"]


def _with_a_stranger(document):
    document["tensors"]["backbone.nowhere"] = {"amax": 1.0}


def _of_another_model(document):
    document["model_sha256"] = "0" * 64


def _with_a_bad_pattern(document):
    document["keep"] = ["no.such.node"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without_project, "no range for tensor 'project'"),
        (_with_a_stranger, "'backbone.nowhere' is not in the graph"),
        (_of_another_model, "made for another model"),
        (_with_a_bad_pattern, "no node matches the pattern 'no.such.node'"),
    ],
)
def test_a_record_that_does_not_fit_the_graph(scales, small_model, tmp_path, edit, message):
    document = json.loads(scales.to_json())
    edit(document)
    path = tmp_path / "scales.json"
    path.write_text(json.dumps(document))
    load_scales(path)  # fine by itself
    with pytest.raises(QanetError, match=message):
        load_scales(path, small_model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[]", "another schema"),
        ('{"schema": 99}', "another schema"),
        ('{"schema": 1, "method": "mse"}', "field 'crops'"),
    ],
)
def test_a_broken_file(tmp_path, text, message):
    path = tmp_path / "scales.json"
    path.write_text(text)
    with pytest.raises(QanetError, match=message):
        load_scales(path)
    with pytest.raises(QanetError, match="cannot read"):
        load_scales(tmp_path / "absent.json")


def test_the_same_record_gives_the_same_bytes(scales):
    again = Scales(
        scales.method,
        scales.crops,
        scales.model_sha256,
        scales.data_sha256,
        scales.keep,
        dict(scales.ranges),
        dict(scales.largest),
    )
    assert again.to_json() == scales.to_json()
    assert again.to_json().endswith("}\n")


def test_what_is_never_quantised_has_its_largest_value(scales, tmp_path):
    assert scales.largest["float"] == 255.0  # the pixels
    assert set(scales.ranges).isdisjoint(scales.largest)
    assert {"stem", "iou.fc.relu", "flat"} <= set(scales.largest)
    document = json.loads(scales.to_json())
    path = tmp_path / "scales.json"
    del document["largest"]  # as older versions wrote it
    path.write_text(json.dumps(document))
    assert load_scales(path).largest == {}
    for bad in ({"a": -1}, {"a": "x"}, {"a": float("nan")}, [1], {"a": True}):
        path.write_text(json.dumps(document | {"largest": bad}))
        with pytest.raises(QanetError, match="largest"):
            load_scales(path)


def test_a_layer_is_put_into_int8_by_hand(scales, small_model, tmp_path):
    """The ranges of what `keep` leaves in float are there too."""
    document = json.loads(scales.to_json())
    document["keep"] = []
    path = tmp_path / "scales.json"
    path.write_text(json.dumps(document))
    assert load_scales(path, small_model).keep == ()
