"""All forms of the tail are one: reference, back-ends, PyTorch baseline and the graph tail, on a crop pasted 1:1."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tail_backends import assert_same, available, dense
from torch import nn

from qanet.export import baseline
from qanet.export.graphs.network import ParsingGraph
from qanet.quality import PixelScores, pixel_score
from qanet.runtime.backends.openvino import openvino_core
from qanet.runtime.kernels import choose_kernels

PEOPLE, CROP = 3, (64, 48)
CLASSES = (2, 20)


class GraphTail(nn.Module):
    """What the exported graph does after its network."""

    def __init__(self):
        super().__init__()
        self.graph = ParsingGraph(nn.Identity())

    def forward(self, logits):
        return self.graph._scores(F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False))


@pytest.fixture(scope="module")
def onnx_tail():
    """num_classes -> the graph tail as ONNX bytes, exported once each."""
    made = {}

    def get(num_classes):
        if num_classes not in made:
            logits = torch.zeros(PEOPLE, num_classes, CROP[0] // 4, CROP[1] // 4)
            program = torch.onnx.export(
                GraphTail().eval(), (logits,), dynamo=True, opset_version=18, input_names=["logits"], verbose=False
            )
            made[num_classes] = program.model_proto.SerializeToString()
        return made[num_classes]

    return get


def logits_of(num_classes, kind):
    """(N, C, 16, 12) float32: noise, a person of bands, classes that tie everywhere, or one that is certain."""
    shape = (PEOPLE, num_classes, CROP[0] // 4, CROP[1] // 4)
    rng = np.random.default_rng(num_classes)
    if kind == "ties":
        return np.repeat(rng.normal(0, 2, (PEOPLE, 1, *shape[2:])), num_classes, 1).astype(np.float32)
    logits = rng.normal(0, 2, shape).astype(np.float32)
    if kind == "bands":
        rows = np.arange(shape[2])
        logits[:, rows * num_classes // shape[2], rows] += 6
    if kind == "certain":
        logits[:, -1] += 200
    return logits


def whole_crop(labels, pixel, part):
    """A graph's outputs as the scores of an image that is the crop."""
    rois = np.tile(np.array([0, 0, CROP[1], CROP[0]], np.int32), (PEOPLE, 1))
    return PixelScores(rois, list(np.asarray(labels)), np.asarray(pixel), np.asarray(part), CROP)


def answer(form, logits, boxes, onnx_tail):
    if form == "baseline":
        return baseline.pixel_score(logits, boxes, CROP)
    if form == "graph in PyTorch":
        with torch.inference_mode():
            return whole_crop(*(output.numpy() for output in GraphTail()(torch.from_numpy(logits))))
    if form == "graph in ONNX Runtime":
        session = onnxruntime.InferenceSession(onnx_tail(logits.shape[1]), providers=["CPUExecutionProvider"])
        return whole_crop(*session.run(None, {"logits": logits}))
    if form == "graph in OpenVINO":
        pytest.importorskip("openvino")
        core = openvino_core()
        compiled = core.compile_model(
            core.read_model(onnx_tail(logits.shape[1])), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return whole_crop(*compiled({"logits": logits}).to_tuple())
    return choose_kernels(form).pixel_score(logits, boxes, CROP)


FORMS = (*available(), "baseline", "graph in PyTorch", "graph in ONNX Runtime", "graph in OpenVINO")


@pytest.mark.parametrize("kind", ["noise", "bands", "ties", "certain"])
@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("form", FORMS)
def test_one_tail(form, num_classes, kind, onnx_tail):
    logits = logits_of(num_classes, kind)
    boxes = np.tile(np.array([0, 0, CROP[1], CROP[0]], np.float32), (PEOPLE, 1))
    pasted = [dense(maps, box, CROP) for maps, box in zip(logits, boxes)]
    got = answer(form, logits, boxes, onnx_tail)
    if kind == "ties" and num_classes > 5:  # every probability is 1/C, below T: no pixel counts
        assert not got.pixel_scores.any() and not got.part_scores.any()
    assert_same(got, pixel_score(logits, boxes, CROP), pasted, 0.2)


def test_the_first_class_wins_a_tie_in_the_graph():
    logits = torch.zeros(1, 5, 2, 2)
    logits[:, 2:4] = 3
    labels, _, part = GraphTail()(logits)
    assert (labels == 2).all() and part[0].nonzero().flatten().tolist() == [1]


def test_labels_stay_in_range_where_the_logits_are_not_numbers():
    labels, _, part = GraphTail()(torch.full((1, 5, 2, 2), torch.nan))
    assert labels.dtype == torch.uint8 and not labels.any() and not part.nan_to_num().any()
