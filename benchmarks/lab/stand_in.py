"""Weights to measure speed with where a network was never trained: latency and size are real, accuracy is not.

    python -m qanet.benchmarks.lab.stand_in ccp13-r18 --data CCP --output r18.safetensors

A freshly initialised network does not stand in for a trained one: its last batch norms are zero, so that whole blocks
do nothing, its activations grow from layer to layer, and one class wins everywhere, which spares the tail its work. So
the zero scales become `_SCALE`, batch norms take their statistics from crops of people, the classifier is fitted to
those crops by ridge regression, and the IoU head is shifted to plausible scores.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qanet.commandline import CommandParser, run_module
from qanet.datasets import DataSet, open_dataset
from qanet.errors import QanetError
from qanet.geometry import box_to_image, crop_boxes, resample, resample_labels
from qanet.labels import IGNORE
from qanet.train.networks import build
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import Recipe, recipe
from qanet.train.weights import save_weights

_LABELS = "ccp59"  # as many classes as any label set of a parsing recipe; larger ids are folded into the recipe's own
_SCALE = 0.3
_GAIN = 12.0  # from one-hot targets to logits
_RIDGE = 1e-2
_IOU_MEAN, _IOU_STD = 0.7, 0.05


def people(data: DataSet, chosen: Recipe, count: int) -> tuple[Tensor, Tensor]:
    """The first people of a data set: crops (N, H, W, 3) uint8 BGR, and labels (N, H/4, W/4) int64 below the recipe's
    number of classes; void is background."""
    crops, labels = [], []
    for index in range(min(count, len(data))):
        sample = data[index]
        affine = box_to_image(crop_boxes(sample.box, chosen.input_hw)[0], chosen.input_hw)
        crops.append(resample(sample.image, affine, chosen.input_hw))
        truth = resample_labels(sample.labels, affine, chosen.input_hw)[2::4, 2::4].astype(np.int64)
        truth[truth == IGNORE] = 0
        labels.append(np.where(truth == 0, 0, 1 + (truth - 1) % (chosen.num_classes - 1)))
    return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(labels))


@torch.no_grad()
def stand_in(chosen: Recipe, crops: Tensor, labels: Tensor, batch: int = 4) -> ParsingNetwork:
    """A network in eval mode whose activations and label maps look like a trained one's.

    Args:
        crops: (N, H, W, 3) uint8 BGR.
        labels: (N, H/4, W/4) int64 class ids.
        batch: crops per forward pass, at most N, so that every batch norm sees a full batch.
    """
    torch.manual_seed(chosen.seed)
    network = build(chosen).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        norm.reset_running_stats()
        if not norm.weight.any():
            nn.init.constant_(norm.weight, _SCALE)
    whole = [slice(start, start + batch) for start in range(0, len(crops) - batch + 1, batch)]
    for part in whole:
        network(network.normalise(crops[part]))
    network.eval()
    features = torch.cat([_feature(network, crops[part]) for part in whole])  # (N, width, h, w)
    _fit_classifier(network.parsing_head.classify, features, labels[: len(features)])
    scores = network.iou_head(features)
    factor = _IOU_STD / max(float(scores.std()), 1e-6)
    network.iou_head.iou.weight.mul_(factor)
    network.iou_head.iou.bias.mul_(factor).add_(_IOU_MEAN - factor * float(scores.mean()))
    return network


def _feature(network: ParsingNetwork, crops: Tensor) -> Tensor:
    levels = network.backbone(network.normalise(crops))
    return network.neck(network.fpn(levels) if network.fpn else levels)


def _fit_classifier(classify: nn.Conv2d, features: Tensor, labels: Tensor) -> None:
    """Ridge regression of one-hot labels on the panoptic feature, per pixel, frequent classes counting less: without
    that the background alone would win. Sums are float64."""
    width, classes = features.shape[1], classify.out_channels
    x = features.permute(0, 2, 3, 1).reshape(-1, width).double()
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # the bias
    y = nn.functional.one_hot(labels.flatten(), classes).double()
    weights = y.sum(0).clamp(min=1).rsqrt()[labels.flatten()].unsqueeze(1)
    gram = x.T @ (weights * x)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(width + 1, dtype=torch.float64)
    solved = (_GAIN * torch.linalg.solve(gram, x.T @ (weights * y))).float()  # (width + 1, C)
    assert classify.bias is not None
    classify.weight.copy_(solved[:-1].T[:, :, None, None])
    classify.bias.copy_(solved[-1])


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.stand_in", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--data", required=True, metavar="DIR", help="Clothing Co-Parsing, or a folder like it")
    parser.add_argument("--crops", type=int, default=16, metavar="N", help="of its people (16)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.safetensors")
    args = parser.parse_args(argv)
    chosen = recipe(args.recipe, {"pretrained": "false"})
    if args.crops < 4:
        raise QanetError("bad --crops", expected="4 or more", got=args.crops)
    crops, labels = people(open_dataset(args.data, "ccp", _LABELS, None), chosen, args.crops)
    network = stand_in(chosen, crops, labels)
    save_weights(args.output, network, chosen)
    print(f"wrote {args.output}: {chosen.name}, never trained; next: qanet export {args.output} --output NAME.qanet")
    return 0


if __name__ == "__main__":
    run_module(main)
