"""A synthetic scene: people painted from far to near over a background, its exact truth, and a detector's boxes.

Detections are true boxes shifted, doubled and missed, and boxes on background. Their scores follow the overlap only
loosely, as a detector's do: that is what a quality score has to mend.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.lab.synthetic_people import Cutout
from qanet.datasets import person_box
from qanet.labels import IGNORE, LabelSet

_FEATHER_SIGMA_PX = 0.8
Rows = NDArray[np.float64]  # (N, 5) x0 y0 x1 y1 score


@dataclass(frozen=True)
class SceneStyle:
    """How scenes are drawn; shares are of the scene's height or of a person's pixels."""

    people: tuple[int, int] = (2, 6)  # per scene, both ends included
    height_px: tuple[int, int] = (600, 800)
    aspect: tuple[float, float] = (1.1, 1.5)  # width / height
    nearest: float = 0.95  # height of a person at depth 1
    farthest: float = 0.4
    horizon: float = 0.45  # where the feet of a person infinitely far away would stand
    visible: float = 0.25  # least share of every person's pixels that must be seen
    over_border: float = 0.2  # share of a person's width that may be cut by the image's side
    tries: int = 8  # places tried for a person, who is left out then
    flip: float = 0.5
    brightness: float = 0.15  # factor 1 +- this, each person's own
    blur_sigma_px: tuple[float, float] = (0.5, 2.5)  # of the background


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its truth.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        category, human: (H, W) uint8 class ids (void 255) and person ids 1..P, far to near.
        parts: (H, W) uint16 part ids; 0 = none, and in void.
        part_table: (L, 3) int64 part id, class, human id.
        boxes: (P, 4) float32 xyxy of each person's visible pixels.
        visible: (P,) share of each person's pixels inside the image that no other person covers.
        names: the P people's photographs.
        background: the background's photograph.
    """

    image: NDArray[np.uint8]
    category: NDArray[np.uint8]
    human: NDArray[np.uint8]
    parts: NDArray[np.uint16]
    part_table: NDArray[np.int64]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float64]
    names: tuple[str, ...]
    background: str


