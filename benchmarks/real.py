"""`qanet val --suite real`: a model and a detector on photographs whose truth other people made.

Three kinds of folders, each recognised by what it holds:

    persons.json, images/          boxes of people (COCO's form; crowds do not count): the detector alone
    Category_ids/, Images/         CIHP's 20 classes without people's numbers: the whole pipeline, in GROUPS
    val.txt, labels/, photos/      Clothing Co-Parsing: the parser at the true boxes, in the model's classes

Intervals are of 95%, over photographs drawn with replacement.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.schema import Interval
from qanet.bundle import Bundle
from qanet.coco.annotations import read_people_boxes
from qanet.datasets import open_dataset
from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, read_image
from qanet.labels import CIHP20, IGNORE, LabelSet
from qanet.metrics.detection import DetectedImage, at_threshold, average_precision
from qanet.metrics.measures import calibration_error, confusion, rank_correlation, reliability
from qanet.results import Person
from qanet.runtime.detectors.base import Detections, Detector
from qanet.runtime.detectors.open import SCORE_THRESHOLD, OnnxDetector, PersonDetector, names_a_bundle
from qanet.runtime.parser import Parser

LEAST_SCORE = 0.03  # of the boxes that are ranked for average precision
WORST = 10
_IN_TRUTH = 0.1  # share of a parsed person's pixels from which the truth knows of the person
ROUNDS = 1000  # of the bootstrap
LOOSE_IOU = 0.3  # beside 0.5: some truth has loose boxes
GROUPS = ("background", "hat", "hair", "glasses", "upper-clothes", "skirt", "pants", "dress", "shoes", "skin", "scarf")
_ALIKE = {  # other names of the groups, in CIHP and in the project's label sets
    "sunglasses": "glasses",
    "coat": "upper-clothes",
    "belt": "pants",
    **dict.fromkeys(("left-shoe", "right-shoe"), "shoes"),
    **dict.fromkeys(("torso-skin", "face", "left-arm", "right-arm", "left-leg", "right-leg"), "skin"),
}

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class DetectionScores:
    """A detector on one folder of boxed photographs; recall and precision at its usual threshold and IoU 0.5."""

    data: str
    photographs: int
    people: int
    ap50: Interval
    ap30: Interval
    recall: Interval
    precision: Interval


@dataclass(frozen=True, eq=False)
class JudgedPerson:
    """A parsed person beside the truth: pictures (h, w, 3) and label maps (h, w) of the box.

    Attributes:
        true_miou: mean IoU of the classes that truth or parsing has in the box, background included.
    """

    photo: str
    true_miou: float
    quality: float
    expected_miou: float | None
    image: NDArray[np.uint8]
    truth: Labels
    parsed: Labels


@dataclass(frozen=True, eq=False)
class ParsingScores:
    """A parser on one folder.

    Attributes:
        boxes: "detector" or "truth".
        people: parsed ones whom the truth shows.
        without_truth: parsed ones on whose pixels the truth has hardly anybody: false, or left out of the truth.
        classes: name -> IoU, of the classes that the truth has.
        rank_correlation, ece_q, ece_expected: of people's Q and expected mIoU with `JudgedPerson.true_miou`; None
            where there is no quality map.
        reliability: score's name -> (10, 3), see `qanet.metrics.measures.reliability`.
        worst: the people of least `true_miou`, the worst first.
    """

    data: str
    boxes: str
    photographs: int
    people: int
    without_truth: int
    miou: Interval
    person_iou: Interval
    pixel_accuracy: Interval
    classes: dict[str, float]
    rank_correlation: float
    ece_q: float
    ece_expected: float | None
    reliability: dict[str, NDArray[np.float64]]
    worst: list[JudgedPerson]


@dataclass(frozen=True, eq=False)
class RealReport:
    """What `judge_real` found, and with what."""

    model: str
    precision: str
    runtime: str
    detector: str
    detection: list[DetectionScores] = field(default_factory=list)
    parsing: list[ParsingScores] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without pictures."""
        document = dataclasses.asdict(dataclasses.replace(self, parsing=[]))
        rows = [dataclasses.asdict(dataclasses.replace(one, worst=[])) for one in self.parsing]
        for row, one in zip(rows, self.parsing):
            row["worst"] = [
                {"photo": p.photo, "true_miou": p.true_miou, "quality": p.quality, "expected_miou": p.expected_miou}
                for p in one.worst
            ]
        return {**document, "parsing": rows}


