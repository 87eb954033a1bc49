"""What the tests of several rooms share: golden numbers, a tiny bundle whose answers are known, a synthetic clip."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background ignores SIGINT for them and for every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Opset 18, the contract of a parsing graph. The network is one 4x4 convolution of stride 4: a cell's class is the
# corner of the colour cube it is nearest to (bit 0 blue, bit 1 green, bit 2 red), so black is background.
_GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[N,64,64,3] crops, float[N] box_scores) => (
  float[N,13,16,16] logits, uint8[N,64,64] labels, float[N] pixel_scores, float[N,12] part_scores,
  float[N] iou_scores, float[N] quality, float[N,12] part_quality
) {
  float_crops = Cast<to = 1>(crops)
  planar = Transpose<perm = [0, 3, 1, 2]>(float_crops)
  logits = Conv<strides = [4, 4]>(planar, weight, bias)
  full = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(logits, , enlarge)
  probabilities = Softmax<axis = 1>(full)
  confidence = ReduceMax<keepdims = 0>(probabilities, channel)
  winner = ArgMax<axis = 1, keepdims = 0>(probabilities)
  likely = GreaterOrEqual(confidence, one_in_c)
  shown = Where(likely, winner, background)
  labels = Cast<to = 2>(shown)
  is_certain = GreaterOrEqual(confidence, threshold)
  certain = Cast<to = 1>(is_certain)
  weighted = Mul(confidence, certain)
  total = ReduceSum<keepdims = 0>(weighted, rows_columns)
  count = ReduceSum<keepdims = 0>(certain, rows_columns)
  some = Max(count, epsilon)
  pixel_scores = Div(total, some)
  winner_plane = Unsqueeze(winner, channel)
  is_here = Equal(winner_plane, parts)
  here = Cast<to = 1>(is_here)
  weighted_plane = Unsqueeze(weighted, channel)
  certain_plane = Unsqueeze(certain, channel)
  part_weighted = Mul(here, weighted_plane)
  part_certain = Mul(here, certain_plane)
  part_total = ReduceSum<keepdims = 0>(part_weighted, part_axes)
  part_count = ReduceSum<keepdims = 0>(part_certain, part_axes)
  part_some = Max(part_count, epsilon)
  part_scores = Div(part_total, part_some)
  mean = ReduceMean<keepdims = 0>(planar, all_axes)
  nothing = Mul(mean, zero)
  iou_scores = Add(nothing, iou)
  box_power = Pow(box_scores, alpha)
  iou_power = Pow(iou_scores, beta)
  both = Mul(box_power, iou_power)
  pixel_power = Pow(pixel_scores, gamma)
  product = Mul(both, pixel_power)
  quality = Pow(product, root)
  both_column = Unsqueeze(both, channel)
  part_power = Pow(part_scores, gamma)
  part_product = Mul(both_column, part_power)
  part_quality = Pow(part_product, root)
}
"""
TINY_IOU = 0.81


def _constants() -> dict[str, np.ndarray]:
    signs = np.array([[1 if code >> bit & 1 else -1 for bit in range(3)] for code in range(8)], np.float32)
    weight, bias = np.zeros((13, 3, 4, 4), np.float32), np.full(13, -100, np.float32)
    weight[:8] = (4 * signs / (127.5 * 16))[:, :, None, None]
    bias[:8] = -4 * signs.sum(1)
    scalars = {
        "one_in_c": 1 / 13,
        "threshold": 0.2,
        "epsilon": 1e-6,
        "zero": 0,
        "iou": TINY_IOU,
        "alpha": 1,
        "beta": 0.5,
        "gamma": 3,
        "root": 1 / 4.5,
    }
    whole = {"channel": [1], "rows_columns": [1, 2], "part_axes": [2, 3], "all_axes": [1, 2, 3], "background": 0}
    return {
        "weight": weight,
        "bias": bias,
        "enlarge": np.array([1, 1, 4, 4], np.float32),
        "parts": np.arange(1, 13).reshape(1, 12, 1, 1),
        **{k: np.array(v) for k, v in whole.items()},
        **{k: np.array(v, np.float32) for k, v in scalars.items()},
    }


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A user's cache that is empty when the tests begin: what an engine answered in an earlier run proves nothing now.

    Compiled kernels are found by the hash of their sources and stay where they are.
    """
    before = os.environ.get("XDG_CACHE_HOME")
    kept = Path(before or Path.home() / ".cache") / "qanet" / "kernels"
    kept.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("cache")
    (folder / "qanet").mkdir()
    (folder / "qanet" / "kernels").symlink_to(kept)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and clips that are not part of the project: $QANET_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("QANET_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared data: set QANET_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden numbers: tests/golden, else the shared one."""
    shared_folder = Path(os.environ.get("QANET_SHARED", REPOSITORY.parent / "shared"))
    for folder in (REPOSITORY / "tests" / "golden", shared_folder / "golden"):
        if (folder / "index.json").is_file():
            return folder
    pytest.skip("no golden numbers: tests/golden is missing, and QANET_SHARED names no folder with golden/")


