"""Synthetic scenes in any official layout: people cut out of photographs and pasted together, with exact truth.

    python -m qanet.benchmarks.lab.synthetic --people CCP --format cihp --labels ccp13 --split val --output scenes

Every number measured on them is a number on synthetic data, and the files say so (synthetic_<split>.json).
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.lab.synthetic_people import Cutout, People
from qanet.benchmarks.lab.synthetic_scene import DetectorStyle, Scene, SceneStyle, compose, detect
from qanet.commandline import CommandParser, emit, run_module
from qanet.datasets.annotations import PERSON
from qanet.datasets.official import CATEGORIES, HUMANS, IMAGES, LAYOUTS, PARTS, Layout
from qanet.errors import QanetError
from qanet.files import check_room, write_bytes, write_text
from qanet.labels import LABEL_SETS, LabelSet, label_set

_JPEG_QUALITY = 95
_BYTES_A_SCENE = 2**20
SPLITS = ("train", "val", "test")
SINGLE_PERSON = ("lip", "atr")  # one person an image, no Human_ids, no Instance_ids
_SINGLE = SceneStyle(people=(1, 1), height_px=(400, 700), aspect=(0.5, 0.9), farthest=0.75, horizon=0.8)


class LayoutWriter:
    """Writes the scenes of one split; `with_people` writes Human_ids and Instance_ids too."""

    def __init__(self, root: Path, layout: Layout, split: str, scenes: int, with_people: bool):
        self.root, self.layout, self.split = root, layout, layout.split(split)
        self.folder = layout.split_folder(root, self.split)
        self.with_people = with_people
        if self.folder.exists() and any(self.folder.iterdir()):
            raise QanetError(
                f"{self.folder} is not empty",
                expected="a folder to be made",
                got="files of another run",
                next_command="remove it, or choose another --output",
            )
        check_room(root, scenes * _BYTES_A_SCENE)
        for name in (IMAGES, CATEGORIES, *((HUMANS, PARTS) if with_people else ())):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> int:
        """Write a scene; returns the id of its image."""
        image_id = len(self._images) + 1
        stem = f"synthetic_{self.split}_{image_id:06d}"
        self._write(f"{IMAGES}/{stem}.jpg", scene.image)
        self._write(f"{CATEGORIES}/{stem}.png", scene.category)
        if self.with_people:
            self._write(f"{HUMANS}/{stem}.png", scene.human)
            deep = int(scene.parts.max(initial=0)) > np.iinfo(np.uint8).max
            self._write(f"{PARTS}/{stem}.png", scene.parts if deep else scene.parts.astype(np.uint8))
            lines = "".join(f"{part} {cls} {human}\n" for part, cls, human in scene.part_table.tolist())
            write_text(self.folder / PARTS / f"{stem}.txt", lines)
        height, width = scene.category.shape
        self._images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes.tolist(), start=1):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": PERSON,
                    "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(np.count_nonzero(scene.human == number)),
                    "segmentation": [],
                    "parsing_id": number,
                }
            )
        return image_id

    def finish(self, detections: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
        """Write the annotation file, the detections and the manifest."""
        name = f"{self.layout.folder}_{self.split}.json"
        document = {
            "info": {"description": "synthetic scenes"},
            "categories": [{"id": PERSON, "name": "person"}],
            "images": self._images,
            "annotations": self._annotations,
        }
        write_text(self.root / "annotations" / name, json.dumps(document))
        write_text(self.root / f"detections_{self.split}.json", json.dumps(detections))
        counts = {"images": len(self._images), "people": len(self._annotations), "detections": len(detections)}
        write_text(self.root / f"synthetic_{self.split}.json", json.dumps({**manifest, **counts}, indent=2) + "\n")

    def _write(self, name: str, pixels: NDArray) -> None:
        import cv2

        parameters = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if name.endswith(".jpg") else []
        whole, data = cv2.imencode(Path(name).suffix, pixels, parameters)
        if not whole:
            raise QanetError(f"{name} could not be encoded", expected="a picture", got=pixels.shape)
        write_bytes(self.folder / name, data.tobytes())


def detections_of(image_id: int, rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Boxes (N, 5) x0 y0 x1 y1 score as COCO results."""
    return [
        {
            "image_id": image_id,
            "category_id": PERSON,
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(score, 4),
        }
        for x0, y0, x1, y1, score in rows.tolist()
    ]


@dataclass(frozen=True)
class Order:
    """The scenes to make."""

    people: Path  # CCP's folder
    format: str
    split: str
    scenes: int
    seed: int
    output: Path
    labels: str | None = None  # None: the format's own
    detector: DetectorStyle = DetectorStyle()

    @property
    def label_set(self) -> LabelSet:
        """The classes that are written."""
        return label_set(self.labels or LAYOUTS[self.format].labels)

    @property
    def style(self) -> SceneStyle:
        """How scenes of the format are drawn."""
        return _SINGLE if self.format in SINGLE_PERSON else SceneStyle()


