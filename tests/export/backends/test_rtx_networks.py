"""Real TensorRT-RTX engines for two GPU generations, without a GPU: the bundled network, and R50c's blocks."""

import onnx
import pytest
from engine_graphs import needs_rtx
from rtx_header import plan_targets

from qanet.bundle import open_bundle
from qanet.calib.quantize import quantise
from qanet.calib.scales import find_scales
from qanet.export.backends import tensorrt
from qanet.export.backends.census import check_delivered
from qanet.export.building.verify import drawn_crops
from qanet.export.graphs.typed import builder_graph, to_fp16, write_typed_graph

TAIL = ("logits", "iou_scores")
# Calibration leaves the classifier and the IoU head in floating point, and Lite's stem.
LEFT_WIDER = {"logits", "iou_head.reduce", "iou_head.fc1", "iou_head.fc2", "iou_head.iou"}
TARGETS = {"fp8": ("sm_89", "sm_120")}  # the first generations with FP8


def build_and_check(graph, precision, nodes, left_wider):
    """Build for two generations; the plan, the census and what the library said are those of the precision."""
    lines, targets = [], TARGETS.get(precision, ("sm_86", "sm_120"))
    built = tensorrt.build(graph, targets=targets, outputs=TAIL, report=lines.append)
    assert plan_targets(built.data) == targets and len(lines) == 2
    assert built.messages == (), "the parser or the builder warned"
    narrow = precision in ("int8", "fp8")
    check_delivered(built.census, precision, keep=left_wider if narrow else ())
    assert len(built.census.compute) == nodes
    wider = {layer.name for layer in built.census.compute if layer.precision != precision}
    assert wider == (left_wider if narrow else set())
    assert all(layer.precision == "fp16" for layer in built.census.compute if layer.name in wider)
    assert built.census.multiply_add_shares[precision] > (0.9 if narrow else 0.999)
    assert built.census.reformats <= 5
    return built


@pytest.fixture(scope="module")
def lite0():
    """The bundled network with all its typed graphs, in memory: nothing is saved into the package."""
    bundle = open_bundle("ccp13-lite0")
    for precision in ("fp16", "bf16", "int8", "fp8"):
        write_typed_graph(bundle, precision)
    return bundle


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_the_bundled_network(lite0, precision):
    graph = builder_graph(lite0, precision, "tensorrt-rtx")
    built = build_and_check(graph, precision, nodes=60, left_wider=LEFT_WIDER | {"backbone.stem"})
    mebibytes = len(built.data) / 2**20
    assert mebibytes < (20 if precision == "fp32" else 13)


@pytest.fixture(scope="module")
def resnet_c():
    """The typed graphs of a network of R50c's blocks."""
    from exported_networks import SIZE, exported

    fp32 = exported("tiny-c").graph
    crops = drawn_crops(2, SIZE)
    scales, _ = find_scales(fp32, [crops], "minmax", threads=1, use_cache=False)
    typed = {"fp16": fp32, "int8": quantise(fp32, scales)}
    made = {name: to_fp16(onnx.load_model_from_string(graph)).SerializeToString() for name, graph in typed.items()}
    return {"fp32": fp32, **made}


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_blocks_of_r50c(resnet_c, precision):
    built = build_and_check(resnet_c[precision], precision, nodes=39, left_wider=LEFT_WIDER)
    assert (built.census.requantizations > 20) == (precision == "int8")  # each convolution writes FP32
