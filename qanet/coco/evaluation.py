"""Mask AP by pycocotools, an optional dependency, and each result's true mask IoU.

COCO: the protocol of its challenge (101 recall points, IoU 0.5 to 0.95, 100 results per image and category). LVIS: the
federated protocol on the same matching: 300 results per image, categories that were not annotated in an image are left
out, and unmatched results of categories that were not annotated exhaustively are ignored (arXiv 1908.03195).
"""

import contextlib
import io
import types
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import Document, is_lvis, run_length_size
from qanet.coco.results import Result
from qanet.errors import QanetError

_COCO_MAX_RESULTS = 100  # per image and category
_LVIS_MAX_RESULTS = 300  # per image
_AREAS = ("small", "medium", "large")
_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


class MaskTruth:
    """Ground truth to evaluate results against, prepared once and used for any number of scorings."""

    def __init__(self, document: Document):
        """Args: document: of `annotations.read_annotation_file`; its annotations are copied, not changed."""
        self._masks, coco, self._eval = _pycocotools()
        self.lvis = is_lvis(document)
        self._images = {image["id"]: image for image in document["images"]}
        found = document.get("categories") or [{"id": i} for i in {a["category_id"] for a in document["annotations"]}]
        self._categories = {category["id"]: category for category in found}
        # Ids from 1 on: pycocotools treats a match with the annotation of id 0 as none. LVIS files have no iscrowd.
        annotations = [
            {**entry, "id": number, "iscrowd": int(entry.get("iscrowd", 0))}
            for number, entry in enumerate(document["annotations"], 1)
        ]
        self._truth = coco()
        self._truth.dataset = {**document, "annotations": annotations, "categories": list(self._categories.values())}
        with contextlib.redirect_stdout(io.StringIO()):
            self._truth.createIndex()
        for entry in annotations:
            entry["segmentation"] = self._truth.annToRLE(entry)
            entry.setdefault("area", float(self._masks.area(entry["segmentation"])))

    def size(self, image_id: Any) -> tuple[int, int] | None:
        """(H, W) of an image; None where the file does not have it."""
        image = self._images.get(image_id)
        return None if image is None else (int(image["height"]), int(image["width"]))

    def check(self, results: Sequence[Result]) -> None:
        """QanetError naming the first result of an unknown image or category, or without a mask of its image's size."""
        for index, result in enumerate(results):
            for key, known in (("image_id", self._images), ("category_id", self._categories)):
                if result[key] not in known:
                    raise QanetError(
                        f"result {index}: the annotations have no such {key}",
                        got=result[key],
                        expected=f"one of {len(known)}, like {next(iter(known), None)}",
                        next_command="give the annotations that these results were made for",
                    )
            size, expected = run_length_size(result.get("segmentation")), self.size(result["image_id"])
            if size != expected:
                raise QanetError(f"result {index}: its mask and its image differ", expected=expected, got=size)

    def average_precision(self, results: Sequence[Result]) -> dict[str, float]:
        """Mask AP as fractions: ap, ap_50, ap_75, ap_small, ap_medium, ap_large; for LVIS ap_rare, _common, _frequent
        as well. nan where there is no ground truth of that kind.

        Args:
            results: with run-length segmentations; checked by `check`.
        """
        self.check(results)
        kept = self._limit(results) if self.lvis else results
        detections = self._detections(kept)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._eval(self._truth, detections, "segm")
            evaluation.params.maxDets = [_LVIS_MAX_RESULTS if self.lvis else _COCO_MAX_RESULTS]
            evaluation.evaluate()
            if self.lvis:
                self._forgive(evaluation.evalImgs)
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0]  # (T thresholds, R recalls, K categories, A areas)
        report = {
            "ap": _mean(precision[..., 0]),
            "ap_50": _mean(precision[0, ..., 0]),
            "ap_75": _mean(precision[5, ..., 0]),
        }
        report |= {f"ap_{name}": _mean(precision[..., place]) for place, name in enumerate(_AREAS, 1)}
        if self.lvis:
            kinds = [self._categories[i].get("frequency") for i in evaluation.params.catIds]
            for letter, name in _FREQUENCIES.items():
                chosen = [place for place, kind in enumerate(kinds) if kind == letter]
                report[f"ap_{name}"] = _mean(precision[:, :, chosen, 0])
        return report

    def true_iou(self, results: Sequence[Result]) -> NDArray[np.float64]:
        """(N,) mask IoU of each result with its best ground truth of the same image and category, crowds apart; 0
        where there is none."""
        self.check(results)
        groups: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        for index, result in enumerate(results):
            groups[result["image_id"], result["category_id"]].append(index)
        truths: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
        for entry in self._truth.dataset["annotations"]:
            if not entry["iscrowd"]:
                truths[entry["image_id"], entry["category_id"]].append(entry["segmentation"])
        best = np.zeros(len(results))
        for key, members in groups.items():
            if truths[key]:
                ours = [self._run_lengths(results[index]) for index in members]
                best[members] = self._masks.iou(ours, truths[key], [0] * len(truths[key])).max(1)
        return best

    def _run_lengths(self, result: Result) -> dict[str, Any]:
        segmentation = result["segmentation"]
        if isinstance(segmentation["counts"], list):
            return self._masks.frPyObjects(segmentation, *segmentation["size"])
        return segmentation

    def _detections(self, results: Sequence[Result]) -> Any:
        """The results as pycocotools indexes them; a result's area is its mask's, not its bbox's."""
        annotations = []
        for number, result in enumerate(results, 1):
            mask = self._run_lengths(result)
            kept = {key: result[key] for key in ("image_id", "category_id", "score")}
            annotations.append(
                {**kept, "id": number, "iscrowd": 0, "segmentation": mask, "area": float(self._masks.area(mask))}
            )
        detections = type(self._truth)()
        detections.dataset = {**self._truth.dataset, "annotations": annotations}
        with contextlib.redirect_stdout(io.StringIO()):
            detections.createIndex()
        return detections

    def _limit(self, results: Sequence[Result]) -> list[Result]:
        """LVIS: the best 300 of each image, of categories that were annotated in it."""
        annotated = {image_id: set(image.get("neg_category_ids", ())) for image_id, image in self._images.items()}
        for entry in self._truth.dataset["annotations"]:
            annotated[entry["image_id"]].add(entry["category_id"])
        by_image: dict[Any, list[Result]] = defaultdict(list)
        for result in results:
            by_image[result["image_id"]].append(result)
        kept = []
        for image_id, found in by_image.items():
            best = sorted(found, key=lambda result: -result["score"])[:_LVIS_MAX_RESULTS]
            kept += [result for result in best if result["category_id"] in annotated[image_id]]
        return kept

    def _forgive(self, per_image: Sequence[dict[str, Any] | None]) -> None:
        """LVIS: ignore unmatched results of a category that was not annotated exhaustively in the image."""
        for entry in per_image:
            if entry is not None:
                loose = self._images[entry["image_id"]].get("not_exhaustive_category_ids", ())
                if entry["category_id"] in loose:
                    entry["dtIgnore"] = entry["dtIgnore"] | (entry["dtMatches"] == 0)


def ap_title(key: str) -> str:
    """A key of `average_precision` as it is printed: ap_50 -> AP 50."""
    return key.replace("ap", "AP", 1).replace("_", " ")


def _pycocotools() -> tuple[types.ModuleType, Any, Any]:
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise QanetError(
            "mask AP is computed by pycocotools, which is not installed", next_command="pip install pycocotools"
        ) from error
    return mask, COCO, COCOeval


def _mean(precision: NDArray[np.float64]) -> float:
    """Mean over what is defined; -1 marks a category without ground truth."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")
