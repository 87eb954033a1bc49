"""Logit adjustment: a checkpoint whose rare classes win more often, at the cost of pixel accuracy, without training.

    python -m qanet.benchmarks.lab.balance model.safetensors --data CCP --tau 0.4 --output balanced.safetensors

The classifier's bias gets -tau * log(share of the class among the training pixels). Source: Menon et al., arXiv
2007.07314, section 4.1 (post-hoc). tau 0 changes nothing; tau 1 is optimal for the mean of the classes' recalls where
the network's probabilities are right. Pixel scores come from the adjusted probabilities.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from qanet.commandline import CommandParser, run_module
from qanet.datasets import DATA_FORMATS, DataSet, open_dataset
from qanet.errors import QanetError
from qanet.train.weights import load_weights, save_weights

_LEAST_SHARE = 1e-5  # rarer classes are raised no further: their probabilities are noise


def class_pixels(data: DataSet) -> NDArray[np.int64]:
    """(C,) pixels of each class in a data set; void counts nowhere."""
    return np.sum([data.class_pixels(i).sum(0) for i in range(len(data.image_names))], axis=0)


def bias_change(pixels: NDArray[np.int64], tau: float) -> NDArray[np.float32]:
    """(C,) what to add to the classifier's bias for pixel counts (C,). A class without a training pixel keeps its
    bias, which puts it behind every other.

    Raises:
        QanetError: tau outside [0, 1].
    """
    if not 0 <= tau <= 1:
        raise QanetError("bad tau", expected="0 (no change) to 1 (as if all classes were as frequent)", got=tau)
    shares = np.maximum(pixels / max(pixels.sum(), 1), _LEAST_SHARE)
    return np.where(pixels > 0, -tau * np.log(shares), 0.0).astype(np.float32)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.balance", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, metavar="MODEL.safetensors")
    parser.add_argument("--data", required=True, metavar="DIR", help="the training set")
    parser.add_argument("--format", choices=DATA_FORMATS, help="default: the recipe's")
    parser.add_argument("--tau", type=float, default=0.5)
    parser.add_argument("--output", required=True, type=Path, metavar="NEW.safetensors")
    args = parser.parse_args(argv)
    network, recipe = load_weights(args.checkpoint)
    data = open_dataset(args.data, args.format or recipe.data_format, recipe.label_set, "train")
    change = bias_change(class_pixels(data), args.tau)
    bias = network.parsing_head.classify.bias
    assert bias is not None
    with torch.no_grad():
        bias += torch.from_numpy(change)
    save_weights(args.output, network, recipe)
    print(f"wrote {args.output}: bias changed by {change.min():.2f} to {change.max():.2f}")
    return 0


if __name__ == "__main__":
    run_module(main)
