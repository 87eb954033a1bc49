"""Do the kernels compute on this GPU what NumPy defines? Asked once for each GPU, driver and build of the kernels."""

import hashlib
from functools import cache

import numpy as np

from qanet import geometry, quality
from qanet.runtime import kernels as resample
from qanet.runtime import native as library
from qanet.runtime.answers.verdicts import Verdict, recall, remember, verdict_key
from qanet.runtime.cuda.build import KERNELS
from qanet.runtime.cuda.crop import queue_crops
from qanet.runtime.cuda.lane import Lane
from qanet.runtime.cuda.tail import score_people
from qanet.runtime.cuda.tensor import Tensor, fetch

_IMAGE_HW, _CROP_HW, _MAP_HW, _CLASSES = (90, 120), (64, 48), (16, 12), 7
_EXACT, _OPENCV = 1.0, 3.0  # limits of a crop's pixel, in grey levels: against the C++ crops, and against OpenCV's
_SCORE, _LABELS = 1e-4, 1e-3  # limits: of a score, share of labels


def kernels_verdict(lane: Lane) -> Verdict:
    """The verdict on the crop kernel and the kernel tail of a lane's GPU, from the user's cache or asked now.

    Raises:
        QanetError: the kernels cannot be loaded or launched.
    """
    key = verdict_key("kernels", lane.gpu.identity, _sources())
    verdict = recall(key)
    if verdict is None:
        verdict = _ask(lane)
        remember(key, verdict)
    return verdict


@cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(KERNELS.glob("*.cu*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _ask(lane: Lane) -> Verdict:
    """A textured frame, boxes inside, beyond its border and small, and smooth logits: all of it drawn, not random noise
    alone, so that few pixels lie on a tie."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: _IMAGE_HW[0], : _IMAGE_HW[1]]
    waves = 127 + 90 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / np.array([7, 11, 13]))
    image = (waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)
    boxes = np.array([[10, 5, 70, 85], [-20, 30, 60, 110], [50, 40, 62, 56], [0, 0, 120, 90]], np.float32)
    boxes = geometry.crop_boxes(boxes, _CROP_HW)
    coarse = rng.normal(0, 3, (len(boxes), _CLASSES, _MAP_HW[0] // 4, _MAP_HW[1] // 4))
    logits = coarse.repeat(4, 2).repeat(4, 3).astype(np.float32) + rng.normal(0, 0.3, (4, _CLASSES, *_MAP_HW))
    logits = np.ascontiguousarray(logits, np.float32)
    with lane.active("asking the kernels"):
        with Tensor(lane, "proof.crops", (len(boxes), *_CROP_HW, 3), np.uint8) as crops:
            queue_crops(lane, crops.first(len(boxes)), image, boxes)
            cropped = fetch(lane, crops.first(len(boxes)))
        with Tensor(lane, "proof.logits", logits.shape, np.float32) as maps:
            maps.upload(logits)
            with score_people(lane, maps.first(len(boxes)), boxes, _IMAGE_HW, quality.PIXEL_SCORE_THRESHOLD) as scored:
                found = scored.download()
    expected = quality.pixel_score(logits, boxes, _IMAGE_HW)
    exact = resample.crop_people(image, boxes, _CROP_HW)
    pairs = list(zip(expected.labels, found.labels))
    differing = sum(int((a != b).sum()) for a, b in pairs) / max(sum(a.size for a, _ in pairs), 1)
    differences = {
        "crops": (float(np.abs(exact.astype(int) - cropped).max()), _EXACT if library.available() else _OPENCV),
        "pixel_scores": (_worst(expected.pixel_scores, found.pixel_scores), _SCORE),
        "part_scores": (_worst(expected.part_scores, found.part_scores), _SCORE),
        "labels": (differing, _LABELS),
    }
    right = all(value <= limit for value, limit in differences.values())
    return Verdict(right, "NumPy", differences, None, None, 0.0)


def _worst(expected: np.ndarray, found: np.ndarray) -> float:
    error = np.abs(np.asarray(expected, np.float64) - found)
    return float(error.max(initial=0)) if np.isfinite(error).all() else 1e30
