"""What the detector's tests share: drawn people in CCP's layout, photographs without people, labelled frames."""

import json

import cv2
import numpy as np

RED_ID = 19  # a raw id of CCP's 59


def write_ccp(root, count=6):
    """photos/, labels/, train.txt, val.txt: a red person of 40x80 pixels on grey in each."""
    for name in ("photos", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        image, raw = np.full((100, 80, 3), 120, np.uint8), np.zeros((100, 80), np.uint8)
        image[10:90, 20:60], raw[10:90, 20:60] = (30, 30, 220), RED_ID
        cv2.imwrite(str(root / "photos" / f"p{number}.png"), image)
        cv2.imwrite(str(root / "labels" / f"p{number}.png"), raw)
    names = [f"p{number}" for number in range(count)]
    (root / "train.txt").write_text("\n".join(names[:-1]))
    (root / "val.txt").write_text(names[-1])
    return root


def write_backgrounds(root, count=3):
    """Green and blue photographs, one of them in a folder of its own."""
    (root / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(60, 140, (90, 120, 3), np.uint8)
        image[..., 2] = 40
        cv2.imwrite(str(root / ("more" if number == 0 else "") / f"b{number}.png"), image)
    return root


def write_labelled(root, split="train", count=4, score=0.9):
    """Frames of 96x128 with a red person each, and their boxes."""
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        image = np.full((96, 128, 3), 90, np.uint8)
        x = 10 + 20 * number % 80
        image[20:80, x : x + 25] = (30, 30, 220)
        name = f"{split}/{number}.png"
        cv2.imwrite(str(root / name), image)
        images.append({"id": number + 1, "file_name": name, "height": 96, "width": 128})
        annotations.append({"id": number + 1, "image_id": number + 1, "bbox": [x, 20, 25, 60], "score": score})
    (root / f"{split}.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root
