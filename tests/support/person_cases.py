"""What the detector's tests share: drawn people in CCP's layout and as a folder of photographs."""

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


def write_people(root, count=4):
    """A folder of photographs, a source of every kind: a red person of 25x60 pixels in each but without_people."""
    for kind in ("labelled", "partial", "unlabelled", "without_people"):
        folder = root / kind / "drawn"
        (folder / "images").mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            image = np.full((96, 128, 3), 90, np.uint8)
            x = 10 + 20 * number % 80
            if kind != "without_people":
                image[20:80, x : x + 25] = (30, 30, 220)
            cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
            images.append({"id": number + 1, "file_name": f"{number}.png", "height": 96, "width": 128})
            annotations.append({"id": number + 1, "image_id": number + 1, "bbox": [x, 20, 25, 60], "iscrowd": 0})
        if kind in ("labelled", "partial"):
            (folder / "persons.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root