def judge_real(
    parser: Parser,
    detector: Detector,
    ranking: Detector,
    folders: Sequence[Path],
    progress: Callable[[str], None] = lambda what: None,
) -> RealReport:
    """Judge a parser and a detector on every folder of truth at or below the given ones.

    Args:
        detector: gives the people of the whole pipeline; its score threshold is that of recall and precision.
        ranking: the same detector with boxes from LEAST_SCORE on, for average precision; see `open_for_ranking`.
        progress: called with the name of each photograph.
    Raises:
        QanetError: no folder of truth, or a broken one.
    """
    report = RealReport(parser.bundle.name, parser.engine.precision, parser.engine.runtime, detector.name)
    for folder in folders:
        found = list(_truths(folder))
        if not found:
            raise QanetError(
                f"no truth in {folder}",
                expected="persons.json, Category_ids/ or val.txt there or below",
                got="none",
                next_command="qanet val --help",
            )
        for kind, root in found:
            if kind == "boxes":
                report.detection.append(judge_boxes(ranking, root, progress))
            elif kind == "cihp":
                report.parsing.append(judge_parsing(parser, detector, cihp_scenes(root), root.name, GROUPS, progress))
            else:
                names = parser.bundle.labels.classes
                scenes = fashion_scenes(root, parser.bundle)
                report.parsing.append(judge_parsing(parser, None, scenes, f"{root.name} val", names, progress))
    return report


def _truths(folder: Path) -> Iterator[tuple[str, Path]]:
    for root in (folder, *sorted(p for p in folder.rglob("*") if p.is_dir())):
        if (root / "persons.json").is_file():
            yield "boxes", root
        elif (root / "Category_ids").is_dir():
            yield "cihp", root
        elif (root / "val.txt").is_file() and (root / "labels").is_dir():
            yield "fashion", root


def open_for_ranking(name: str, precision: str, threads: int | None, least: float = LEAST_SCORE) -> Detector:
    """A bundle or an ONNX file as a detector on the CPU that gives boxes of `least` and more."""
    if names_a_bundle(name):
        return PersonDetector(name, least, "cpu", precision, threads)
    return OnnxDetector(Path(name), least, threads)


