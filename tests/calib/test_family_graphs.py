"""Q/DQ on every family's graph: the rules of placement, and that each runtime here takes what comes out."""

import functools

import numpy as np
import pytest
from exported_networks import SIZE, exported

from qanet.calib.placement import load_model
from qanet.calib.quantize import NARROW_TYPES, insert_qdq, int8_of_this_cpu, quantise
from qanet.calib.scales import find_scales
from qanet.runtime.backends.openvino import openvino_core

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
FAMILIES = ("lite0", "tiny-basic", "tiny-c", "tiny-hrnet")  # tiny-basic is of ResNet-18's blocks, -c of ResNet-50c's
CROPS = np.random.default_rng(3).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
FEED = {"crops": CROPS, "box_scores": np.array([1.0, 0.5], np.float32)}


@functools.cache
def quantised(family):
    """The FP32 graph of a family, its INT8 graph for this CPU, and the scales between them."""
    fp32 = exported(family).graph
    scales, _ = find_scales(fp32, [CROPS], "minmax", threads=1, use_cache=False)
    return fp32, quantise(fp32, scales, int8_of_this_cpu()), scales


def _dequantised(graph):
    return {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_convolution_that_may_be_is_int8_with_a_float_bias(family):
    graph = onnx.load_model_from_string(quantised(family)[1]).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    dequantised = _dequantised(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    int8 = [node for node in convolutions if node.input[0] in dequantised]
    assert all(node.input[1] in dequantised for node in int8)
    assert all(tensors[node.input[2]].data_type == onnx.TensorProto.FLOAT for node in convolutions)
    kept = {node.name for node in convolutions} - {node.name for node in int8}
    assert kept - {"backbone.stem"} == {"logits", "iou_head.reduce", "iou_head.fc1", "iou_head.fc2"}
    groups = {a.i for node in int8 for a in node.attribute if a.name == "group"}
    assert (max(groups) > 1) == (family == "lite0")  # depthwise too


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_stands_between_convolution_or_sum_and_its_activation(family):
    graph = onnx.load_model_from_string(quantised(family)[1]).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    kinds = {makers.get(node.input[0]) for node in graph.node if node.op_type in ("Relu", "Clip")}
    assert "Conv" in kinds and "DequantizeLinear" not in kinds
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_inputs_of_residual_sums_are_quantised_and_copies_keep_their_scale(family):
    graph = onnx.load_model_from_string(quantised(family)[1]).graph
    dequantised = _dequantised(graph)
    scales = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    sums = [n for n in graph.node if n.op_type == "Add" and n.name.startswith("backbone.")]
    assert sums
    for node in sums:
        assert dequantised.issuperset(node.input), node.name
    passed = 0
    for node in graph.node:
        after = f"{node.output[0]}.dq"
        if node.op_type in ("Resize", "MaxPool", "AveragePool") and after in dequantised:
            assert tensors[scales[node.input[0]]] == tensors[scales[after]], node.name
            passed += 1
    assert passed


@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_and_openvino_agree_with_fp32(family):
    fp32, int8, _ = quantised(family)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    reference, got = (
        ort.InferenceSession(graph, options, ["CPUExecutionProvider"]).run(["logits"], FEED)[0]
        for graph in (fp32, int8)
    )
    scale = np.sqrt((reference**2).mean())
    error = np.sqrt(((got - reference) ** 2).mean()) / scale
    assert 1e-4 < error < 0.2, error
    pytest.importorskip("openvino")
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(openvino_core().read_model(int8), "CPU", config)
    there = compiled(FEED)["logits"]
    assert np.sqrt(((there - got) ** 2).mean()) / scale < 0.1
    kinds = [
        str(op.get_rt_info()["runtimePrecision"].astype(str))
        for op in compiled.get_runtime_model().get_ordered_ops()
        if op.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    narrow = sum(kind in ("u8", "i8") for kind in kinds)
    assert len(kinds) - narrow <= 5, kinds  # the stem, the classifier and the IoU head


@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_rtx_builds_it(family):
    trt = pytest.importorskip("tensorrt_rtx")
    assert _rtx_plan(trt, quantised(family)[1], trt.ComputeCapability.SM86) is not None


@pytest.mark.parametrize(("name", "builds"), [("SM86", False), ("SM89", True), ("SM120", True)])
def test_fp8_is_for_sm_89_and_newer(name, builds):
    trt = pytest.importorskip("tensorrt_rtx")
    fp32, _, scales = quantised("tiny-basic")
    model = insert_qdq(load_model(fp32), scales, "fp8")
    data = model.SerializeToString(deterministic=True)
    assert (_rtx_plan(trt, data, getattr(trt.ComputeCapability, name)) is not None) == builds


@pytest.mark.parametrize("family", ["lite0", "tiny-c"])
def test_fp8_stores_e4m3_and_agrees_with_fp32(family):
    fp32, _, scales = quantised(family)
    model = insert_qdq(load_model(fp32), scales, "fp8")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [name for name in kinds if name.endswith(".fp8")]
    assert weights and all(kinds[name] == onnx.TensorProto.FLOAT8E4M3FN for name in (*weights, "fp8.zero_point"))
    assert model.opset_import[0].version == NARROW_TYPES["fp8"].opset == 19
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # its fusions know no FP8
    reference, got = (
        ort.InferenceSession(data, options, ["CPUExecutionProvider"]).run(["logits"], FEED)[0]
        for data in (fp32, model.SerializeToString())
    )
    error = np.sqrt(((got - reference) ** 2).mean() / (reference**2).mean())
    assert 1e-3 < error < 0.35, error


def _rtx_plan(trt, data, capability):
    """The plan of a graph for one GPU generation; None where the builder refuses."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(data), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("crops", (1, *SIZE, 3), (2, *SIZE, 3), (2, *SIZE, 3))
    profile.set_shape("box_scores", (1,), (2,), (2,))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)
