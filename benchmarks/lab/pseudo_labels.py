"""Labels for photographs without any: the classes that trained networks agree on, among the photograph's tags.

    python -m qanet.benchmarks.lab.pseudo_labels runs/ccp59/model.safetensors runs/ccp13/model.safetensors \
        --photos MORE/photos --tags tags.json --join CCP --output CCP-more

The first teacher has the finest label set. Each further one may group its classes: it decides how much of a pixel goes
to each group, and the first how that is shared out within the group. A class that is not among a photograph's tags
cannot be there. Pixels where no class is certain become void. `--join` makes one data set of these photographs and of
an annotated one, whose splits stay what they are. Without it the folder also has an index of people, so that it serves
as `qanet train ... --people`. Source: self-training with a noisy student, arXiv 1911.04252; photographs with tags as in
Clothing Co-Parsing, arXiv 1502.00739.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.commandline import CommandParser, run_module
from qanet.datasets import person_box
from qanet.datasets.annotations import Tags, read_tags
from qanet.datasets.decoding import decode_ids
from qanet.datasets.photo_folder import photos_of, split_names
from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.geometry import CROP_SCALE, crop_boxes, crop_people
from qanet.images import IMAGE_SUFFIXES, read_image
from qanet.labels import IGNORE, LABEL_SETS, LabelSet
from qanet.train.data.people import Person, write_index
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.validate import paste_probabilities
from qanet.train.weights import load_weights

CERTAIN = 0.5  # least probability of a pixel's class, or it is void
_SCALES = (0.9, 1.1)
_LEAST_MASS = 1e-3  # of probability: below it a teacher's shares are noise
_LEAST_SHARE = 0.01  # of the photograph: with less foreground there is no person


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode, its crop (H, W) pixels and its classes."""

    network: ParsingNetwork
    input_hw: tuple[int, int]
    labels: LabelSet

    @torch.inference_mode()
    def probabilities(
        self, image: NDArray[np.uint8], box: NDArray[np.float32], scales: Sequence[float], ids: NDArray[np.intp]
    ) -> Tensor:
        """(K, H, W) of the K classes `ids` alone: the mean over the views that reach a pixel, 0 where none does."""
        height, width = image.shape[:2]
        mirror = np.arange(self.labels.num_classes)
        for left, right in self.labels.flip_pairs:
            mirror[[left, right]] = right, left
        total = torch.zeros(len(ids), height, width)
        for factor in scales:
            (where,) = crop_boxes(box[None], self.input_hw, CROP_SCALE * factor)
            crop = torch.from_numpy(crop_people(image, where[None], self.input_hw))
            logits = self.network(self.network.normalise(torch.cat([crop, crop.flip(2)])))[0].float()
            for maps in (logits[0][ids], logits[1][mirror[ids]].flip(2)):
                total += paste_probabilities(maps, where, (0, 0, width, height))
        return total / total.sum(0).clamp(min=_LEAST_MASS)  # the larger crops alone reach the rim


