"""The FP16 graph: which tensors are FP16, that it is typed throughout, that no sum overflows, what it refuses."""

import importlib.util
from copy import deepcopy

import numpy as np
import pytest
from rtx_small import RtxNetwork

from qanet.errors import QanetError
from qanet.export.graphs.typed import BF16_OPSET, FP16_BOUND, beyond_fp16, to_bf16, to_fp16
from qanet.runtime.backends.openvino import openvino_core

onnx = pytest.importorskip("onnx")
CROPS = np.random.default_rng(2).integers(0, 256, (3, 16, 12, 3)).astype(np.uint8)
FEED = {"crops": CROPS, "box_scores": np.array([0.9, 0.5, 1.0], np.float32)}

# The real graph in small: pixels, normalisation, network with a resize, two heads with a pooling, softmax, scores.
_SMALL = """
<ir_version: 10, opset_import: ["": 18]>
small (uint8[N,16,12,3] crops, float[N] box_scores) => (float[N,3,8,6] logits, float[N] pixel_scores, float[N] quality)
<float mean = {127}, float inverse_std = {0.0078125}, float zero = {0}, float six = {6}, float[4] twice = {1,1,2,2},
 int64[1] channel = {1}, int64[2] map = {1,2}, int64[2] pixels = {2,3}>
{
  float = Cast <to = 1> (crops)
  planar = Transpose <perm = [0,3,1,2]> (float)
  centred = Sub (planar, mean)
  normalised = Mul (centred, inverse_std)
  stem = Conv <pads = [1,1,1,1], strides = [2,2]> (normalised, stem_weight, stem_bias)
  relu6 = Clip (stem, zero, six)
  deep = Conv <pads = [1,1,1,1], strides = [2,2]> (relu6, deep_weight)
  relu = Relu (deep)
  up = Resize <mode = "linear"> (relu, , twice)
  sum = Add (relu6, up)
  logits = Conv (sum, head_weight)
  pooled = ReduceMean <keepdims = 1> (sum, pixels)
  flat = Flatten (pooled)
  iou = Gemm (flat, iou_weight)
  iou_scores = Squeeze (iou, channel)
  softmax = Softmax <axis = 1> (logits)
  sure = ReduceMax <keepdims = 0> (softmax, channel)
  clipped = Clip (sure, zero, six)
  pixel_scores = ReduceMean <keepdims = 0> (clipped, map)
  quality = Mul (iou_scores, box_scores)
}
"""
_WEIGHTS = {
    "stem_weight": (8, 3, 3, 3),
    "stem_bias": (8,),
    "deep_weight": (8, 8, 3, 3),
    "head_weight": (3, 8, 1, 1),
    "iou_weight": (8, 1),
}


@pytest.fixture
def small():
    model = onnx.parser.parse_model(_SMALL)
    for node in model.graph.node:
        node.name = node.output[0]  # as the exporter names them: ONNX Runtime refuses two nodes of one name
    random = np.random.default_rng(0)
    for name, shape in _WEIGHTS.items():
        values = random.normal(0, np.prod(shape[1:], initial=1.0) ** -0.5, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def _set(model, name, values):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))


def _types(model):
    """tensor -> ONNX type, for every tensor of the graph."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return types | {t.name: t.data_type for t in graph.initializer}


def _reference(model, feed=None):
    """The outputs by ONNX's reference evaluator, which computes FP16 in FP16."""
    from onnx.reference import ReferenceEvaluator

    model = deepcopy(model)
    model.opset_import[0].version = 19  # it knows Q/DQ from 19 on; the other operators here are the same in both
    return ReferenceEvaluator(model).run(None, FEED if feed is None else feed)


