"""The golden cases of the pixel score, as arguments of any of its forms, and the comparison with what is expected."""

import numpy as np

PIXEL_SCORE_CASES = [
    "p01_single_inside",
    "p02_crowd_360x640",
    "p03_tiny_huge",
    "p04_thr05",
    "p05_two_classes",
    "p06_all_background",
    "p07_uniform",
    "p08_huge_logits",
    "p09_flip_cihp",
    "p10_720p_59",
    "p11_never_wins_flip",
    "p12_float32_noise",
    "p13_outside",
]


def read_case(golden, name):
    """The arguments of pixel_score as a dict, and the case's arrays."""
    with np.load(golden / "pixel_score" / f"{name}.npz") as arrays:
        case = dict(arrays)
    height, width = case["image_hw"].tolist()
    arguments = {
        "logits": case["logits"].astype(np.float32),
        "boxes": case["boxes_xyxy"],
        "image_size": (height, width),
        "threshold": float(case["threshold"]),
    }
    if "logits_flip" in case:
        swapped = case["flip_map"]
        pairs = [(a, int(b)) for a, b in enumerate(swapped) if a < b] if swapped.ndim == 1 else swapped.tolist()
        arguments |= {"flipped_logits": case["logits_flip"].astype(np.float32), "flip_pairs": pairs}
    return arguments, case


def assert_golden(scored, case, atol=1e-5):
    """Equal labels wherever rounding cannot decide, and scores within `atol`."""
    for index, expected in enumerate(case["labels"]):
        sure = case["ambiguous"][index] == 0
        assert np.array_equal(scored.full(index)[sure], expected[sure])
    np.testing.assert_allclose(scored.pixel_scores, case["instance_pixel_scores"], rtol=0, atol=atol)
    np.testing.assert_allclose(scored.part_scores, case["category_pixel_scores"], rtol=0, atol=atol)
