"""Test-time augmentation in PyTorch is the runtime's."""

import numpy as np
import pytest
import torch
from flip_network import CLASSES, CROP_HW, FlipEngine, scene, weights

from qanet.errors import QanetError
from qanet.geometry import crop_people
from qanet.labels import CIHP20
from qanet.quality import MULTI_SCALE
from qanet.runtime.augment import Augmentation, look, score_people
from qanet.runtime.detectors.base import Detections
from qanet.runtime.timing import StageTimes
from qanet.train.networks import build
from qanet.train.recipes import Recipe
from qanet.train.tta import parse_people


class TorchTwin(torch.nn.Module):
    """`FlipEngine` as a network."""

    def normalise(self, crops):
        return crops.float().permute(0, 3, 1, 2) / 255

    def forward(self, x):
        count, _, height, width = x.shape
        cells = torch.nn.functional.avg_pool2d(x, 4)
        rows, columns = torch.meshgrid(
            torch.linspace(0, 1, height // 4), torch.linspace(0, 1, width // 4), indexing="ij"
        )
        place = torch.stack([columns, rows]).expand(count, -1, -1, -1)
        logits = torch.einsum("nkhw,kc->nchw", torch.cat([cells, place], 1) - 0.5, torch.from_numpy(weights()))
        return logits, x[..., : width // 2].mean((1, 2, 3))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE, (0.8,)], ids=str)
def test_pytorch_and_the_runtime_see_the_same_people(flip, scales, monkeypatch):
    monkeypatch.setattr("qanet.runtime.augment.crop_people", crop_people)  # the runtime's own is a rounding off
    image, boxes = scene(4)
    found = Detections(boxes, np.ones(len(boxes), np.float32))
    views, iou = look(FlipEngine(), image, found, CROP_HW, Augmentation(flip, scales), StageTimes())
    expected = score_people(views, image.shape[:2], 0.2, CIHP20.flip_pairs)
    scored, predicted = parse_people(
        TorchTwin(), image, boxes, CROP_HW, flip=flip, scales=scales, flip_pairs=CIHP20.flip_pairs, threshold=0.2
    )
    assert np.array_equal(scored.rois, expected.rois) and scored.image_size == expected.image_size
    for ours, theirs in zip(scored.labels, expected.labels):
        assert ours.dtype == np.uint8 and np.mean(ours == theirs) > 0.9999
    np.testing.assert_allclose(scored.pixel_scores, expected.pixel_scores, atol=1e-4)
    np.testing.assert_allclose(scored.part_scores, expected.part_scores, atol=1e-3)
    np.testing.assert_allclose(predicted, iou, atol=1e-5)
    assert scored.part_scores.shape == (3, CLASSES - 1) and scored.part_scores.max() > 0.3


def test_a_real_network_is_taken_as_it_is():
    recipe = Recipe("tiny", "ccp13", "ccp", (64, 64), pretrained=False, width=16, iou_hidden=16)
    network = build(recipe).eval()
    image, boxes = scene(5)
    scored, iou = parse_people(network, image, boxes, recipe.input_hw, flip=True, threshold=0)
    assert scored.part_scores.shape == (3, 12) and iou.shape == (3,) and iou.dtype == np.float32
    assert 0 < scored.pixel_scores.min() <= scored.pixel_scores.max() <= 1


def test_nobody_and_wrong_arguments():
    image, boxes = scene()
    scored, iou = parse_people(TorchTwin(), image, [], CROP_HW)
    assert len(scored.labels) == 0 and iou.shape == (0,)
    with pytest.raises(QanetError, match="box 0 lies wholly outside the image"):
        parse_people(TorchTwin(), image, [[900, 900, 990, 990]], CROP_HW)
    with pytest.raises(QanetError, match="scales do not fit"):
        parse_people(TorchTwin(), image, boxes, CROP_HW, scales=())
