"""scales.json: it survives a round trip and a careful hand, and is checked against the graph."""

import hashlib
import json

import numpy as np
import pytest

from qanet.calib.ranges import METHODS
from qanet.calib.scales import Range, Scales, find_scales, load_scales
from qanet.errors import QanetError

pytest.importorskip("onnxruntime")


@pytest.fixture
def scales(small_model, crops):
    return find_scales(small_model, [crops], "entropy")[0]


def test_round_trip_and_one_line_a_tensor(scales, small_model, tmp_path):
    path = tmp_path / "scales.json"
    path.write_text(scales.to_json())
    assert load_scales(path) == scales and scales.check(small_model).graph.node
    lines = path.read_text().splitlines()
    assert sum('"amax"' in line for line in lines) == len(scales.ranges)
    assert list(json.loads(path.read_text())["tensors"]) == list(scales.ranges)  # graph order


def test_a_hand_edited_range_is_taken(scales, small_model, tmp_path):
    path = tmp_path / "scales.json"
    document = json.loads(scales.to_json())
    document["tensors"]["project"] = {"amax": 3}
    path.write_text(json.dumps(document))
    assert load_scales(path).ranges["project"] == Range(3.0, "hand", 3.0)


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
        (_of_another_model, "made for another FP32 graph"),
        (_with_a_bad_pattern, "no node matches the pattern 'no.such.node'"),
    ],
)
def test_a_record_that_does_not_fit_the_graph(scales, small_model, tmp_path, edit, message):
    document = json.loads(scales.to_json())
    edit(document)
    path = tmp_path / "scales.json"
    path.write_text(json.dumps(document))
    loaded = load_scales(path)  # fine by itself
    with pytest.raises(QanetError, match=message):
        loaded.check(small_model)


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
    loaded = load_scales(path)
    assert loaded.keep == () and loaded.check(small_model).graph.node


ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def calibrate(graph, batches, method, **options):
    """The scales, without the cache."""
    return find_scales(graph, batches, method, use_cache=False, **options)[0]


@pytest.mark.parametrize("method", METHODS)
def test_how_crops_are_batched_changes_nothing(small_model, crops, method):
    whole = calibrate(small_model, [crops], method)
    split = calibrate(small_model, iter([crops[:1], crops[1:6], crops[6:]]), method)
    assert whole == split
    assert whole.to_json() == split.to_json()
    assert whole.crops == 12
    assert whole.model_sha256 == hashlib.sha256(small_model).hexdigest()
    assert whole.data_sha256 == split.data_sha256 != calibrate(small_model, [crops[::-1]], method).data_sha256


def test_minmax_equals_the_activations(small_model, crops):
    scales = calibrate(small_model, [crops], "minmax")
    model = onnx.load_model_from_string(small_model)
    names = list(scales.ranges)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {"crops": crops, "box_scores": np.ones(12, np.float32)})
    for name, value in zip(names, values):
        assert scales.ranges[name].amax == pytest.approx(np.abs(value).max(), rel=1e-5), name


def test_ranges_stand_in_graph_order_and_no_method_exceeds_the_largest(small_model, crops):
    expected = ["normalised", "stem.relu6", "deep.relu6", "project", "project.sum", "down.relu", "mix.relu"]
    for method in METHODS:
        scales = calibrate(small_model, [crops], method, percentile=99)
        # The resize's output shares the range of its input; mix.relu is read by the kept head alone, for now.
        assert list(scales.ranges) == expected
        assert all(0 < r.amax <= r.largest for r in scales.ranges.values())
        assert {r.by for r in scales.ranges.values()} == {"percentile 99" if method == "percentile" else method}


def test_progress_counts_crops(small_model, crops):
    seen = []
    calibrate(small_model, [crops[:3], crops[3:5]], "minmax", progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "too few crops .*got 0"),
        ([np.zeros((0, 16, 12, 3), np.uint8)], "too few crops"),
        ([np.ones((1, 16, 12, 3), np.uint8)], "too few crops .*got 1"),
        ([np.zeros((4, 16, 12, 3), np.uint8)], "all 4 crops are black"),
        ([np.ones((4, 12, 16, 3), np.uint8)], r"expected uint8 \(B, 16, 12, 3\), got uint8 \(4, 12, 16, 3\)"),
        ([np.ones((16, 12, 3), np.uint8)], "do not fit"),
        ([np.ones((4, 16, 12, 3), np.float32)], "got float32"),
    ],
)
def test_crops_that_are_refused(small_model, batches, message):
    with pytest.raises(QanetError, match=message):
        calibrate(small_model, batches, "minmax")


def test_unknown_method_is_refused_before_anything_is_read():
    with pytest.raises(QanetError, match="one of entropy, percentile, mse, minmax"):
        calibrate(b"no graph", [], "kl")


@pytest.mark.parametrize("content", [b"", b"not a graph", "half"])
def test_broken_onnx(small_model, crops, content):
    with pytest.raises(QanetError, match="broken ONNX file"):
        calibrate(small_model[:2000] if content == "half" else content, [crops], "minmax")


def test_a_tensor_that_is_always_zero_is_named(small_graph, crops):
    model = small_graph(16, 12)
    for tensor in model.graph.initializer:
        if tensor.name == "down.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 8, 3, 3), np.float32), tensor.name))
    with pytest.raises(QanetError, match=r"'down\.relu' is zero for every crop"):
        calibrate(model.SerializeToString(), [crops], "entropy")


def test_a_tensor_that_is_not_finite_is_named(small_graph, crops):
    model = small_graph(16, 12)
    for tensor in model.graph.initializer:
        if tensor.name == "inverse_std":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(np.inf, np.float32), tensor.name))
    with pytest.raises(QanetError, match="NaN or infinite in tensor 'normalised'"):
        calibrate(model.SerializeToString(), [crops], "mse")


def test_a_graph_without_a_uint8_input_is_refused(crops):
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,3,8,8] x) => (float[N,2,8,8] y) '
        "<float[2,3,1,1] w = {1,2,3,4,5,6}> { y = Conv(x, w) }"
    )
    with pytest.raises(QanetError, match="one uint8 input"):
        calibrate(graph.SerializeToString(), [crops], "minmax")