def groups_among(labels: LabelSet, ids: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(K,) group of each fine class, IGNORE where it has none, and the groups that occur."""
    group_of = np.array(labels.source_map or range(labels.num_classes))[ids]
    return group_of, np.setdiff1d(group_of, [IGNORE])


def combine(fine: Tensor, groups: Tensor, group_of: NDArray[np.intp]) -> Tensor:
    """Probabilities (K, H, W) of the fine classes: their groups by `groups` (G, H, W), in the order of their ids, the
    share within a group by `fine`. Classes outside all groups keep their probability of `fine`."""
    result = fine.clone()
    outside = fine[torch.from_numpy(group_of == IGNORE)].sum(0)
    for index, group in enumerate(np.setdiff1d(group_of, [IGNORE])):
        members = np.flatnonzero(group_of == group)
        within = fine[members]
        mass = within.sum(0)
        # where the fine teacher has no probability in a group of the coarse one, it is shared out evenly
        share = torch.where(mass > _LEAST_MASS, within / mass.clamp(min=_LEAST_MASS), 1 / len(members))
        result[members] = share * groups[index] * (1 - outside)
    return result


def label_photo(
    teachers: Sequence[Teacher], image: NDArray[np.uint8], ids: NDArray[np.intp], certain: float = CERTAIN
) -> NDArray[np.uint8] | None:
    """Labels (H, W) uint8 in the first teacher's ids, 255 where none is certain; None without a person.

    Args:
        ids: the first teacher's classes that may be there, ascending, background among them.
    """
    height, width = image.shape[:2]
    last, whole = teachers[-1], np.array([0, 0, width, height], np.float32)
    seen = (last.probabilities(image, whole, (1.0,), np.arange(last.labels.num_classes))[1:].sum(0) > 0.5).numpy()
    if seen.mean() < _LEAST_SHARE:
        return None
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    found = fine = teachers[0].probabilities(image, box, _SCALES, ids)
    if coarse := teachers[1:]:
        opinions = []
        for teacher in coarse:
            group_of, groups = groups_among(teacher.labels, ids)
            opinions.append(combine(fine, teacher.probabilities(image, box, _SCALES, groups), group_of))
        found = torch.stack(opinions).mean(0)
    confidence, winner = found.max(0)
    labels = torch.where(confidence >= certain, torch.from_numpy(ids)[winner], IGNORE)
    inside = fine.sum(0) > 0  # beyond the crop there is nothing but background
    return torch.where(inside, labels, 0).to(torch.uint8).numpy()


def _pairs(root: Path, split: str) -> Iterator[tuple[str, Path, Path]]:
    """Name, photograph and label file of each member of a split."""
    photos = photos_of(root)
    for name in split_names(root, split, photos):
        yield name, photos[name], root / "labels" / f"{name}.png"


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _join(annotated: Path, output: Path) -> list[str]:
    """Takes the annotated set's photographs, labels and val split over; the names of its training split."""
    names: dict[str, list[str]] = {}
    for split in ("train", "val"):
        names[split] = []
        for name, photo, label in _pairs(annotated, split):
            _link(photo, output / "photos" / photo.name)
            _link(label, output / "labels" / label.name)
            names[split].append(name)
    write_bytes(output / "val.txt", ("\n".join(names["val"]) + "\n").encode())
    return names["train"]


def _arguments() -> CommandParser:
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.pseudo_labels", description=__doc__.split("\n")[0])
    parser.add_argument("teachers", nargs="+", type=Path, metavar="MODEL.safetensors", help="the finest classes first")
    parser.add_argument("--photos", required=True, type=Path, metavar="DIR", help="one person each, no labels")
    parser.add_argument("--tags", type=Path, metavar="JSON", help='{"photo": [class ids that may be there]}')
    parser.add_argument(
        "--tag-classes",
        choices=sorted(LABEL_SETS),
        metavar="SET",
        help="whose ids the tags are, such as ccp59 for a teacher of ccp13; default: the first teacher's",
    )
    parser.add_argument("--join", type=Path, metavar="DIR", help="an annotated set to make one data set with")
    parser.add_argument("--certain", type=float, default=CERTAIN, help="less probable pixels are void (%(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="photos/, labels/, train.txt")
    return parser


def _open_teachers(paths: Sequence[Path]) -> list[Teacher]:
    teachers = []
    for path in paths:
        network, recipe = load_weights(path)
        teachers.append(Teacher(network, recipe.input_hw, recipe.label_set))
    first = teachers[0].labels
    for teacher, path in zip(teachers[1:], paths[1:]):
        if teacher.labels.num_raw != first.num_classes:
            raise QanetError(
                f"the classes of {path} are no groups of {first.name}",
                expected=f"{first.num_classes} raw ids",
                got=f"{teacher.labels.name} of {teacher.labels.num_raw}",
                next_command="name the finest teacher first",
            )
    return teachers


def _tags(path: Path | None, given: LabelSet, wanted: LabelSet) -> Tags:
    """The tags in the first teacher's classes; a tag in none of its groups is left out."""
    tags = read_tags(path, given) if path else {}
    if given == wanted:
        return tags
    return {name: np.setdiff1d(wanted.lookup[ids].astype(np.intp), [IGNORE]) for name, ids in tags.items()}


def main(argv: Sequence[str]) -> int:
    """Entry point. Photographs that are labelled already are kept, so a stopped run goes on."""
    import cv2
    from tqdm import tqdm

    args = _arguments().parse_args(argv)
    teachers = _open_teachers(args.teachers)
    tags = _tags(args.tags, LABEL_SETS[args.tag_classes or teachers[0].labels.name], teachers[0].labels)
    photos = sorted(p for p in args.photos.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not photos:
        raise QanetError(f"no photographs in {args.photos}", expected=f"files that end in {', '.join(IMAGE_SUFFIXES)}")
    every = np.arange(teachers[0].labels.num_classes)
    names, empty = _join(args.join, args.output) if args.join else [], 0
    people: list[Person] = []
    for photo in tqdm(photos, unit="photo"):
        target = args.output / "labels" / f"{photo.stem}.png"
        if not target.exists():
            labels = label_photo(teachers, read_image(photo), tags.get(photo.stem, every), args.certain)
            if labels is None:
                empty += 1
                continue
            write_bytes(target, cv2.imencode(".png", labels)[1].tobytes())
            _link(photo, args.output / "photos" / photo.name)
        names.append(photo.stem)
        if not args.join:
            x0, y0, x1, y1 = person_box(decode_ids(target)).tolist()
            people.append(Person(photo.stem, str((args.output / "photos" / photo.name).resolve()), (x0, y0, x1, y1)))
    if people:
        write_index(args.output, people)
    write_bytes(args.output / "train.txt", ("\n".join(names) + "\n").encode())
    print(f"wrote {args.output}: {len(names)} photographs to train; {empty} without a person")
    return 0


if __name__ == "__main__":
    run_module(main)