@dataclass(frozen=True, eq=False)
class _Placed:
    """A cut-out at its size in the scene, with its top left corner there."""

    cutout: Cutout
    x: int
    y: int
    depth: float

    def windows(self, hw: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns in the scene, and the same ones in the cut-out."""
        height, width = self.cutout.mask.shape
        y0, y1 = max(self.y, 0), min(self.y + height, hw[0])
        x0, x1 = max(self.x, 0), min(self.x + width, hw[1])
        x1, y1 = max(x0, x1), max(y0, y1)
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - self.y, y1 - self.y), slice(x0 - self.x, x1 - self.x))


def compose(
    draw_person: Callable[[], Cutout],
    background: NDArray[np.uint8],
    background_name: str,
    labels: LabelSet,
    style: SceneStyle,
    rng: np.random.Generator,
) -> Scene:
    """Draw one scene.

    Args:
        draw_person: returns another person at every call.
        background: (h, w, 3) uint8 BGR of any size.
    """
    height = int(rng.integers(style.height_px[0], style.height_px[1] + 1))
    hw = (height, int(height * rng.uniform(*style.aspect)))
    placed: list[_Placed] = []
    for _ in range(int(rng.integers(style.people[0], style.people[1] + 1))):
        person = draw_person()
        for _ in range(style.tries):
            candidate = sorted([*placed, _place(person, hw, labels, style, rng)], key=lambda p: p.depth)
            if visible_shares(candidate, hw).min() >= style.visible:
                placed = candidate
                break
    image = _canvas(background, hw, style, rng)
    category, human = np.zeros(hw, np.uint8), np.zeros(hw, np.uint8)
    for number, one in enumerate(placed, start=1):
        there, here = one.windows(hw)
        _paint(image[there], one, here, 1 + style.brightness * rng.uniform(-1, 1))
        mask, own = one.cutout.mask[here], one.cutout.labels[here]
        category[there][mask] = own[mask]
        # background of the label set (a bag, in CIHP) belongs to no person, though it hides those behind it
        human[there][mask] = np.where(own[mask] == 0, 0, number)
    return _with_truth(image, category, human, placed, visible_shares(placed, hw), background_name)


def visible_shares(placed: list[_Placed], hw: tuple[int, int]) -> NDArray[np.float64]:
    """(P,) share of each person's labelled pixels that is inside the scene and uncovered; far to near."""
    owner = np.zeros(hw, np.int32)
    totals = np.zeros(len(placed))
    for number, one in enumerate(placed, start=1):
        there, here = one.windows(hw)
        labelled = one.cutout.mask & (one.cutout.labels != 0)
        totals[number - 1] = np.count_nonzero(labelled)
        owner[there][one.cutout.mask[here]] = 0
        owner[there][labelled[here]] = number
    seen = np.bincount(owner.ravel(), minlength=len(placed) + 1)[1:]
    return seen / np.maximum(totals, 1)


def _place(
    person: Cutout, hw: tuple[int, int], labels: LabelSet, style: SceneStyle, rng: np.random.Generator
) -> _Placed:
    """A person at a random depth: the nearer, the taller, and the lower the feet."""
    depth = float(rng.uniform())
    size = (style.farthest + (style.nearest - style.farthest) * depth) * hw[0] * rng.uniform(0.93, 1.07)
    scaled = resized(person, size / person.mask.shape[0])
    if rng.random() < style.flip:
        scaled = mirrored(scaled, labels)
    height, width = scaled.mask.shape
    share = (style.farthest + (style.nearest - style.farthest) * depth) / style.nearest
    feet = (style.horizon + (0.985 - style.horizon) * share) * hw[0]
    low, high = -style.over_border * width, hw[1] - (1 - style.over_border) * width
    return _Placed(scaled, int(rng.uniform(low, max(high, low + 1))), int(feet - height), depth)


def resized(person: Cutout, scale: float) -> Cutout:
    """A person at another size: the image averaged or bilinear, the truth nearest."""
    import cv2

    height, width = person.mask.shape
    wh = (max(round(width * scale), 2), max(round(height * scale), 2))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    mask = cv2.resize(person.mask.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST) > 0
    labels = cv2.resize(person.labels, wh, interpolation=cv2.INTER_NEAREST)
    return Cutout(person.name, cv2.resize(person.image, wh, interpolation=how), labels.astype(np.uint8), mask)


def mirrored(person: Cutout, labels: LabelSet) -> Cutout:
    """A person in the mirror, left and right classes swapped."""
    return Cutout(person.name, person.image[:, ::-1], labels.flip_map[person.labels[:, ::-1]], person.mask[:, ::-1])


def _paint(canvas: NDArray[np.uint8], one: _Placed, here: tuple[slice, slice], brightness: float) -> None:
    """Blend a person into a window of the scene, in place; the edge is soft here and nowhere in the truth."""
    import cv2

    alpha = cv2.GaussianBlur(
        one.cutout.mask.astype(np.float32), (0, 0), _FEATHER_SIGMA_PX, borderType=cv2.BORDER_CONSTANT
    )
    alpha = np.clip(2 * alpha - 1, 0, 1)[here][..., None]  # inwards only: outside the mask is the photograph's street
    shown = np.clip(one.cutout.image[here].astype(np.float32) * brightness, 0, 255)
    canvas[:] = (canvas * (1 - alpha) + shown * alpha + 0.5).astype(np.uint8)


def _canvas(
    background: NDArray[np.uint8], hw: tuple[int, int], style: SceneStyle, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A background stretched to the scene: its full width, a lower part of its height, mirrored or not, blurred."""
    import cv2

    height, width = background.shape[:2]
    rows = min(height, round(width * hw[0] / hw[1] * rng.uniform(1.0, 1.4)))
    top = int(rng.uniform(0.6, 1.0) * (height - rows))
    part = background[top : top + rows]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    canvas = cv2.resize(np.ascontiguousarray(part), (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(*style.blur_sigma_px)), np.uint8)


def _with_truth(
    image: NDArray[np.uint8],
    category: NDArray[np.uint8],
    human: NDArray[np.uint8],
    placed: list[_Placed],
    visible: NDArray[np.float64],
    background: str,
) -> Scene:
    """The scene with its parts numbered by person, then by class, and the boxes of what is seen."""
    shown = (human > 0) & (category > 0) & (category != IGNORE)
    codes = np.where(shown, human.astype(np.int32) * 256 + category, 0)
    found = np.flatnonzero(np.bincount(codes.ravel(), minlength=1)[1:]) + 1
    numbers = np.zeros(int(found.max(initial=0)) + 1, np.uint16)
    numbers[found] = np.arange(1, len(found) + 1)
    table = np.column_stack([np.arange(1, len(found) + 1), found % 256, found // 256]).astype(np.int64)
    boxes = [person_box(human == number) for number in range(1, len(placed) + 1)]
    return Scene(
        image,
        category,
        human,
        numbers[codes],
        table,
        np.array(boxes, np.float32).reshape(-1, 4),
        visible,
        tuple(one.cutout.name for one in placed),
        background,
    )


@dataclass(frozen=True)
class DetectorStyle:
    """The synthetic detector's habits; lengths are shares of a box's sides."""

    jitter: float = 0.05  # standard deviation of each edge
    missed: float = 0.05  # probability of a wholly visible person to be missed
    missed_covered: float = 0.4  # the same for a person wholly covered; linear in between
    doubled: float = 0.35  # probability of a second box on a person
    double_jitter: float = 0.15
    spurious: float = 0.8  # mean number of boxes on background per image (Poisson)
    spurious_iou: float = 0.2  # greatest IoU of such a box with a person
    score_offset: float = 0.25  # score = clip(offset + slope * IoU + noise * N(0, 1), 0.05, 1)
    score_slope: float = 0.5
    score_noise: float = 0.2
    spurious_score: tuple[float, float] = (0.45, 0.2)  # mean and standard deviation on background


def detect(
    boxes: NDArray[np.float32],
    visible: NDArray[np.float64],
    hw: tuple[int, int],
    style: DetectorStyle,
    rng: np.random.Generator,
) -> tuple[Rows, NDArray[np.float64]]:
    """Boxes of one scene.

    Args:
        boxes: (P, 4) true boxes.
        visible: (P,) seen share of each person.
        hw: the scene's size in pixels.
    Returns:
        (N, 5) detections by descending score, and (N,) the IoU of each with the nearest true box.
    """
    found: list[NDArray[np.float64]] = []
    for box, share in zip(boxes.astype(np.float64), visible):
        missed = style.missed + (style.missed_covered - style.missed) * (1 - share)
        if rng.random() < missed:
            continue
        found.append(_shifted(box, style.jitter, hw, rng))
        if rng.random() < style.doubled:
            found.append(_shifted(box, style.double_jitter, hw, rng))
    found += _on_background(boxes, hw, style, rng)
    where = np.array(found).reshape(-1, 4)
    ious = box_iou(where, boxes).max(1, initial=0.0)
    scores = style.score_offset + style.score_slope * ious + style.score_noise * rng.standard_normal(len(where))
    mean, spread = style.spurious_score
    spurious = ious <= style.spurious_iou
    scores[spurious] = mean + spread * rng.standard_normal(int(spurious.sum()))
    order = np.argsort(-scores, kind="stable")
    rows = np.column_stack([where, np.clip(scores, 0.05, 1.0)])
    return rows[order], ious[order]


def box_iou(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """(N, M) IoU of xyxy boxes (N, 4) with (M, 4)."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = np.maximum(sides, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return common / (areas[0] + areas[1] - common)


def _shifted(box: NDArray[np.float64], jitter: float, hw: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """Every edge moved on its own, by no more than a third of the side, inside the image."""
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + np.clip(jitter * rng.standard_normal(4), -1 / 3, 1 / 3) * sides
    inside: NDArray = np.clip(moved, 0, np.array([hw[1], hw[0], hw[1], hw[0]]))
    return inside if (inside[2:] - inside[:2] >= 2).all() else box


def _on_background(
    boxes: NDArray[np.float32], hw: tuple[int, int], style: DetectorStyle, rng: np.random.Generator
) -> list[NDArray]:
    """Boxes of a person's shape that hardly overlap one; a crowded scene may have no place for any."""
    found: list[NDArray] = []
    for _ in range(int(rng.poisson(style.spurious))):
        for _ in range(20):
            height = rng.uniform(0.25, 0.9) * hw[0]
            width = height * rng.uniform(0.3, 0.5)
            x, y = rng.uniform(0, hw[1] - width), rng.uniform(0, hw[0] - height)
            box = np.array([x, y, x + width, y + height])
            if box_iou(box[None], boxes).max(initial=0.0) <= style.spurious_iou:
                found.append(box)
                break
    return found
