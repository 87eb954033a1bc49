"""The mask graph's scores are the reference's on a crop pasted one to one, and its fusion is QAM's."""

import numpy as np
import torch
import torch.nn.functional as F

from qanet.export.graphs.network import INPUTS, MASK_OUTPUTS, OUTPUTS, MaskGraph, ParsingGraph, graph_of
from qanet.quality import MASK_THRESHOLD, clamp_iou, fuse_quality, mask_score
from qanet.train.networks import build
from qanet.train.recipes import Recipe

SIZE = (64, 96)


class Fixed(torch.nn.Module):
    """A network that answers with given logits and IoUs."""

    def __init__(self, logits, iou):
        super().__init__()
        self.logits, self.iou = logits, iou

    def normalise(self, crops):
        return crops

    def forward(self, _):
        return self.logits, self.iou


def test_mask_score_and_quality_are_the_references():
    torch.manual_seed(0)
    logits, iou = 3 * torch.randn(4, 1, 16, 24), torch.tensor([-0.2, 0.4, 1.3, 1.0])
    box = torch.tensor([1, 0.5, 0.9, 0])
    logits[3] = -9  # nobody: nothing is possible, the score is 0 and not nan
    graph = MaskGraph(Fixed(logits, iou))
    got = dict(zip(MASK_OUTPUTS, graph(torch.zeros(4, *SIZE, 3, dtype=torch.uint8), box)))
    boxes = np.tile(np.array([0, 0, SIZE[1], SIZE[0]], np.float32), (4, 1))
    expected = mask_score(logits.numpy(), boxes, SIZE)
    assert got["labels"].dtype == torch.uint8 and got["labels"].shape == (4, *SIZE)
    for index in range(4):
        assert (got["labels"][index].numpy() != expected.full(index)).mean() < 1e-3
    np.testing.assert_allclose(got["pixel_scores"].numpy(), expected.pixel_scores, atol=1e-5)
    assert expected.pixel_scores[3] == 0 and 0.1 < expected.pixel_scores[0] < 0.9
    np.testing.assert_allclose(got["iou_scores"].numpy(), clamp_iou(iou.numpy()))
    fused = fuse_quality(box.numpy(), clamp_iou(iou.numpy()), expected.pixel_scores)
    np.testing.assert_allclose(got["quality"].numpy(), fused, atol=1e-5)


def test_the_threshold_reaches_the_graph():
    full = torch.linspace(-4, 4, 512).view(1, 1, 16, 32)
    loose, strict = (MaskGraph(Fixed(full, None), t).mask_scores(full)[1].item() for t in (0.4, 0.1))
    p = F.sigmoid(full)
    assert loose > strict
    assert abs(strict - ((p >= 0.9).sum() / (p >= 0.1).sum()).item()) < 1e-6


def test_the_label_set_chooses_the_graph():
    small = {"data_format": "coco", "input_hw": (64, 64), "width": 16, "iou_hidden": 16}
    for labels, kind, outputs in (("person1", MaskGraph, MASK_OUTPUTS), ("ccp13", ParsingGraph, OUTPUTS)):
        graph, inputs, names = graph_of(build(Recipe("r", labels=labels, **small)), labels)
        assert type(graph) is kind and names == outputs and inputs == INPUTS
    assert set(MASK_OUTPUTS) < set(OUTPUTS) and MaskGraph(Fixed(None, None)).threshold == MASK_THRESHOLD
