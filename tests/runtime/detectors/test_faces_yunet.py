"""YuNet's form: a graph that says known faces, decoded as OpenCV decodes it."""

import cv2
import numpy as np
import pytest

from qanet.runtime.detectors.forms import STRIDES
from qanet.runtime.detectors.open import OnnxDetector
from qanet.runtime.faces.detector import FaceDetector, frame_of_face

HW = (64, 96)


def save(path, outputs, hw=HW):
    """A graph of constants behind an image input."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *hw])
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
        helper.make_node("Reshape", ["zeros", "shape"], ["nothing"]),
        *(helper.make_node("Add", [f"{name}_value", "nothing"], [name]) for name in outputs),
    ]
    values = {"zero": np.float32(0), "shape": np.array([1, 1, 1], np.int64)}
    values |= {f"{name}_value": value for name, value in outputs.items()}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(v.shape)) for n, v in outputs.items()]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "yunet", [image], infos, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def said(seed=None):
    """Outputs of a YuNet: empty, or random ones."""
    rng = np.random.default_rng(seed)
    outputs = {}
    for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            shape = (1, (HW[0] // stride) * (HW[1] // stride), channels)
            values = rng.uniform(-0.2, 1.2, shape) if seed is not None else np.zeros(shape)
            outputs[f"{kind}_{stride}"] = values.astype(np.float32)
    return outputs


@pytest.mark.parametrize("seed", range(3))
def test_faces_are_decoded_as_opencv_does(tmp_path, seed):
    path = save(tmp_path / "yunet.onnx", said(seed))
    image = np.zeros((*HW, 3), np.uint8)
    reference = cv2.FaceDetectorYN.create(str(path), "", HW[::-1], 0.6, 1.0, 5000)  # an overlap of 1 drops nothing
    _, rows = reference.detect(image)
    detector = OnnxDetector(path, 0.6, threads=1)
    detector.form.needs_nms = False
    found = detector.detect(image)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1).clip(0, [HW[1], HW[0]] * 2)
    order, mine = np.argsort(-rows[:, 14], kind="stable"), np.argsort(-found.scores, kind="stable")
    assert len(found) == len(rows) > 5
    assert np.allclose(found.scores[mine], rows[order, 14], atol=1e-5)
    assert np.allclose(found.boxes[mine], boxes[order], atol=1e-3)


def test_a_face_of_a_larger_image_is_framed_in_its_pixels(tmp_path):
    outputs = said()
    cell = 3 * (HW[1] // 16) + 2  # row 3 of 4, column 2 of 6, stride 16
    outputs["cls_16"][0, cell] = outputs["obj_16"][0, cell] = 0.81
    outputs["bbox_16"][0, cell] = [0.5, -0.5, np.log(1.5), np.log(2)]
    detector = FaceDetector(OnnxDetector(save(tmp_path / "yunet.onnx", outputs), 0.5, threads=1))
    found = detector.detect(np.zeros((128, 192, 3), np.uint8))
    assert detector.name == "faces by yunet.onnx" and found.scores.tolist() == pytest.approx([0.81])
    assert np.allclose(found.boxes, [frame_of_face([56, 48, 104, 112])], atol=0.01)
    strict = FaceDetector(OnnxDetector(tmp_path / "yunet.onnx", 0.9, threads=1))
    assert len(strict.detect(np.zeros((64, 96, 3), np.uint8))) == 0