def read_truth(folder: Path) -> dict[Path, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Boxes (M, 4) of people and (K, 4) of crowds of every photograph of a folder.

    Raises:
        QanetError: no persons.json, or one that cannot be read.
    """
    return {
        folder / "images" / photo.file_name: (photo.boxes[~photo.crowds], photo.boxes[photo.crowds])
        for photo in read_people_boxes(folder / "persons.json")
    }


def judge_boxes(detector: Detector, folder: Path, progress: Callable[[str], None]) -> DetectionScores:
    """A detector on the boxed photographs of a folder."""
    images = []
    for number, (file, (people, crowds)) in enumerate(read_truth(folder).items()):
        found = detector.detect(read_image(file), number)
        images.append(DetectedImage(found.boxes, found.scores, people, areas=crowds))
        progress(file.name)
    measures: list[Callable[[list[DetectedImage]], float]] = [
        average_precision,
        lambda chosen: average_precision(chosen, LOOSE_IOU),
        lambda chosen: at_threshold(chosen, SCORE_THRESHOLD)[0],
        lambda chosen: at_threshold(chosen, SCORE_THRESHOLD)[1],
    ]
    picks = _picks(len(images), 200)
    intervals = [
        _interval(measure(images), [measure([images[k] for k in pick]) for pick in picks]) for measure in measures
    ]
    return DetectionScores(folder.name, len(images), sum(len(i.true) for i in images), *intervals)


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph, its truth (H, W) in the groups that are judged, IGNORE where unsure, and perhaps true boxes."""

    name: str
    image: NDArray[np.uint8]
    truth: Labels
    boxes: NDArray[np.float32] | None


def grouped(classes: Sequence[str], missing: int) -> Labels:
    """(256,) class id -> index in GROUPS; `missing` for a class that is in none."""
    table = np.full(256, missing, np.uint8)
    for index, name in enumerate(classes):
        known = _ALIKE.get(name, name)
        if known in GROUPS:
            table[index] = GROUPS.index(known)
    return table


def cihp_scenes(folder: Path) -> Iterator[Scene]:
    """Photographs with CIHP's classes, in GROUPS; gloves and socks are left out."""
    import cv2

    table = grouped(CIHP20.classes, IGNORE)
    for path in sorted(p for p in (folder / "Images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        truth = cv2.imread(str(folder / "Category_ids" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        if truth is None:
            raise QanetError(f"{path.name} has no truth", expected=f"Category_ids/{path.stem}.png", got="none")
        yield Scene(path.name, read_image(path), table[truth[..., 0] if truth.ndim == 3 else truth], None)


def fashion_scenes(folder: Path, bundle: Bundle) -> Iterator[Scene]:
    """The val split of a CCP folder in the bundle's classes, with true boxes."""
    data = open_dataset(folder, "ccp", bundle.labels, "val")
    for scene in data.images():
        yield Scene(scene.name, scene.image, scene.truth.category, scene.boxes)


def judge_parsing(
    parser: Parser,
    detector: Detector | None,
    scenes: Iterator[Scene],
    name: str,
    classes: Sequence[str],
    progress: Callable[[str], None],
) -> ParsingScores:
    """A parser on scenes, with the people of a detector; without one, at the scenes' own boxes."""
    tables, rows, worst, without_truth = [], [], list[JudgedPerson](), 0
    table = _own_table(parser.bundle.labels, classes)
    for scene in scenes:
        found = detector.detect(scene.image, scene.name) if detector else None
        if found is None:
            assert scene.boxes is not None
            found = Detections(scene.boxes, np.ones(len(scene.boxes), np.float32))
        people = parser.parse(scene.image, found)
        parsed = table[people.labels]
        tables.append(confusion(scene.truth, parsed, len(classes)))
        shown = [person for person in people if _is_in_truth(scene, person)]
        without_truth += len(people) - len(shown)
        judged = [_judge_person(scene, person, parsed, len(classes)) for person in shown]
        rows += [(p.quality, np.nan if p.expected_miou is None else p.expected_miou, p.true_miou) for p in judged]
        worst = sorted([*worst, *judged], key=lambda p: p.true_miou)[:WORST]
        progress(scene.name)
    counts = np.array(tables, np.float64).reshape(len(tables), -1)
    drawn = np.stack([np.bincount(pick, minlength=len(counts)) for pick in _picks(len(counts), ROUNDS)]) @ counts
    every = [_map_scores(one.reshape(len(classes), -1)) for one in (counts.sum(0), *drawn)]
    miou, person_iou, accuracy = (_interval(v[0], v[1:]) for v in np.array([scores[:3] for scores in every]).T)
    scores = np.array(rows, np.float64).reshape(-1, 3)
    charts = {what: reliability(scores[:, k], scores[:, 2]) for k, what in enumerate(("Q", "expected mIoU"))}
    return ParsingScores(
        data=name,
        boxes="detector" if detector else "truth",
        photographs=len(tables),
        people=len(rows),
        without_truth=without_truth,
        miou=miou,
        person_iou=person_iou,
        pixel_accuracy=accuracy,
        classes={c: float(v) for c, v in zip(classes, _class_iou(counts.sum(0).reshape(len(classes), -1))) if v == v},
        rank_correlation=rank_correlation(scores[:, 0], scores[:, 2]),
        ece_q=calibration_error(charts["Q"]),
        ece_expected=calibration_error(charts["expected mIoU"]) if charts["expected mIoU"][:, 0].any() else None,
        reliability=charts,
        worst=worst,
    )


def _own_table(labels: LabelSet, classes: Sequence[str]) -> Labels:
    return np.arange(256, dtype=np.uint8) if tuple(classes) == tuple(labels.classes) else grouped(labels.classes, 0)


def _is_in_truth(scene: Scene, person: Person) -> bool:
    """Whether the truth has anybody on a share of the person's pixels."""
    x0, y0, x1, y1 = person.roi
    truth = scene.truth[y0:y1, x0:x1][person.labels > 0]
    return bool(truth.size and ((truth != 0) & (truth != IGNORE)).mean() >= _IN_TRUTH)


def _judge_person(scene: Scene, person: Person, parsed: Labels, classes: int) -> JudgedPerson:
    """A person by the pixels of the box, other people's among them: such truth does not say whose a pixel is."""
    height, width = scene.truth.shape
    x0, y0 = (max(0, int(v)) for v in person.box[:2])
    box = (
        slice(y0, max(y0 + 1, min(height, int(np.ceil(person.box[3]))))),
        slice(x0, max(x0 + 1, int(np.ceil(person.box[2])))),
    )
    truth, mine = scene.truth[box], parsed[box]
    counts = confusion(truth, mine, classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou = float((counts.diagonal()[union > 0] / union[union > 0]).mean()) if union.any() else float("nan")
    return JudgedPerson(scene.name, iou, person.quality, person.expected_miou, scene.image[box].copy(), truth, mine)


def _class_iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) IoU; nan for a class that the truth lacks."""
    hits, true = counts.diagonal(), counts.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(true > 0, hits / (true + counts.sum(0) - hits), np.nan)


def _map_scores(counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """mIoU of the classes of the truth, IoU of any class against background, pixel accuracy."""
    total = counts.sum()
    person = counts[1:, 1:].sum() / max(total - counts[0, 0], 1)
    return float(np.nanmean(_class_iou(counts))), float(person), float(counts.trace() / max(total, 1))


def _picks(count: int, rounds: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (rounds, count))


def _interval(value: float, draws: Any) -> Interval:
    low, high = np.nanpercentile(draws, (2.5, 97.5)) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
