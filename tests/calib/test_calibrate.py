"""Calibration end to end on a small graph: determinism, agreement with the activations, and every refusal."""

import numpy as np
import pytest

from qanet.calib.calibrate import calibrate
from qanet.calib.graph import crops_sha256, file_sha256
from qanet.calib.ranges import METHODS
from qanet.errors import QanetError

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("method", METHODS)
def test_how_crops_are_batched_changes_nothing(small_model, crops, method):
    whole = calibrate(small_model, [crops], method)
    split = calibrate(small_model, iter([crops[:1], crops[1:6], crops[6:]]), method)
    assert whole == split
    assert whole.to_json() == split.to_json()
    assert whole.crops == 12
    assert whole.model_sha256 == file_sha256(small_model)
    assert crops_sha256([crops]) == crops_sha256([crops[:5], crops[5:]]) != crops_sha256([crops[::-1]])


def test_minmax_equals_the_activations(small_model, crops):
    scales = calibrate(small_model, [crops], "minmax")
    model = onnx.load(small_model)
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


def test_unknown_method_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(QanetError, match="one of entropy, percentile, mse, minmax"):
        calibrate(tmp_path / "absent.onnx", [], "kl")


@pytest.mark.parametrize("content", [None, b"", b"not a graph", "half"])
def test_broken_onnx(small_model, tmp_path, crops, content):
    path = tmp_path / "broken.onnx"
    if content == "half":
        content = small_model.read_bytes()[:2000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QanetError, match="no ONNX file" if content is None else "broken ONNX file"):
        calibrate(path, [crops], "minmax")


def test_a_tensor_that_is_always_zero_is_named(tmp_path, small_graph, crops):
    model = small_graph(16, 12)
    for tensor in model.graph.initializer:
        if tensor.name == "down.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 8, 3, 3), np.float32), tensor.name))
    path = tmp_path / "dead.onnx"
    onnx.save(model, path)
    with pytest.raises(QanetError, match=r"'down\.relu' is zero for every crop"):
        calibrate(path, [crops], "entropy")


def test_a_tensor_that_is_not_finite_is_named(tmp_path, small_graph, crops):
    model = small_graph(16, 12)
    for tensor in model.graph.initializer:
        if tensor.name == "inverse_std":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(np.inf, np.float32), tensor.name))
    path = tmp_path / "infinite.onnx"
    onnx.save(model, path)
    with pytest.raises(QanetError, match="NaN or infinite in tensor 'normalised'"):
        calibrate(path, [crops], "mse")


def test_a_graph_without_a_uint8_input_is_refused(tmp_path, crops):
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,3,8,8] x) => (float[N,2,8,8] y) '
        "<float[2,3,1,1] w = {1,2,3,4,5,6}> { y = Conv(x, w) }"
    )
    path = tmp_path / "float.onnx"
    onnx.save(graph, path)
    with pytest.raises(QanetError, match="one uint8 input"):
        calibrate(path, [crops], "minmax")