def _insert_qdq(model):
    """A copy with Q/DQ by hand in front of two convolutions, int8 weights with DQ alone on the second."""
    model = deepcopy(model)
    graph = model.graph
    weight = next(t for t in graph.initializer if t.name == "deep_weight")
    values = np.clip(np.rint(onnx.numpy_helper.to_array(weight) / 0.01), -127, 127).astype(np.int8)
    graph.initializer.remove(weight)
    constants = {
        "s": np.float32(0.05),
        "z": np.int8(0),
        "w8": values,
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    made = [onnx.helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["deep_weight"], axis=0)]
    for name, reader in (("normalised", "stem"), ("relu6", "deep")):
        made.append(onnx.helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}.q"]))
        made.append(onnx.helper.make_node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.dq"]))
        conv = next(node for node in graph.node if node.output[0] == reader)
        conv.input[0] = f"{name}.dq"
    nodes = [*graph.node]
    at = {node.output[0]: index for index, node in enumerate(nodes)}
    weights, *pairs = made
    first, second = at["stem"], at["deep"]
    ordered = [*nodes[:first], *pairs[:2], *nodes[first:second], weights, *pairs[2:], *nodes[second:]]
    ordered = [deepcopy(node) for node in ordered]
    del graph.node[:]
    graph.node.extend(ordered)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_the_network_is_fp16_and_what_surrounds_it_fp32(small):
    types = _types(to_fp16(small))
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for name in ("stem", "relu6", "deep", "relu", "up", "sum", "logits.fp16", "flat", "iou"):
        assert types[name] == half, name
    for name in (
        "float",
        "planar",
        "centred",
        "normalised",
        "pooled",
        "softmax",
        "sure",
        "clipped",
        "logits",
        "iou_scores",
        "pixel_scores",
        "quality",
    ):
        assert types[name] == single, name
    for name in _WEIGHTS:
        assert types[f"{name}.fp16"] == half and name not in types
    assert types["six.fp16"] == half and types["six"] == single  # both Clips read it, one in each type
    assert types["twice"] == single  # Resize's scales are float32 by definition


def test_reductions_softmax_and_powers_take_no_fp16(small):
    typed = to_fp16(small)
    types = _types(typed)
    tail = [n for n in typed.graph.node if n.op_type.startswith("Reduce") or n.op_type in ("Softmax", "ArgMax", "Pow")]
    assert len(tail) == 4
    assert all(types[name] != onnx.TensorProto.FLOAT16 for node in tail for name in node.input)


def test_inputs_and_outputs_keep_names_types_and_shapes(small):
    typed = to_fp16(small)
    assert list(typed.graph.input) == list(small.graph.input)
    assert list(typed.graph.output) == list(small.graph.output)


def test_few_casts_and_each_needed(small):
    """Into the network, logits and IoU out of it, and around the pooling; the first is the FP32 graph's own."""
    typed = to_fp16(small)
    casts = [n.output[0] for n in typed.graph.node if n.op_type == "Cast"]
    assert casts == ["float", "normalised.fp16", "logits", "sum.fp32", "pooled.fp16", "iou.fp32"]


def test_node_names_stay_unique(small):
    names = [node.name for node in to_fp16(small).graph.node]
    assert len(set(names)) == len(names)


def test_deterministic_and_the_given_model_is_left_alone(small):
    before = small.SerializeToString(deterministic=True)
    one, two = (to_fp16(small).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert small.SerializeToString(deterministic=True) == before


def test_the_reference_evaluator_agrees_with_fp32(small):
    for name, got, expected in zip(("logits", "pixel", "quality"), _reference(to_fp16(small)), _reference(small)):
        assert got.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=0.02, rtol=0.01, err_msg=name)
        assert not np.array_equal(got, expected)  # it was really computed in FP16


def test_a_pooling_that_would_overflow_fp16_does_not(small):
    """4,000 per value and 48 values: their sum, 192,000, is beyond FP16; the mean is not."""
    _set(small, "six", 4000.0)
    _set(small, "stem_bias", np.full(8, 4000.0))
    _set(small, "deep_weight", np.zeros((8, 8, 3, 3)))
    typed = to_fp16(small)
    assert _types(typed)["pooled"] == onnx.TensorProto.FLOAT
    for got, expected in zip(_reference(typed), _reference(small)):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=0.02, atol=0.1)
    with np.errstate(over="ignore"):
        assert np.isinf(np.full(48, 4000, np.float16).sum(dtype=np.float16))  # what it is protected from


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stem_weight", 7e4, r"'stem_weight' overflows FP16 \(expected magnitudes up to 65504, got 70000\)"),
        ("stem_bias", -1e6, "'stem_bias' overflows FP16"),
        ("head_weight", 1e-9, "'head_weight' is all zero in FP16"),
    ],
)
def test_constants_that_fp16_cannot_hold_are_named(small, name, value, message):
    _set(small, name, np.full(_WEIGHTS[name], value))
    with pytest.raises(QanetError, match=message):
        to_fp16(small)


