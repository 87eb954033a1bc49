"""Fixtures of the benchmark tests: an engine that answers from a table, a bundle without files, a clock set by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmark_documents import small_document, with_everything

from qanet.bundle import Bundle, create
from qanet.runtime.backends.base import Outputs

CROP_HW = (16, 12)
CLASSES = 13


class FakeEngine:
    """Logits that favour the class of each crop's blue channel: deterministic, and different for different crops."""

    runtime = "fake"
    outputs = ("logits", "iou_scores")

    def __init__(self, precision: str = "fp32", spoil: Callable[[Outputs], Outputs] = lambda outputs: outputs):
        self.precision, self.spoil, self.batches = precision, spoil, []

    def run(self, crops: np.ndarray, box_scores: np.ndarray) -> Outputs:
        assert crops.dtype == np.uint8 and len(crops) == len(box_scores)
        self.batches.append(len(crops))
        classes = crops[:, 2::4, 2::4, 0] % CLASSES  # (N, H / 4, W / 4)
        logits = np.where(np.arange(CLASSES)[None, :, None, None] == classes[:, None], 6.0, 0.0).astype(np.float32)
        return self.spoil({"logits": logits, "iou_scores": np.full(len(crops), 0.8, np.float32)})


class FakeClock:
    """Monotonic nanoseconds that pass only by `pass_ms`."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, duration_ms: float) -> None:
        self.now_ns += round(duration_ms * 1e6)


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Bundle:
    """A bundle whose graphs are not to be opened, with an accuracy card for FP32 only."""
    bundle = create(
        tmp_path / "fake.qanet",
        labels="ccp13",
        input_hw=list(CROP_HW),
        qam_weights=[1, 0.5, 3],
        pixel_score_threshold=0.2,
    )
    for precision in ("fp32", "fp16", "int8"):
        bundle.add_file(f"{precision}.onnx", precision.encode())
        bundle.manifest["graphs"][precision] = f"{precision}.onnx"
    card = {"miou": 0.51234, "pixel_accuracy": 0.9, "data": "ccp", "split": "val", "images": 100}
    bundle.manifest["accuracy"] = {"fp32": card}
    bundle.save()
    return bundle


@pytest.fixture
def crops() -> tuple[np.ndarray, np.ndarray]:
    """(5, 16, 12, 3) uint8 crops and (5,) float32 box scores."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (5, *CROP_HW, 3), np.uint8), np.linspace(0.5, 1, 5, dtype=np.float32)


@pytest.fixture
def document(fake_bundle: Bundle) -> dict:
    """Two precisions timed, one refused, one target broken; accuracy for FP32 only; one engine with a census."""
    return small_document(fake_bundle)


@pytest.fixture
def full_document(document: dict) -> dict:
    """Everything that can be measured beside the rounds, for variants with long names."""
    return with_everything(document)


@pytest.fixture(scope="session")
def tiny_int8_graph(tiny_graph: bytes) -> bytes:
    """The tiny network with its convolution in INT8; pixels are off by half a grey level at most.

    Weights stay within 63, so that sums of two products fit into 16 bits on processors that add in pairs.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(tiny_graph)
    graph = model.graph
    (kernel,) = (tensor for tensor in graph.initializer if tensor.name == "weight")
    values = numpy_helper.to_array(kernel)
    scale = np.abs(values).max((1, 2, 3)) / 63
    scale[scale == 0] = 1
    added = {
        "pixel.scale": np.array(255 / 254, np.float32),  # OpenVINO drops a scale of 1, and runs in floats
        "pixel.zero": np.array(0, np.uint8),
        "weight.int8": np.rint(values / scale[:, None, None, None]).astype(np.int8),
        "weight.scale": scale.astype(np.float32),
        "weight.zero": np.zeros(len(values), np.int8),
    }
    graph.initializer.remove(kernel)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in added.items())
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    position, pixels = list(graph.node).index(convolution), convolution.input[0]
    nodes = [
        helper.make_node("QuantizeLinear", [pixels, "pixel.scale", "pixel.zero"], ["pixels.q"]),
        helper.make_node("DequantizeLinear", ["pixels.q", "pixel.scale", "pixel.zero"], ["pixels.dq"]),
        helper.make_node("DequantizeLinear", ["weight.int8", "weight.scale", "weight.zero"], ["weight.dq"], axis=0),
    ]
    convolution.input[0], convolution.input[1] = "pixels.dq", "weight.dq"
    for offset, node in enumerate(nodes):
        graph.node.insert(position + offset, node)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


@pytest.fixture
def the_pytorch_form(monkeypatch):
    """Puts a function in its place."""
    pytest.importorskip("torch", reason="the baseline runs in PyTorch")
    from qanet.export import baseline as parser

    return lambda function: monkeypatch.setattr(parser, "open_baseline", function)
