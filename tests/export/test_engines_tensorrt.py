"""Engines: the census against graphs whose precision is known, on TensorRT-RTX without a GPU and on OpenVINO."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.export.engines import openvino, source_graph, tensorrt, tensorrt_library, this_gpu
from qanet.export.engines.builder_log import layers_from_inspector, layers_from_log, precision_of
from qanet.export.engines.census import Census, EngineLayer, check_delivered, take_census
from qanet.export.engines.multiply_adds import ComputeNode, compute_nodes
from qanet.export.engines.rtx_plan import RtxPlan, read_rtx_plan

onnx = pytest.importorskip("onnx", reason="graphs are made with onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

needs_rtx = pytest.mark.skipif(
    not importlib.util.find_spec("tensorrt_rtx"), reason="tensorrt_rtx is not installed: pip install 'qanet-edge[rtx]'"
)
HEIGHT, WIDTH, CLASSES, CHANNELS = 32, 24, 5, 16
CONVOLUTIONS = ("stem", "body", "classify")


# ---- Graphs: three convolutions and a Gemm, in the precision that is written into them.


def finish(nodes: list, weights: dict) -> onnx.ModelProto:
    """A checked model with the contract's inputs and three of its outputs."""
    inputs = [
        helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3]),
        helper.make_tensor_value_info("box_scores", TensorProto.FLOAT, ["N"]),
    ]
    shapes = {"logits": ["N", CLASSES, HEIGHT // 2, WIDTH // 2], "iou_scores": ["N"], "quality": ["N"]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "parsing", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def make_graph(precision: str = "fp32", *, first: str = "Cast") -> onnx.ModelProto:
    """crops -> conv, relu, conv, add, conv -> logits; their mean -> Gemm -> iou_scores; box_scores x iou -> quality."""
    kind = np.float16 if precision == "fp16" else np.float32
    rng = np.random.default_rng(0)
    nodes, weights = [], {}

    def convolve(name: str, data: str, channels: int, filters: int, out: str, size: int = 3, stride: int = 1) -> None:
        values = rng.normal(0, 0.1, (filters, channels, size, size)).astype(kind)
        weights[f"{name}.bias"] = np.zeros(filters, kind)
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        if precision == "int8":
            scale = np.abs(values).max((1, 2, 3)) / 127
            weights[f"{name}.weight"] = np.rint(values / scale[:, None, None, None]).astype(np.int8)
            weights[f"{name}.scale"] = scale.astype(kind)
            weights[f"{name}.zeros"] = np.zeros(filters, np.int8)
            weights["activation.scale"], weights["activation.zero"] = np.array(0.02, kind), np.array(0, np.int8)
            activation, per_channel = (["activation.scale", "activation.zero"], [f"{name}.scale", f"{name}.zeros"])
            nodes.extend((
                helper.make_node("QuantizeLinear", [data, *activation], [f"{name}.q"], f"{name}.quantize"),
                helper.make_node("DequantizeLinear", [f"{name}.q", *activation], [f"{name}.dq"], f"{name}.dequantize"),
                helper.make_node(
                    "DequantizeLinear", [f"{name}.weight", *per_channel], [f"{name}.w"], f"{name}.weights", axis=0
                ),
            ))  # fmt: skip
            inputs = [f"{name}.dq", f"{name}.w", f"{name}.bias"]
        else:
            weights[f"{name}.weight"] = values
        pads = [size // 2] * 4
        nodes.append(
            helper.make_node("Conv", inputs, [out], name, kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2)
        )

    to = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    chain = (("Cast", {"to": to}), ("Transpose", {"perm": [0, 3, 1, 2]}))
    data = "crops"
    for operator, attributes in chain if first == "Cast" else chain[::-1]:
        nodes.append(helper.make_node(operator, [data], [f"{data}.{operator}"], operator.lower(), **attributes))
        data = f"{data}.{operator}"
    convolve("stem", data, 3, CHANNELS, "a", stride=2)
    nodes.append(helper.make_node("Relu", ["a"], ["b"], "relu"))
    convolve("body", "b", CHANNELS, CHANNELS, "c", stride=1)
    nodes.append(helper.make_node("Add", ["b", "c"], ["d"], "sum"))
    convolve("classify", "d", CHANNELS, CLASSES, "e", size=1)
    weights |= {"gemm.weight": np.ones((CHANNELS, 1), kind), "axes": np.array([2, 3]), "row": np.array([-1])}
    nodes += [
        helper.make_node("Cast", ["e"], ["logits"], "widen", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["d", "axes"], ["f"], "mean", keepdims=0),
        helper.make_node("Gemm", ["f", "gemm.weight"], ["g"], "iou"),
        helper.make_node("Cast", ["g"], ["h"], "widen_iou", to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["h", "row"], ["iou_scores"], "flat"),
        helper.make_node("Mul", ["iou_scores", "box_scores"], ["quality"], "fuse"),
    ]
    return finish(nodes, weights)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The path of the graph in each precision."""
    folder = tmp_path_factory.mktemp("graphs")
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    for precision, path in paths.items():
        onnx.save(make_graph(precision), path)
    return paths


# ---- The source graph and its arithmetic.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_multiply_adds_are_those_of_the_float_graph(precision):
    half = (HEIGHT // 2) * (WIDTH // 2)
    assert compute_nodes(make_graph(precision)) == {
        "stem": ComputeNode("Conv", half * CHANNELS * 3 * 9),
        "body": ComputeNode("Conv", half * CHANNELS * CHANNELS * 9),
        "classify": ComputeNode("Conv", half * CLASSES * CHANNELS),
        "iou": ComputeNode("Gemm", CHANNELS),
    }


def test_multiply_adds_of_groups_transposes_and_products():
    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["a"], "depthwise", group=8, pads=[1] * 4),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], "up", strides=[2, 2]),
        helper.make_node("MatMul", ["y", "b"], ["c"], "product"),
    ]
    weights = {"depthwise": (8, 1, 3, 3), "up": (8, 4, 2, 2)}
    tensors = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    inputs = [info("x", ["N", 8, 6, 6]), info("y", ["N", 4, 10, 12])]
    graph = helper.make_graph(nodes, "g", inputs, [info("c", ["N", 4, 10, 12])], tensors)
    found = compute_nodes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert {name: node.multiply_adds for name, node in found.items()} == {
        "depthwise": 8 * 36 * 9,
        "up": 8 * 36 * 4 * 4,
        "product": 4 * 10 * 12 * 12,
    }


def test_a_cut_graph_loses_what_only_the_dropped_outputs_needed(graphs):
    model = source_graph.load_graph(graphs["fp32"], ("iou_scores", "logits"))
    assert [value.name for value in model.graph.output] == ["iou_scores", "logits"]
    assert [value.name for value in model.graph.input] == ["crops"]
    assert "fuse" not in {node.name for node in model.graph.node}
    assert "box_scores" in source_graph.input_shapes(source_graph.load_graph(graphs["fp32"], ["quality"]))


def test_every_node_has_a_name_of_its_own_and_convolutions_keep_theirs(tmp_path):
    model = make_graph()
    for node in model.graph.node:
        node.name = {"Conv": node.name, "Relu": "", "Cast": "stem"}.get(node.op_type, "same")
    onnx.save(model, tmp_path / "model.onnx")
    named = source_graph.load_graph(tmp_path / "model.onnx")
    names = [node.name for node in named.graph.node]
    assert len(set(names)) == len(names) and "" not in names
    assert [node.name for node in named.graph.node if node.op_type == "Conv"] == list(CONVOLUTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.FLOAT), "crops float of"),
        (lambda m: m.graph.input[0].__setattr__("name", "images"), "inputs of a parsing graph"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_param", "H"), "only the batch"),
    ],
)
def test_graphs_outside_the_contract_are_refused(tmp_path, change, message):
    model = make_graph()
    change(model)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(tmp_path / "model.onnx")


def test_files_and_outputs_that_are_not_there(tmp_path, graphs):
    with pytest.raises(QanetError, match="no such ONNX file"):
        source_graph.load_graph(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("not a protobuf")
    with pytest.raises(QanetError, match=r"text\.onnx"):
        source_graph.load_graph(tmp_path / "text.onnx")
    with pytest.raises(QanetError, match="some of logits, iou_scores, quality, got masks"):
        source_graph.load_graph(graphs["fp32"], ["logits", "masks"])


# ---- The census.


def some_census() -> Census:
    nodes = {"a": ComputeNode("Conv", 60), "b": ComputeNode("Conv", 30), "c": ComputeNode("Gemm", 10)}
    layers = [
        EngineLayer("prepare a", ("a",), "fp32", quantizes=True),
        EngineLayer("a + relu", ("a", "relu"), "int8", computes=True),
        EngineLayer("b", ("b",), "fp16", computes=True),
        EngineLayer("c and others", ("c",), "fp32", product="fp16"),
        EngineLayer("Reformat 1", (), "fp16", moves=True),
    ]
    return take_census(layers, nodes, "a note")


def test_census_counts_layers_and_weighs_them_by_their_arithmetic():
    census = some_census()
    assert [(layer.name, layer.precision) for layer in census.compute] == [("a", "int8"), ("b", "fp16"), ("c", "fp16")]
    assert census.multiply_add_shares == {"int8": 0.6, "fp16": 0.4, "bf16": 0.0, "fp32": 0.0, "other": 0.0}
    assert census.layer_shares["fp16"] == pytest.approx(0.4)
    assert (census.reformats, census.requantizations) == (1, 1)


def test_census_survives_json_and_refuses_what_is_none():
    census = some_census()
    assert Census.from_json(json.loads(json.dumps(census.to_json()))) == census
    for broken in ({}, {**census.to_json(), "compute": [{"name": "a"}]}, {**census.to_json(), "layers": None}):
        with pytest.raises(QanetError, match="not a precision census"):
            Census.from_json(broken)


@pytest.mark.parametrize(
    ("precision", "keep", "named"),
    [
        ("int8", (), "1 of 2 compute layers: b .fp16."),
        ("int8", ("b",), None),
        ("fp16", (), "1 of 3 compute layers: a .int8."),
        ("fp32", (), "3 of 3 compute layers: a .int8., b .fp16., c .fp16."),
        ("fp64", (), "unknown precision"),
    ],
)
def test_asked_but_not_delivered_names_the_layers(precision, keep, named):
    if named is None:
        return check_delivered(some_census(), precision, keep=keep)
    with pytest.raises(QanetError, match=named):
        check_delivered(some_census(), precision, keep=keep)


def test_a_layer_that_no_engine_layer_names_is_not_taken_on_trust():
    census = take_census([EngineLayer("x", ("other",), "int8", computes=True)], {"a": ComputeNode("Conv", 1)})
    with pytest.raises(QanetError, match="a .other."):
        check_delivered(census, "int8")
    with pytest.raises(QanetError, match="no layer that could be in int8"):
        check_delivered(take_census([], {}), "int8")


# ---- What TensorRT prints and what its inspector says.

TENSOR = "{{ Name: t, Dimensions: [{}], Strides: [1], StrideOrder: [0], Datatype: {}, Format: (NHWC) Channel major }}"


def line(name, kind, inputs, constants, outputs, nodes):
    sides = [", ".join(TENSOR.format(*tensor) for tensor in side) for side in (inputs, constants, outputs)]
    return (
        "Name: {}, LayerType: {}, Inputs: [ {}], Constants: [ {}], Outputs: [ {}], TacticName: t, StreamId: 0, "
        "Metadata: {}"
    ).format(name, kind, *sides, "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes))


def test_layers_are_read_from_the_builder_log():
    data = ("-1,8,4,4", "Int8")
    weights, scales = ("8,8,3,3", "Int8"), ("1,8,1,1", "Float")
    convolution = line("conv_myl0_1", "correlation", [data], [weights, scales], [("-1,8,4,4", "Float")], ["conv", "r"])
    quantise = line("__myl_MulRounCast_myl0_2", "kgen", [("-1,8,4,4", "Float")], [scales], [data], ["q"])
    move = line("__myl_TranConc_myl0_3", "kgen", [("-1,8", "Half")], [], [("-1,8", "Half")], [])
    mixed = line("gemm_myl0_4", "gemm", [("-1,8", "Float")], [("8,8", "Half")], [("-1,8", "Float")], ["gemm"])
    wait = line("w", "wait", [], [], [], [])
    layers = layers_from_log(["Layers:\n" + "\n".join((convolution, quantise, move, mixed, wait))])
    assert [(x.nodes, x.precision, x.computes, x.moves, x.quantizes) for x in layers] == [
        (("conv", "r"), "int8", True, False, False),
        (("q",), "fp32", False, False, True),
        ((), "fp16", False, True, False),
        (("gemm",), "fp32", True, False, False),
    ]


def test_layers_are_read_from_the_engine_inspector():
    def layer(name, kind, inputs, outputs, **more):
        sides = ([{"Name": "t", "Dimensions": [1], "Format/Datatype": text} for text in s] for s in (inputs, outputs))
        return {"Name": name, "LayerType": kind, **dict(zip(("Inputs", "Outputs"), sides)), **more}

    vectors = "Thirty-two wide channel vectorized row major Int8 format"
    weights = {"Type": "Int8", "Count": 64}
    document = {
        "Layers": [
            layer("Reformatting CopyNode", "Reformat", ["Row major linear FP32"], [vectors]),
            layer("a + relu", "CaskConvolution", [vectors, vectors], [vectors], Weights=weights, Metadata=""),
            layer("m", "CaskGemmMatrixMultiply", ["Half"], ["Half"], Metadata="[ONNX Layer: x]\x1e[ONNX Layer: y]"),
            layer("n", "NoOp", ["Half"], ["Half"]),
        ]
    }
    text = json.dumps(document).replace("\\u001e", "\x1e")  # the inspector leaves its separators unescaped
    layers = layers_from_inspector(text)
    assert [(x.nodes, x.precision, x.computes, x.moves) for x in layers] == [
        (("Reformatting CopyNode",), "fp32", False, True),
        (("a", "relu"), "int8", True, False),
        (("x", "y"), "fp16", True, False),
    ]
    assert layers_from_inspector('{"Layers": ["names", "only"]}') == []


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("UInt8", "other"),
        ("Int8", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Int64", "other"),
    ],
)
def test_words_for_types(text, precision):
    assert precision_of(text) == precision


# ---- TensorRT-RTX, ahead of time.


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rtx_builds_for_two_generations_and_delivers(graphs, precision):
    lines = []
    engine = tensorrt.build(graphs[precision], targets=("sm_86", "sm_120"), report=lines.append)
    plan = read_rtx_plan(engine.data)
    assert (plan.targets, plan.version) == (("sm_86", "sm_120"), engine.version)
    assert (engine.runtime, engine.targets, engine.inputs) == ("tensorrt-rtx", plan.targets, ("crops", "box_scores"))
    assert engine.outputs == ("logits", "iou_scores", "quality")
    assert len(lines) == 2 and "sm_86, sm_120" in lines[0]
    assert [layer.name for layer in engine.census.compute] == [*CONVOLUTIONS, "iou"]
    for asked in ("fp32", "fp16", "int8"):
        if asked == precision:
            check_delivered(engine.census, asked)
        else:
            with pytest.raises(QanetError, match="stem"):
                check_delivered(engine.census, asked)
    convolutions = sum(layer.multiply_adds for layer in engine.census.compute if layer.op == "Conv")
    total = sum(layer.multiply_adds for layer in engine.census.compute)
    assert engine.census.multiply_add_shares[precision] >= convolutions / total


@needs_rtx
def test_one_target_without_int8_takes_it_from_all_and_the_census_shows_it(graphs):
    options = {"outputs": ["logits"]}
    check_delivered(tensorrt.build(graphs["int8"], targets=["sm_86"], **options).census, "int8")
    engine = tensorrt.build(graphs["int8"], targets=["sm_75", "sm_86"], **options)
    with pytest.raises(QanetError, match="3 of 3 compute layers: stem .fp32., body .fp32., classify .fp32."):
        check_delivered(engine.census, "int8")


@needs_rtx
def test_rtx_keeps_the_outputs_of_a_kernel_tail_in_static_buckets(graphs):
    engine = tensorrt.build(
        graphs["fp16"], targets=["sm_89"], outputs=("logits", "iou_scores"), static_buckets=True, max_batch=4
    )
    assert (engine.inputs, engine.outputs) == (("crops",), ("logits", "iou_scores"))
    check_delivered(engine.census, "fp16")
    dynamic = tensorrt.build(graphs["fp16"], targets=["sm_89"], outputs=("logits", "iou_scores"))
    assert sum(engine.census.layers.values()) > 2 * sum(dynamic.census.layers.values())  # profiles for 1, 2 and 4


@needs_rtx
def test_rtx_knows_every_generation_the_header_names(tmp_path, graphs):
    names = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
    for name in names:
        engine = tensorrt.build(graphs["fp16"], targets=[name], outputs=["logits"])
        assert read_rtx_plan(engine.data).targets == (name,)
    (tmp_path / "engine.plan").write_bytes(engine.data)
    assert read_rtx_plan(tmp_path / "engine.plan") == RtxPlan(len(engine.data), 2, engine.version, (name,))


@needs_rtx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("sm_86", "sm_87")}, "cannot build for sm_87 .expected some of sm_75"),
        ({"targets": ()}, "no target"),
        ({"max_batch": 0}, "max_batch"),
        ({"optimization_level": 6}, "0 to 5"),
        ({"runtime": "tensorflow"}, "one of tensorrt, tensorrt-rtx"),
    ],
)
def test_options_that_cannot_be_honoured(graphs, options, message):
    with pytest.raises(QanetError, match=message):
        tensorrt.build(graphs["fp32"], **options)


@needs_rtx
def test_a_graph_that_rtx_refuses_names_its_first_failing_node(tmp_path):
    onnx.save(make_graph(first="Transpose"), tmp_path / "model.onnx")  # bytes may be cast and nothing else
    with pytest.raises(QanetError, match=r"model\.onnx cannot be parsed at node 0 'transpose' \(Transpose\).*UInt8"):
        tensorrt.build(tmp_path / "model.onnx")


@needs_rtx
def test_a_build_that_fails_says_what_was_logged(graphs):
    with pytest.raises(QanetError, match="could not build fp32.onnx for sm_75: .*FP32 GEMM is not supported"):
        tensorrt.build(graphs["fp32"], targets=["sm_75"])


@needs_rtx
def test_a_timing_cache_is_not_promised_where_there_is_none(graphs, tmp_path):
    engine = tensorrt.build(graphs["fp16"], timing_cache=tmp_path / "cache")
    assert any("no timing cache" in message for message in engine.messages)
    assert not (tmp_path / "cache").exists()


# ---- TensorRT itself needs a GPU to build: here its branches run, and its names are looked up.


def test_tensorrt_without_a_driver_says_so(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(this_gpu.ctypes, "CDLL", missing)
    with pytest.raises(QanetError, match="no NVIDIA driver on this machine"):
        this_gpu.this_gpu()


def test_tensorrt_missing_says_how_to_install_it(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(QanetError, match="tensorrt is not installed.*qanet-edge.tensorrt"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt")


class OldTensorrt:
    __version__ = "8.6.1"


def test_a_tensorrt_without_strong_typing_is_too_old(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", OldTensorrt)
    with pytest.raises(QanetError, match="too old .expected 10.3 or newer, got 8.6.1"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt")


class RtxAsTensorrt:
    """TensorRT-RTX under TensorRT's name, bound to one GPU generation as TensorRT is bound to its GPU."""

    __version__ = "10.3.0"

    def __getattr__(self, name):
        import tensorrt_rtx

        return getattr(tensorrt_rtx, name)

    class Builder:
        def __init__(self, logger):
            import tensorrt_rtx

            self.real, self.generation = tensorrt_rtx.Builder(logger), tensorrt_rtx.ComputeCapability.SM86

        def create_builder_config(self):
            config = self.real.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.generation, 0)
            return config

        def __getattr__(self, name):
            return getattr(self.real, name)


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_path_of_tensorrt_with_its_timing_cache(graphs, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", RtxAsTensorrt())
    monkeypatch.setattr(tensorrt_library, "this_gpu", lambda: "sm_86")
    with pytest.raises(QanetError, match="builds on the GPU that will run the engine .expected sm_86, got sm_87"):
        tensorrt.build(graphs["fp32"], runtime="tensorrt", targets=["sm_87"])
    for _ in range(2):  # without a cache file, then with one
        engine = tensorrt.build(graphs["fp16"], runtime="tensorrt", timing_cache=tmp_path / "cache", tf32=True)
        assert (engine.runtime, engine.version, engine.targets) == ("tensorrt", "10.3.0", ("sm_86",))
        assert (tmp_path / "cache").exists()
        check_delivered(engine.census, "fp16")  # no driver, no inspector: from the log


TYPES_OF = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "error": "ParserError",
    "config": "IBuilderConfig", "profile": "IOptimizationProfile", "cache": "ITimingCache", "engine": "ICudaEngine",
    "inspector": "EngineInspector",
}  # fmt: skip


@needs_rtx
def test_every_tensorrt_name_in_the_builder_exists():
    import tensorrt_rtx

    missing, seen = [], 0
    source = "".join(Path(module.__file__).read_text() for module in (tensorrt, tensorrt_library))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        chain = ast.unparse(node).split(".")
        owner = tensorrt_rtx if chain[0] == "trt" else getattr(tensorrt_rtx, TYPES_OF.get(chain[0], ""), None)
        if owner is None or not all(part.isidentifier() for part in chain):
            continue
        seen += 1
        for part in chain[1:]:
            owner = getattr(owner, part, None)
        if owner is None:
            missing.append(".".join(chain))
    assert seen > 25 and not missing


# ---- Plans that are none.


def plan_bytes(mask=0x14, size=64, magic=b"vtrt"):
    head = b"vtrt" + bytes(4) + (2).to_bytes(8, "little") + size.to_bytes(8, "little") + bytes([1, 7, 1, 116])
    return head + magic + mask.to_bytes(4, "little") + bytes(28)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a TensorRT-RTX plan"),
        (b"ftrt" + bytes(100), "not a TensorRT-RTX plan"),
        (plan_bytes()[:40], "truncated"),
        (plan_bytes(size=65), "truncated"),
        (plan_bytes(magic=b"????"), "unknown layout"),
        (plan_bytes(mask=0x40), "generations unknown"),
        (plan_bytes(mask=0), "generations unknown"),
    ],
)
def test_a_file_that_is_no_plan(data, message, tmp_path):
    with pytest.raises(QanetError, match=message):
        read_rtx_plan(data)
    (tmp_path / "engine.plan").write_bytes(data)
    with pytest.raises(QanetError, match=message):
        read_rtx_plan(tmp_path / "engine.plan")