def test_zeros_and_a_few_small_weights_are_fine(small):
    _set(small, "stem_bias", [0, 0, 0, 0, 0, 0, 0, 1e-9])  # not all of it vanishes... but what does is zero
    with pytest.raises(QanetError, match="all zero"):
        to_fp16(small)
    _set(small, "stem_bias", [0, 0, 0, 0, 0, 0, 0.5, 1e-9])
    to_fp16(small)
    _set(small, "stem_bias", np.zeros(8))
    to_fp16(small)


def test_a_graph_without_weights_is_refused():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    )
    with pytest.raises(QanetError, match="no layer with weights"):
        to_fp16(model)


def test_a_float_input_is_cast():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N,2,4,4] x) => (float[N,1,4,4] y) '
        "<float[1,2,1,1] w = {1, 0.5}> { y = Conv(x, w) }"
    )
    typed = to_fp16(model)
    assert [n.op_type for n in typed.graph.node] == ["Cast", "Conv", "Cast"]
    x = np.ones((1, 2, 4, 4), np.float32)
    np.testing.assert_array_equal(_reference(typed, {"x": x})[0], np.full((1, 1, 4, 4), 1.5, np.float32))


def test_a_qdq_graph_keeps_its_int8_layers_and_gets_fp16_elsewhere(small):
    typed = to_fp16(_insert_qdq(small))
    types = _types(typed)
    assert typed.opset_import[0].version == 18
    assert types["w8"] == types["relu6.q"] == types["normalised.q"] == onnx.TensorProto.INT8
    # Scales, and what reads them up to the activation, stay FP32: ONNX Runtime multiplies scales in their own type.
    for name in ("s", "ws", "deep_weight", "relu6.dq", "normalised.dq", "stem", "relu6", "deep", "relu"):
        assert types[name] == onnx.TensorProto.FLOAT, name
    for name in ("relu.fp16", "up", "relu6.fp16", "sum", "logits.fp16", "iou"):
        assert types[name] == onnx.TensorProto.FLOAT16, name
    for got, expected in zip(_reference(typed), _reference(small)):
        np.testing.assert_allclose(got, expected, atol=0.06, rtol=0.03)


def test_no_cast_between_a_quantised_convolution_and_its_activation(small):
    graph = to_fp16(_insert_qdq(small)).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    network = [node for node in graph.node if node.op_type in ("Relu", "Clip") and node.output[0] != "clipped"]
    assert [makers[node.input[0]] for node in network] == ["Conv", "Conv"]


@pytest.mark.parametrize("quantised", [False, True])
def test_every_runtime_here_takes_it_and_agrees(small, quantised):
    data = to_fp16(_insert_qdq(small) if quantised else small).SerializeToString(deterministic=True)
    expected = _reference(small)
    ran = 0
    for run in (_onnxruntime, _openvino):
        outputs = run(data)
        if outputs is not None:
            ran += 1
            for got, want in zip(outputs, expected):
                np.testing.assert_allclose(got, want, atol=0.06, rtol=0.03, err_msg=run.__name__)
    if not ran:
        pytest.skip("neither onnxruntime nor openvino is installed")


def _onnxruntime(data):
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, FEED)


def _openvino(data):
    if importlib.util.find_spec("openvino") is None:
        return None
    core = openvino_core()
    result = core.compile_model(core.read_model(data), "CPU")([FEED["crops"], FEED["box_scores"]])
    return [result[name] for name in ("logits", "pixel_scores", "quality")]


