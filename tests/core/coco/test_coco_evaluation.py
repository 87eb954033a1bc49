"""Mask AP: equal to pycocotools driven by hand, LVIS's rules on cases small enough to count, mistakes by name."""

import contextlib
import copy
import io
import math
import sys

import numpy as np
import pytest
from coco_cases import annotation, ellipse

from qanet.coco.evaluation import MaskTruth, ap_title
from qanet.errors import QanetError
from qanet.rle import encode

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")


def result(image_id, mask, score, category=1):
    return {"image_id": image_id, "category_id": category, "segmentation": encode(mask), "score": score}


def scenes(count=12, seed=0):
    """Annotations (one in five a crowd) and noisy results of `count` images."""
    rng = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    for image_id in range(count):
        images.append({"id": image_id, "height": 96, "width": 96, "file_name": f"{image_id}.png"})
        for _ in range(rng.integers(0, 4)):
            place, size = rng.uniform(20, 76, 2), rng.uniform(4, 24, 2)
            crowd = int(rng.random() < 0.2)
            category = int(rng.integers(1, 3))
            mask = ellipse(*place, *size)
            kept = {"iscrowd": crowd, "category_id": category}
            annotations.append(annotation(len(annotations) + 1, image_id, mask, **kept))
            for _ in range(rng.integers(0, 3)):
                guess = ellipse(*(place + rng.normal(0, 3, 2)), *(size * rng.uniform(0.8, 1.25, 2)))
                results.append(result(image_id, guess, float(rng.uniform()), category))
    document = {"images": images, "annotations": annotations}
    return {**document, "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]}, results


def plain(document, results):
    """AP, AP 50, AP 75, small, medium, large by pycocotools' own summary."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_pycocotools(seed):
    document, results = scenes(seed=seed)
    untouched = copy.deepcopy((document, results))
    report = MaskTruth(document).average_precision(results)
    assert list(report) == ["ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large"]
    expected = [math.nan if value == -1 else value for value in plain(document, results)]
    np.testing.assert_allclose(list(report.values()), expected, rtol=0, atol=1e-12)
    assert 0.05 < report["ap"] < 0.95
    assert (document, results) == untouched


def test_a_truth_serves_any_number_of_scorings():
    document, results = scenes(seed=4)
    truth = MaskTruth(document)
    first = truth.average_precision(results)
    assert truth.average_precision([{**r, "score": 1 - r["score"]} for r in results]) != first
    np.testing.assert_equal(truth.average_precision(results), first)


def test_an_annotation_of_id_0_is_matched_too():
    mask = ellipse(48, 48, 20, 30)
    document = {"images": [{"id": 1, "height": 96, "width": 96}], "annotations": [annotation(0, 1, mask)]}
    assert MaskTruth(document).average_precision([result(1, mask, 0.5)])["ap"] == pytest.approx(1)


def test_runs_as_a_list_and_boxes_of_another_area_change_nothing():
    mask = ellipse(48, 48, 8, 9)
    document = {"images": [{"id": 1, "height": 96, "width": 96}], "annotations": [annotation(1, 1, mask)]}
    flat = mask.ravel(order="F")
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs = {"size": [96, 96], "counts": np.diff(edges).tolist()}
    given = [{**result(1, mask, 0.5), "segmentation": runs, "bbox": [0, 0, 96, 96]}]
    report = MaskTruth(document).average_precision(given)
    assert report["ap_small"] == pytest.approx(1) and math.isnan(report["ap_large"])


def test_nothing_found_is_an_ap_of_0():
    document, _ = scenes(seed=1)
    truth = MaskTruth(document)
    assert truth.average_precision([])["ap"] == 0 and truth.true_iou([]).shape == (0,)


def test_true_ious_by_hand():
    left, right = np.zeros((2, 96, 96), np.uint8)
    left[:, :40], right[:, 60:] = 1, 1
    crowd = np.ones((96, 96), np.uint8)
    images = [{"id": 1, "height": 96, "width": 96}, {"id": 2, "height": 96, "width": 96}]
    annotations = [annotation(1, 1, left), annotation(2, 1, right), annotation(3, 1, crowd, iscrowd=1)]
    annotations.append(annotation(4, 2, left, category_id=2))
    truth = MaskTruth({"images": images, "annotations": annotations})
    half = left.copy()
    half[48:] = 0
    results = [result(1, half, 0.1), result(2, left, 0.2, 2), result(2, right, 0.3, 2), result(1, right, 0.4, 2)]
    assert truth.true_iou(results).tolist() == [0.5, 1.0, 0.0, 0.0]
    assert truth.true_iou(results[::-1]).tolist() == [0.0, 0.0, 1.0, 0.5]


def lvis(not_exhaustive=(), negative=()):
    """Two images of LVIS's kind: category 1 is in the first; what was looked for in the second is the argument."""
    mask = ellipse(48, 48, 20, 30)
    images = [
        {"id": 1, "height": 96, "width": 96, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {
            "id": 2,
            "height": 96,
            "width": 96,
            "neg_category_ids": list(negative),
            "not_exhaustive_category_ids": list(not_exhaustive),
        },
    ]
    here = annotation(1, 1, mask)
    there = annotation(2, 2, ellipse(20, 20, 9, 9))
    for entry in (here, there):
        del entry["iscrowd"]
    categories = [{"id": 1, "name": "cup", "frequency": "f"}, {"id": 2, "name": "yak", "frequency": "r"}]
    annotations = [here, there] if not_exhaustive else [here]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return document, [result(2, mask, 0.9), result(1, mask, 0.5)]  # a false positive comes first


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        ({}, 1.0),  # nobody looked for category 1 in image 2: the false positive counts for nothing
        ({"negative": [1]}, 0.5),  # somebody did, and there is none
        ({"not_exhaustive": [1]}, 0.5),  # some of them are annotated, one of two found, the false one forgiven
    ],
)
def test_lvis_counts_what_was_looked_for(case, precision):
    document, results = lvis(**case)
    truth = MaskTruth(document)
    report = truth.average_precision(results)
    assert truth.lvis and report["ap_50"] == pytest.approx(precision, abs=0.01)
    assert report["ap_frequent"] == pytest.approx(report["ap"]) and math.isnan(report["ap_rare"])