@pytest.fixture(scope="session")
def tiny_graph() -> bytes:
    """The ONNX file of the tiny network."""
    pytest.importorskip("onnx")
    import onnx.parser
    from onnx import numpy_helper

    model = onnx.parser.parse_model(_GRAPH)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _constants().items())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


@pytest.fixture(scope="session")
def shared_tiny_bundle(tiny_graph, tmp_path_factory) -> Path:
    """tiny.qanet, for tests that only read it: crops of 64x64, the classes of ccp13."""
    from qanet.bundle import create

    return _write_bundle(create(tmp_path_factory.mktemp("bundle") / "tiny.qanet", **_FIELDS), tiny_graph)


@pytest.fixture
def tiny_bundle(tiny_graph, tmp_path) -> Path:
    """tiny.qanet of a test's own, to break."""
    from qanet.bundle import create

    return _write_bundle(create(tmp_path / "tiny.qanet", **_FIELDS), tiny_graph)


_FIELDS = {
    "labels": "ccp13",
    "input_hw": [64, 64],
    "graphs": {"fp32": "model.onnx"},
    "qam_weights": [1, 0.5, 3],
    "pixel_score_threshold": 0.2,
}


def _write_bundle(bundle, graph: bytes) -> Path:
    bundle.add_file("model.onnx", graph)
    bundle.save()
    return bundle.path


@pytest.fixture(scope="session")
def tiny_parser(shared_tiny_bundle):
    """A parser of the tiny bundle with the kernel tail."""
    import qanet

    return qanet.load(shared_tiny_bundle, device="cpu", threads=1)


def person_boxes(frame: int) -> list[list[float]]:
    """Where `draw_people` puts its two people in a frame."""
    return [[20.0 + frame, 20, 60 + frame, 100], [100, 30, 140, 110]]


def draw_people(frame: int) -> np.ndarray:
    """(120, 160, 3) BGR: black, with two people of a blue (1) upper and a green (2) lower half; one of them walks."""
    image = np.zeros((120, 160, 3), np.uint8)
    for x0, y0, x1, y1 in person_boxes(frame):
        middle = int(y0 + y1) // 2
        image[int(y0) : middle, int(x0) : int(x1)] = (255, 0, 0)
        image[middle : int(y1), int(x0) : int(x1)] = (0, 255, 0)
    return image


@pytest.fixture
def people():
    """The drawing: frame number -> image; `people.boxes(frame)` tells where they are."""
    draw_people.boxes = person_boxes
    return draw_people


@pytest.fixture
def make_clip(tmp_path):
    """Writes a Motion-JPEG .avi of the drawn people and returns its path."""
    import cv2

    def make(frames: int = 6, name: str = "clip.avi") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
        for index in range(frames):
            writer.write(draw_people(index))
        writer.release()
        return path

    return make


@pytest.fixture
def boxes_file(tmp_path) -> Path:
    """boxes.json for the first hundred frames of a clip of the drawn people."""
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({str(index): person_boxes(index) for index in range(100)}))
    return path


def pytest_terminal_summary(terminalreporter) -> None:
    """One line that tells how much of the suite this machine could not run for want of a GPU."""
    skipped = terminalreporter.stats.get("skipped", [])
    gpu = sum("gpu" in getattr(report, "keywords", ()) for report in skipped)
    terminalreporter.write_line(f"skipped: {len(skipped)} tests, {gpu} of them for want of a GPU")