def test_a_plan_and_a_file_that_is_not_there(tmp_path):
    assert read_rtx_plan(plan_bytes()) == RtxPlan(64, 2, "1.7.1.116", ("sm_86", "sm_120"))
    with pytest.raises(QanetError, match="no such TensorRT-RTX plan"):
        read_rtx_plan(tmp_path / "engine.plan")


# ---- OpenVINO.


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_reports_what_the_cpu_computes_in(graphs, precision):
    import openvino as ov

    engine = openvino.build(graphs[precision], precision=precision)
    delivered = openvino.deliverable(precision)
    check_delivered(engine.census, delivered)
    if delivered != precision:
        assert any(f"{precision} was asked for" in message for message in engine.messages)
        with pytest.raises(QanetError, match=f"{precision} was asked for.*stem .{delivered}."):
            check_delivered(engine.census, precision)
    loaded = ov.Core().import_model(engine.data, "CPU", {})
    crops = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    results = loaded({"crops": crops, "box_scores": np.ones(2, np.float32)})
    assert results["logits"].shape == (2, CLASSES, HEIGHT // 2, WIDTH // 2)


def test_openvino_keeps_the_outputs_of_a_kernel_tail(graphs):
    engine = openvino.build(graphs["int8"], precision="int8", outputs=("logits", "iou_scores"))
    assert (engine.inputs, engine.outputs) == (("crops",), ("logits", "iou_scores"))
    check_delivered(engine.census, "int8")
    assert engine.options["INFERENCE_PRECISION_HINT"] in ("f32", "bf16", "f16")
    assert engine.targets[0].startswith("cpu-") and engine.version in (engine.requires or engine.version)


def test_openvino_missing_says_how_to_install_it(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(QanetError, match="OpenVINO is not installed.*pip install openvino"):
        openvino.build(graphs["fp32"], precision="fp32")


@pytest.mark.parametrize(
    ("default", "capabilities", "asked", "given"),
    [
        ("bf16", ["FP32", "BF16", "INT8"], "fp16", "bf16"),
        ("bf16", ["FP32", "BF16", "INT8"], "bf16", "bf16"),
        ("f16", ["FP32", "FP16"], "bf16", "fp16"),
        ("bf16", ["FP32", "BF16", "FP16"], "fp16", "fp16"),
        ("f32", ["FP32", "BF16"], "fp16", "fp32"),  # BF16 listed and only emulated
        ("bf16", ["FP32", "BF16"], "fp32", "fp32"),
        ("f32", ["FP32"], "int8", "int8"),
    ],
)
def test_a_16_bit_type_the_cpu_lacks_is_not_claimed(monkeypatch, default, capabilities, asked, given):
    from openvino import Type

    class Core:
        def get_property(self, device, name):
            return capabilities if name == "OPTIMIZATION_CAPABILITIES" else getattr(Type, default)

    monkeypatch.setattr(openvino, "_core", Core)
    assert openvino.deliverable(asked) == given


def test_openvino_refuses_an_unknown_precision(graphs):
    with pytest.raises(QanetError, match="one of fp32, fp16, bf16, int8, got fp8"):
        openvino.build(graphs["fp32"], precision="fp8")
