"""The INT8 graph: its structure, its weights, its bytes, and that every runtime here takes it and agrees."""

import numpy as np
import pytest
from rtx_small import RtxNetwork

from qanet.bundle import NO_VNNI
from qanet.calib.quantize import NARROW_TYPES, SMALLEST_SCALE, insert_qdq, quantise, quantise_weight
from qanet.calib.scales import Range, find_scales
from qanet.errors import QanetError
from qanet.runtime.backends.openvino import openvino_core

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture
def scales(small_model, crops):
    return find_scales(small_model, [crops], "minmax", keep=())[0]


@pytest.fixture
def int8(small_model, scales):
    """The INT8 graph, as an ONNX file's contents."""
    return quantise(small_model, scales)


def _run(graph, crops):
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["logits", "labels", "quality"], {"crops": crops, "box_scores": np.ones(len(crops), np.float32)})


def test_weights_dequantise_to_within_half_a_step_of_their_channel():
    weight = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
    weight *= np.array([1e-3, 0.1, 1, 5, 40, 0.02], np.float32).reshape(-1, 1, 1, 1)
    values, scale = quantise_weight(weight)
    assert (values.dtype, values.shape, scale.shape) == (np.int8, weight.shape, (6,))
    step = scale.reshape(-1, 1, 1, 1)
    assert (np.abs(values * step - weight) <= step * 0.5001).all()
    assert (np.abs(values).reshape(6, -1).max(1)[1:] == 127).all()  # every step is used...
    assert scale[0] == np.float32(SMALLEST_SCALE)  # ...but where FP16 could not hold the scale


def test_a_channel_of_zeros_stays_zero():
    values, scale = quantise_weight(np.zeros((2, 1, 3, 3), np.float32))
    assert not values.any() and (scale == np.float32(SMALLEST_SCALE)).all()


def test_stored_weights_are_int8_and_dequantised_once(small_model, int8):
    before = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(small_model).graph.initializer}
    after = onnx.load_model_from_string(int8).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in after.initializer}
    for name in ("stem", "deep", "project", "down", "mix", "logits"):
        assert f"{name}.weight" not in tensors
        values, scale = tensors[f"{name}.weight.int8"], tensors[f"{name}.weight.scale"].reshape(-1, 1, 1, 1)
        assert values.dtype == np.int8
        assert (np.abs(values * scale - before[f"{name}.weight"]) <= scale * 0.5001).all()
    makers = {node.output[0]: node for node in after.node}
    for node in after.node:
        if node.op_type == "Conv" and node.name != "iou.fc":
            dequantise = makers[node.input[1]]
            assert dequantise.op_type == "DequantizeLinear" and dequantise.input[0] not in makers  # no Q on weights


def test_nothing_stands_between_a_convolution_and_its_activation(int8):
    graph = onnx.load_model_from_string(int8).graph
    makers = {name: node for node in graph.node for name in node.output}
    activations = [node for node in graph.node if node.op_type in ("Relu", "Clip")]
    assert len(activations) == 5
    assert all(makers[node.input[0]].op_type == "Conv" for node in activations)


def test_no_bias_is_quantised_and_all_zero_points_are_zero(int8):
    graph = onnx.load_model_from_string(int8).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    biases = [node.input[2] for node in graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2]
    assert len(biases) == 7
    assert all(tensors[name].dtype == np.float32 for name in biases)
    quantised = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantised and all(tensors[n.input[2]].dtype == np.int8 and not tensors[n.input[2]].any() for n in quantised)
    assert not any(t.dtype == np.int32 for t in tensors.values())


def test_every_scale_is_amax_over_127(int8, scales):
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(int8).graph.initializer}
    for name, entry in scales.ranges.items():
        assert tensors[f"{name}.scale"] == np.float32(entry.amax / 127)
    assert tensors["down.up.scale"] == tensors["down.relu.scale"]


def test_inputs_and_outputs_are_those_of_the_fp32_graph(small_model, int8):
    before, after = onnx.load_model_from_string(small_model).graph, onnx.load_model_from_string(int8).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)


