"""Real TensorRT-RTX engines for two GPU generations, without a GPU: the bundled network, R50c with drawn weights."""

import onnx
import pytest
from engine_graphs import needs_rtx
from tiny_networks import lively_network

from qanet.bundle import open_bundle
from qanet.calib.scales import calibrate
from qanet.calib.quantize import quantise
from qanet.export.building.verify import drawn_crops
from qanet.export.engines import tensorrt
from qanet.export.engines.census import check_delivered
from qanet.export.engines.rtx_plan import read_rtx_plan
from qanet.export.graphs.typed import to_fp16
from qanet.export.graphs.typed_set import graph_file, write_typed_graph

TAIL = ("logits", "iou_scores")
# Calibration leaves the classifier and the IoU head in floating point, and Lite's stem.
LEFT_WIDER = {"logits", "iou_head.reduce", "iou_head.fc1", "iou_head.fc2", "iou_head.iou"}
TARGETS = {"fp8": ("sm_89", "sm_120")}  # the first generations with FP8


def build_and_check(path, precision, nodes, left_wider):
    """Build for two generations; the plan, the census and what the library said are those of the precision."""
    lines, targets = [], TARGETS.get(precision, ("sm_86", "sm_120"))
    built = tensorrt.build(path, targets=targets, outputs=TAIL, report=lines.append)
    assert read_rtx_plan(built.data).targets == targets and len(lines) == 2
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
    with graph_file(lite0, precision, "tensorrt-rtx") as path:
        built = build_and_check(path, precision, nodes=60, left_wider=LEFT_WIDER | {"backbone.stem"})
    mebibytes = len(built.data) / 2**20
    assert mebibytes < (20 if precision == "fp32" else 13)


@pytest.fixture(scope="module")
def r50c(tmp_path_factory):
    """The typed graphs of ccp13-r50c at 96x64."""
    from qanet.export.graphs.parsing import export_onnx
    from qanet.train.recipes import recipe

    folder = tmp_path_factory.mktemp("r50c")
    settings = recipe("ccp13-r50c", {"input_hw": "96x64"})
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    export_onnx(lively_network(settings), settings.input_hw, paths["fp32"])
    scales = calibrate(paths["fp32"], [drawn_crops(2, settings.input_hw)], "minmax", threads=1)
    quantise(paths["fp32"], scales, folder / "quantised.onnx")
    for precision, source in (("fp16", paths["fp32"]), ("int8", folder / "quantised.onnx")):
        onnx.save(to_fp16(onnx.load(source)), paths[precision])
    return paths


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_r50c(r50c, precision):
    built = build_and_check(r50c[precision], precision, nodes=75, left_wider=LEFT_WIDER)
    assert (built.census.requantizations > 40) == (precision == "int8")  # each convolution writes FP32