def test_lvis_takes_the_best_300_of_an_image():
    document, _ = lvis(negative=[1])
    mask = ellipse(48, 48, 20, 30)
    results = [result(2, mask, 0.9) for _ in range(300)] + [result(1, mask, 0.1)]
    assert MaskTruth(document).average_precision(results)["ap"] == pytest.approx(1 / 301)
    crowded = [result(1, np.eye(96), 0.9) for _ in range(300)] + [result(1, mask, 0.1)]
    assert MaskTruth(document).average_precision(crowded)["ap"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "result 1: the annotations have no such image_id .*got 99"),
        ({"category_id": 7}, "result 1: the annotations have no such category_id .expected one of 2, like 1, got 7"),
        ({"segmentation": None}, r"result 1: its mask and its image differ .expected \(96, 96\)"),
        ({"segmentation": encode(np.ones((5, 6)))}, r"got \(5, 6\)"),
        ({"segmentation": [[0, 0, 5, 0, 5, 5]]}, "its mask and its image differ"),
    ],
)
def test_results_of_other_annotations_are_refused(change, message):
    document, results = scenes()
    results[1] |= change
    with pytest.raises(QanetError, match=message):
        MaskTruth(document).average_precision(results)


def test_without_pycocotools_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(QanetError, match="not installed; next: pip install pycocotools"):
        MaskTruth({"images": [], "annotations": []})


def test_titles():
    assert [ap_title(key) for key in ("ap", "ap_50", "ap_rare")] == ["AP", "AP 50", "AP rare"]