def test_the_same_bytes_every_time_and_the_given_model_is_left_alone(small_model, scales, int8):
    assert quantise(small_model, scales) == int8
    model = scales.check(small_model)
    bytes_before = model.SerializeToString(deterministic=True)
    insert_qdq(model, scales)
    assert model.SerializeToString(deterministic=True) == bytes_before


def test_onnxruntime_agrees_with_fp32(small_model, int8, crops):
    reference, got = _run(small_model, crops), _run(int8, crops)
    assert (got[1] == reference[1]).mean() > 0.97
    error = np.sqrt(((got[0] - reference[0]) ** 2).mean() / (reference[0] ** 2).mean())
    assert 1e-4 < error < 0.05  # INT8 was really written, and does not break it
    np.testing.assert_allclose(got[2], reference[2], atol=0.05)


def test_a_range_that_is_far_too_small_does_harm(small_model, scales, crops):
    """The check above can fail: a stem cut off at a hundredth of its range changes what comes out."""
    from dataclasses import replace

    ranges = dict(scales.ranges) | {"stem.relu6": Range(scales.ranges["stem.relu6"].amax / 100, "hand", 1.0)}
    cut = quantise(small_model, replace(scales, ranges=ranges))
    reference, got = _run(small_model, crops), _run(cut, crops)
    assert np.sqrt(((got[0] - reference[0]) ** 2).mean() / (reference[0] ** 2).mean()) > 0.2
    ranges["stem.relu6"] = Range(1e-5, "hand", 1.0)
    with pytest.raises(QanetError, match=r"range of tensor 'stem\.relu6' is too small"):
        quantise(small_model, replace(scales, ranges=ranges))


def test_openvino_runs_the_convolutions_in_int8(small_model, int8, crops):
    pytest.importorskip("openvino")
    compiled = openvino_core().compile_model(
        openvino_core().read_model(int8), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    kinds = {}
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        if info["layerType"] == "Convolution":
            kinds[operation.get_friendly_name().split("/")[0]] = info["runtimePrecision"]
    assert sum(kind in ("u8", "i8") for kind in kinds.values()) == 6, kinds
    result = compiled([crops, np.ones(len(crops), np.float32)])
    reference = _run(small_model, crops)
    assert (result["labels"] == reference[1]).mean() > 0.97


def test_tensorrt_rtx_takes_the_graph(int8):
    assert RtxNetwork(int8).build() is not None


def pair_sums(values):
    size = np.abs(values.astype(int))
    return size[:, ::2] + size[:, 1::2]


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (5, 2, 1, 1), (9, 64, 1, 1)])
def test_without_vnni_neighbouring_weights_share_their_range(shape):
    weight = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    values, scale = quantise_weight(weight, NARROW_TYPES[NO_VNNI])
    assert pair_sums(values).max() <= 128 and np.abs(values).max() <= 127
    assert 255 * int(pair_sums(values).max()) <= 2**15 - 1
    back = values * scale[:, None, None, None]
    assert np.abs(back - weight).max() <= 1.51 * scale.max()  # a step more where both of a pair were rounded up
    seven_bits = np.abs(weight).reshape(len(weight), -1).max(1) / 64
    assert (scale <= seven_bits * (1 + 1e-6)).all() and (scale < 0.95 * seven_bits).any()


def test_without_vnni_both_of_a_pair_may_not_be_rounded_up():
    weight = np.array([[64.5, 63.5, 1, 0]], np.float32).reshape(1, 4, 1, 1)  # scale 1: the first pair sums to 128
    values, scale = quantise_weight(weight, NARROW_TYPES[NO_VNNI])
    assert scale == [1] and pair_sums(values).max() <= 128


def test_without_vnni_an_odd_number_of_channels_has_64_levels_and_a_depthwise_one_keeps_127():
    weight = np.random.default_rng(2).normal(0, 1, (6, 3, 3, 3)).astype(np.float32)
    assert np.abs(quantise_weight(weight, NARROW_TYPES[NO_VNNI])[0]).max() == 64
    depthwise = np.random.default_rng(3).normal(0, 1, (6, 1, 3, 3)).astype(np.float32)
    values, scale = quantise_weight(depthwise, NARROW_TYPES[NO_VNNI], is_depthwise=True)
    assert np.array_equal(values, quantise_weight(depthwise)[0]) and np.abs(values).max() == 127