def make(order: Order, progress: Callable[[], object] | None = None) -> dict[str, Any]:
    """Write the scenes into order.output, in the official layout; the manifest.

    Raises:
        QanetError: an unknown format or split, no people, files that are there already, a full disk.
    """
    if order.format not in LAYOUTS or order.split not in SPLITS or order.scenes < 1:
        raise QanetError(
            "these scenes cannot be made",
            expected=f"{', '.join(LAYOUTS)}; {', '.join(SPLITS)}; scenes >= 1",
            got=(order.format, order.split, order.scenes),
        )
    people = People(order.people, order.split, order.label_set)
    writer = LayoutWriter(
        order.output, LAYOUTS[order.format], order.split, order.scenes, order.format not in SINGLE_PERSON
    )
    boxes: list[dict[str, Any]] = []
    overlaps: list[NDArray[np.float64]] = []  # (N, 2) score and IoU
    used: set[str] = set()
    for number in range(order.scenes):
        scene, rows, ious = _scene(order, people, number)
        boxes += detections_of(writer.add(scene), rows)
        overlaps.append(np.column_stack([rows[:, 4], ious]))
        used |= {*scene.names, scene.background}
        if progress:
            progress()
    manifest = _manifest(order, people, sorted(used), np.concatenate(overlaps))
    writer.finish(boxes, manifest)
    return manifest


def _scene(order: Order, people: People, number: int) -> tuple[Scene, NDArray[np.float64], NDArray[np.float64]]:
    """Scene `number` and its detections; its randomness comes from (seed, split, number) alone."""
    rng = np.random.default_rng((order.seed, SPLITS.index(order.split), number))
    sequence = rng.permutation(len(people))
    background = int(sequence[0])
    guests = _guests(people, sequence[1:] if len(sequence) > 1 else sequence)
    scene = compose(
        lambda: next(guests), people.background(background), people.name(background), order.label_set, order.style, rng
    )
    rows, ious = detect(scene.boxes, scene.visible, scene.category.shape, order.detector, rng)
    return scene, rows, ious


def _guests(people: People, sequence: NDArray[np.int64]) -> Iterator[Cutout]:
    """The people in that order, without empty label maps; from the start again at the end."""
    anybody = True
    while anybody:
        anybody = False
        for index in sequence:
            person = people.cutout(int(index))
            if person is not None:
                anybody = True
                yield person
    raise QanetError("there are no people to paste", expected="label maps with a person", got=f"{len(people)} empty")


def _manifest(order: Order, people: People, used: list[str], overlaps: NDArray[np.float64]) -> dict[str, Any]:
    from qanet.metrics.measures import rank_correlation

    somebody = overlaps[overlaps[:, 1] > order.detector.spurious_iou]
    correlation = rank_correlation(somebody[:, 0], somebody[:, 1]) if len(somebody) > 2 else float("nan")
    return {
        "synthetic": True,
        "what": "people cut out of photographs, pasted into another photograph of the same list",
        "backgrounds": "part of a photograph stretched to the scene and blurred; its person is filled with the street "
        "beside it, mirrored; bystanders that the photographs do not mark stay, as background",
        "format": order.format,
        "labels": order.label_set.name,
        "split": order.split,
        "seed": order.seed,
        "scenes": dataclasses.asdict(order.style),
        "detector": dataclasses.asdict(order.detector),
        "detections_are": "synthetic: true boxes shifted, doubled and missed, and boxes on nobody",
        "score_overlap_rank_correlation": None if np.isnan(correlation) else round(float(correlation), 4),
        "people_from": f"{people.source}.txt",
        "photographs": used,
    }


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(
        prog="python -m qanet.benchmarks.lab.synthetic", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--people", required=True, metavar="CCP_DIR", help="photos/, labels/, train.txt, val.txt")
    parser.add_argument("--format", required=True, choices=tuple(LAYOUTS))
    parser.add_argument("--split", required=True, choices=SPLITS, help="train: people of train.txt; else of val.txt")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", choices=tuple(LABEL_SETS), help="default: the format's own")
    parser.add_argument("--output", required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--json", action="store_true", help="the manifest on stdout")
    args = parser.parse_args(argv)
    order = Order(Path(args.people), args.format, args.split, args.scenes, args.seed, Path(args.output), args.labels)
    from tqdm import tqdm

    with tqdm(total=args.scenes, unit="scene", desc="synthetic", disable=args.json or None) as bar:
        manifest = make(order, bar.update)
    emit(
        args.json,
        manifest,
        f"wrote {args.scenes} synthetic scenes of {len(manifest['photographs'])} photographs to {args.output}\n"
        f"next: qanet check {args.output} --format {args.format} --split {args.split} --labels {manifest['labels']}",
    )
    return 0


if __name__ == "__main__":
    run_module(main)
