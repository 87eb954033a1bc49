"""Make a split of synthetic scenes: draw, write, detect, and tell in a manifest how."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.official import LAYOUTS
from qanet.errors import QanetError
from qanet.labels import LabelSet, label_set
from qanet.train.data.synthetic.cutouts import Cutout, People
from qanet.train.data.synthetic.detector import DetectorStyle, detect
from qanet.train.data.synthetic.scene import Scene, SceneStyle, compose
from qanet.train.data.synthetic.writer import LayoutWriter, detections_of

SPLITS = ("train", "val", "test")
SINGLE_PERSON = ("lip", "atr")  # one person an image, no Human_ids, no Instance_ids
_SINGLE = SceneStyle(people=(1, 1), height_px=(400, 700), aspect=(0.5, 0.9), farthest=0.75, horizon=0.8)


@dataclass(frozen=True)
class Order:
    """What is to be made."""

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
    """The people in that order, without those whom nobody marked; again from the start when they run out."""
    anybody = True
    while anybody:
        anybody = False
        for index in sequence:
            person = people.cutout(int(index))
            if person is not None:
                anybody = True
                yield person
    raise QanetError(
        "there are no people to paste", expected="label maps that show somebody", got=f"{len(people)} empty"
    )


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
