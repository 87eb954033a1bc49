"""A folder of images with people's boxes: frames and photographs that a teacher labelled.

Layout: <root>/<split>.json, COCO's: images (id, file_name), annotations (image_id, bbox, and score: how sure the
teacher is; 1 without it). `python -m qanet.runtime.detectors.label` writes it.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import read_image


class LabelledImages:
    """Images with boxes (M, 5): x0 y0 x1 y1 score."""

    def __init__(self, root: Path, split: str):
        path = root / f"{split}.json"
        try:
            document = json.loads(path.read_text())
            self.files = [root / str(image["file_name"]) for image in document["images"]]
            place = {image["id"]: index for index, image in enumerate(document["images"])}
            rows: list[list[list[float]]] = [[] for _ in self.files]
            for entry in document["annotations"]:
                x, y, width, height = (float(v) for v in entry["bbox"])
                rows[place[entry["image_id"]]].append([x, y, x + width, y + height, float(entry.get("score", 1.0))])
        except OSError as error:
            raise QanetError(
                f"no {path.name} in {root}", got=error.strerror,
                next_command="python -m qanet.runtime.detectors.label VIDEO --detector ONNX --output DIR",
            ) from error  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise QanetError(
                f"{path} is not a file of labels", expected="COCO images and annotations", got=error
            ) from error
        if not self.files:
            raise QanetError(f"{path} has no images", expected="one or more", got=0)
        self.boxes: list[NDArray[np.float32]] = [np.array(r, np.float32).reshape(-1, 5) for r in rows]

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR; QanetError for a file that is missing or broken."""
        return read_image(self.files[index])
