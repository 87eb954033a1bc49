"""Joints and their scores against the official code's numbers, and by hand."""

import json

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.quality import keypoint_score

CASES = ["k01_postprocess"]


def test_every_golden_case_is_tested(golden):
    records = [json.loads(line) for line in (golden / "index.json").read_text().splitlines()]
    assert sorted(r["name"] for r in records if r["kind"] == "keypoint_pixel_score") == CASES


@pytest.mark.parametrize("name", CASES)
def test_keypoints_equal_the_official_code(golden, name):
    with np.load(golden / "keypoint_pixel_score" / f"{name}.npz") as case:
        scored = keypoint_score(case["heatmaps"], case["boxes_xyxy"], float(case["threshold"]))
        np.testing.assert_allclose(scored.points, case["keypoints"][..., :2], rtol=0, atol=1e-3)
        np.testing.assert_allclose(scored.joint_scores, case["keypoints"][..., 2], rtol=0, atol=1e-6)
        np.testing.assert_allclose(scored.pixel_scores, case["keypoint_pixel_scores"], rtol=0, atol=1e-6)


def one_map(cells, shape=(8, 6)):
    """A heat map (1, 1, h, w) of zeros with {(row, column): value}."""
    heatmap = np.zeros((1, 1, *shape), np.float32)
    for (row, column), value in cells.items():
        heatmap[0, 0, row, column] = value
    return heatmap


@pytest.mark.parametrize(
    ("cells", "point"),
    [
        ({(4, 3): 0.9, (4, 4): 0.5}, (3.25, 4)),  # towards the higher neighbour, and not where both are equal
        ({(4, 3): 0.9, (3, 3): 0.5, (4, 2): 0.1}, (2.75, 3.75)),
        ({(4, 1): 0.9, (4, 2): 0.5}, (1, 4)),
        ({(6, 3): 0.9, (5, 3): 0.5}, (3, 5.75)),
        ({(7, 3): 0.9}, (3, 7)),
        ({(4, 5): 0.9, (4, 4): 0.5}, (5, 4)),
    ],
)
def test_a_quarter_of_a_cell_inside_the_border(cells, point):
    scored = keypoint_score(one_map(cells), [[10, 20, 10 + 6 * 2, 20 + 8 * 3]])
    assert scored.points[0, 0].tolist() == [10 + 2 * point[0], 20 + 3 * point[1]]
    assert keypoint_score(one_map(cells), [[10, 20, 22, 44]], refine=False).points[0, 0].tolist() == [
        10 + 2 * round(point[0]),
        20 + 3 * round(point[1]),
    ]


def test_the_score_is_the_mean_of_the_certain_joints():
    heatmaps = np.concatenate([one_map({(4, 3): v}) for v in (0.9, 0.2, 0.19, 0.5)], 1)
    scored = keypoint_score(heatmaps, [[0, 0, 6, 8]])
    assert scored.pixel_scores[0] == pytest.approx((0.9 + 0.2 + 0.5) / 3)
    assert keypoint_score(heatmaps, [[0, 0, 6, 8]], threshold=0.95).pixel_scores[0] == 0


def test_a_map_without_a_positive_value_points_at_the_corner_with_score_zero():
    scored = keypoint_score(-np.ones((1, 2, 8, 6), np.float32), [[10, 20, 16, 28]])
    assert scored.points.tolist() == [[[10, 20], [10, 20]]] and not scored.joint_scores.any()


def test_narrow_boxes_tiny_maps_and_nobody():
    scored = keypoint_score(one_map({(4, 3): 1}), [[5, 6, 5.25, 6.5]], refine=False)
    assert scored.points[0, 0].tolist() == [5 + 3 / 6, 6 + 4 / 8]  # as in a box a pixel wide
    assert keypoint_score(np.ones((1, 3, 1, 1), np.float16), [[0, 0, 4, 4]]).joint_scores.tolist() == [[1, 1, 1]]
    nobody = keypoint_score(np.zeros((0, 17, 8, 6), np.float32), [])
    assert nobody.points.shape == (0, 17, 2) and nobody.pixel_scores.shape == (0,)


MAPS = np.zeros((1, 2, 8, 6), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": MAPS[0]}, r"heatmaps do not fit.*got float32 \(2, 8, 6\)"),
        ({"heatmaps": MAPS[:, :0]}, "heatmaps do not fit"),
        ({"heatmaps": MAPS.astype(bool)}, "got bool"),
        ({"heatmaps": MAPS + np.nan}, "heatmaps are not finite"),
        ({"heatmaps": MAPS[..., :0]}, "empty map"),
        ({"boxes": [[0, 0, 0, 4]]}, "x0 < x1"),
        ({"boxes": []}, "boxes do not fit"),
        ({"threshold": float("nan")}, "threshold is not finite"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(QanetError, match=message):
        keypoint_score(**({"heatmaps": MAPS, "boxes": [[0, 0, 10, 20]]} | change))
