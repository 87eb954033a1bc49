"""The mean of checkpoints of one network: often better on what each is good at than either alone.

    python -m qanet.train.weights.mean street.safetensors:0.2 people.safetensors:0.8 --output both.safetensors

For checkpoints that came one from another; of unrelated ones the mean is worthless. The recipe is the last one's.
Source: model soups, arXiv 2203.05482; between a network and its fine-tuned self, arXiv 2109.01903.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from qanet.commandline import CommandParser, run_module
from qanet.errors import QanetError
from qanet.train.weights.checkpoint import load_strictly, load_weights, save_weights


def mean_weights(paths: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted mean of the checkpoints' tensors, batch-norm statistics among them.

    Raises:
        QanetError: fewer than two, a share that is not positive, or networks that differ.
    """
    if len(paths) < 2 or min(shares) <= 0:
        raise QanetError("bad checkpoints to average", expected="two or more, shares above 0", got=list(shares))
    loaded = [load_weights(path) for path in paths]
    network, recipe = loaded[-1]
    states = [{key: value.clone() for key, value in other.state_dict().items()} for other, _ in loaded]
    for path, state in zip(paths, states):
        load_strictly(network, state, str(path))  # names the first tensor that differs
    mean: dict[str, Tensor] = dict(states[-1])
    for key, value in mean.items():
        if value.is_floating_point():
            mean[key] = torch.stack([state[key] * (w / sum(shares)) for state, w in zip(states, shares)]).sum(0)
    network.load_state_dict(mean)
    save_weights(output, network, recipe)


def _with_share(text: str) -> tuple[Path, float]:
    path, _, share = text.rpartition(":")
    try:
        return Path(path), float(share)
    except ValueError as error:
        raise QanetError(
            "bad checkpoint", expected="FILE.safetensors:SHARE, such as a.safetensors:0.3", got=text
        ) from error


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.train.weights.mean", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", metavar="FILE:SHARE")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    paths, shares = zip(*(_with_share(text) for text in args.checkpoints))
    mean_weights(paths, shares, args.output)
    print(f"wrote {args.output}, the mean of {len(paths)}")
    return 0


if __name__ == "__main__":
    run_module(main)