@pytest.mark.parametrize("quantised", [False, True])
def test_tensorrt_rtx_builds_it_and_keeps_the_types(small, quantised):
    data = to_fp16(_insert_qdq(small) if quantised else small).SerializeToString(deterministic=True)
    parsed = RtxNetwork(data)
    trt = parsed.library
    layers = [parsed.network.get_layer(i) for i in range(parsed.network.num_layers)]
    convolutions = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    int8 = trt.float32 if quantised else trt.float16
    assert [layer.get_output(0).dtype for layer in convolutions] == [int8, int8, trt.float16]
    softmax = [layer for layer in layers if layer.type == trt.LayerType.SOFTMAX]
    assert [layer.get_input(0).dtype for layer in softmax] == [trt.float32]
    assert parsed.build() is not None


def _casts(model):
    return [node.output[0] for node in model.graph.node if node.op_type == "Cast"]


def test_a_node_beyond_the_bound_and_its_readers_stay_fp32(small):
    """Half of FP16's end: what calibration saw to be larger is computed, kept and read in FP32."""
    largest = {"relu6": 6.0, "deep": FP16_BOUND * 1.01, "sum": FP16_BOUND * 0.99, "not.there": 1e9}
    assert beyond_fp16(small, largest) == {"deep", "relu"}
    typed = to_fp16(small, largest)
    types = _types(typed)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert types["deep"] == types["relu"] == types["deep_weight"] == single
    assert types["stem"] == types["up"] == types["sum"] == half
    assert set(_casts(typed)) - set(_casts(to_fp16(small))) == {"relu6.fp32", "relu.fp16"}
    assert to_fp16(small, {}) == to_fp16(small) == to_fp16(small, {"deep": FP16_BOUND})


def test_an_overflow_that_the_bound_prevents(small):
    """60,000 and 60,000 add up to infinity in FP16; what calibration saw of it keeps that sum in FP32."""
    deep = np.zeros((8, 8, 3, 3))
    deep[:, :, 1, 1] = 1 / 8
    _set(small, "deep_weight", deep)
    _set(small, "stem_weight", np.full((8, 3, 3, 3), 3e3))
    _set(small, "six", 6e4)
    _set(small, "head_weight", np.full((3, 8, 1, 1), 1e-3))
    bright = {"crops": np.full((1, 16, 12, 3), 255, np.uint8), "box_scores": np.ones(1, np.float32)}
    wanted = _reference(small, bright)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        without = _reference(to_fp16(small), bright)[0]
    assert not np.isfinite(without).all()
    largest = {"stem": 8.1e4, "sum": 1.2e5, **dict.fromkeys(("relu6", "deep", "relu", "up"), 6e4)}
    np.testing.assert_allclose(_reference(to_fp16(small, largest), bright)[0], wanted, rtol=0.02)


def test_bf16_takes_the_same_nodes_and_needs_no_bound(small):
    _set(small, "stem_weight", np.full((8, 3, 3, 3), 7e4))  # beyond FP16
    typed = to_bf16(small)
    types = _types(typed)
    assert typed.opset_import[0].version == BF16_OPSET
    assert {types[name] for name in ("stem", "deep", "sum", "iou", "stem_weight.bf16")} == {onnx.TensorProto.BFLOAT16}
    assert {types[name] for name in ("softmax", "pooled", "logits", "quality")} == {onnx.TensorProto.FLOAT}
    assert small.opset_import[0].version == 18
    assert to_bf16(small).SerializeToString(deterministic=True) == typed.SerializeToString(deterministic=True)


def test_openvino_takes_bf16_and_agrees(small):
    outputs = _openvino(to_bf16(small).SerializeToString())
    if outputs is None:
        pytest.skip("openvino is not installed")
    for got, want in zip(outputs, _reference(small)):
        np.testing.assert_allclose(got, want, atol=0.3, rtol=0.05)  # seven bits of mantissa


def test_tensorrt_rtx_builds_bf16(small):
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    data = to_bf16(small).SerializeToString()
    assert parser.parse(data), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    outputs = [layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    assert outputs == [trt.bfloat16] * 3
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("crops", *[(1, 16, 12, 3)] * 3)
    profile.set_shape("box_scores", (1,), (1,), (1,))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
