"""Parts of people whose silhouettes are known, by a trained network where its views agree: labels to train from.

    python -m qanet.benchmarks.lab.people_parts model.safetensors --people people/silhouettes --output people/parts

The teacher is the averaged network of an earlier run (a mean teacher between runs). It sees each whole person at
several sizes, each mirrored too. Only the classes' shares among each other are taken from it, within the silhouette.
Where no class is certain, a pixel stays "a person", or one of two garments. Sources: mean teachers, arXiv 1703.01780;
self-training with a noisy student, arXiv 1911.04252.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.benchmarks.lab.pseudo_labels import Teacher
from qanet.commandline import CommandParser, run_module
from qanet.files import write_bytes
from qanet.labels import IGNORE, LabelSet
from qanet.train.data.people import ANY_CLASS, BOTTOM, FIRST, INDEX, SUIT, TOP, PeopleFolder, partial_sets
from qanet.train.weights import load_weights

CERTAIN = 0.75  # share of a class among the foreground from which it is the pixel's label
_LEAST_SEEN = 0.3  # least probability of any foreground at a pixel
_BODY_SEEN = 0.5  # least share of a silhouette that the teacher calls foreground; else its parts are not used


def add_parts(
    silhouette: NDArray[np.uint8], probabilities: Tensor, labels: LabelSet, certain: float = CERTAIN
) -> NDArray[np.uint8]:
    """(H, W) uint8: a silhouette's labels with a class wherever the teacher is certain of one.

    Args:
        silhouette: (H, W) of 0, SOMEBODY and IGNORE; a class that is there already stays.
        probabilities: (C, H, W), the mean over the teacher's views; all 0 where no view reaches.
    """
    open_ = torch.from_numpy(silhouette == ANY_CLASS)
    person = probabilities[1:].sum(0)
    if not open_.any() or (person > 0.5)[open_].float().mean() < _BODY_SEEN:
        return silhouette
    share = probabilities[1:] / person.clamp(min=1e-6)
    confidence, winner = share.max(0)
    found = torch.full(silhouette.shape, ANY_CLASS, dtype=torch.uint8)
    for partial in (SUIT, BOTTOM, TOP):
        if partial in (sets := partial_sets(labels)):
            either = share[[member - 1 for member in sets[partial]]].sum(0) >= certain
            found[either] = partial
    found = torch.where(confidence >= certain, (winner + 1).to(torch.uint8), found)
    found = found.where(open_ & (person >= _LEAST_SEEN), torch.from_numpy(silhouette))
    return found.numpy()


def main(argv: Sequence[str]) -> int:
    """Entry point. People who are labelled already are kept, so a stopped run goes on."""
    import cv2
    from tqdm import tqdm

    parser = CommandParser(prog="python -m qanet.benchmarks.lab.people_parts", description=__doc__.split("\n")[0])
    parser.add_argument("teacher", type=Path, metavar="MODEL.safetensors")
    parser.add_argument("--people", required=True, type=Path, metavar="DIR", help="silhouettes")
    parser.add_argument("--scales", default="0.9,1.1", help="sizes of the crop box, each mirrored too (%(default)s)")
    parser.add_argument("--certain", type=float, default=CERTAIN, help="share of a part's class (%(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    network, recipe = load_weights(args.teacher)
    labels = recipe.label_set
    teacher = Teacher(network, recipe.input_hw, labels)
    scales = [float(text) for text in args.scales.split(",")]
    people = PeopleFolder(args.people, labels)
    every = np.arange(labels.num_classes)
    counts = np.zeros(256, np.int64)
    for index, name in enumerate(tqdm(people.names, unit="person")):
        target = args.output / "labels" / f"{name}.png"
        if target.exists():
            continue
        sample = people[index]
        found = add_parts(
            sample.labels, teacher.probabilities(sample.image, sample.box, scales, every), labels, args.certain
        )
        counts += np.bincount(found.ravel(), minlength=256)
        write_bytes(target, cv2.imencode(".png", found)[1].tobytes())
    shutil.copyfile(args.people / INDEX, args.output / INDEX)
    share = counts[1:FIRST].sum() / max(counts[1:IGNORE].sum(), 1)
    print(f"wrote {args.output}: {len(people)} people; {share:.0%} of their pixels have a part")
    return 0


if __name__ == "__main__":
    run_module(main)
