"""Scenes -> files in the official layout, and the annotation file of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.annotations import PERSON
from qanet.datasets.official import CATEGORIES, HUMANS, IMAGES, PARTS, Layout
from qanet.errors import QanetError
from qanet.files import check_room, write_bytes, write_text
from qanet.train.data.synthetic.scene import Scene

_JPEG_QUALITY = 95
_BYTES_A_SCENE = 2**20


class LayoutWriter:
    """Writes the scenes of one split; `with_people` writes Human_ids and Instance_ids too."""

    def __init__(self, root: Path, layout: Layout, split: str, scenes: int, with_people: bool):
        self.root, self.layout, self.split = root, layout, layout.split(split)
        self.folder = layout.split_folder(root, self.split)
        self.with_people = with_people
        if self.folder.exists() and any(self.folder.iterdir()):
            raise QanetError(
                f"{self.folder} is not empty",
                expected="a folder to be made",
                got="files of another run",
                next_command="remove it, or choose another --output",
            )
        check_room(root, scenes * _BYTES_A_SCENE)
        for name in (IMAGES, CATEGORIES, *((HUMANS, PARTS) if with_people else ())):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> int:
        """Write a scene; the id of its image."""
        image_id = len(self._images) + 1
        stem = f"synthetic_{self.split}_{image_id:06d}"
        self._write(f"{IMAGES}/{stem}.jpg", scene.image)
        self._write(f"{CATEGORIES}/{stem}.png", scene.category)
        if self.with_people:
            self._write(f"{HUMANS}/{stem}.png", scene.human)
            deep = int(scene.parts.max(initial=0)) > np.iinfo(np.uint8).max
            self._write(f"{PARTS}/{stem}.png", scene.parts if deep else scene.parts.astype(np.uint8))
            lines = "".join(f"{part} {cls} {human}\n" for part, cls, human in scene.part_table.tolist())
            write_text(self.folder / PARTS / f"{stem}.txt", lines)
        height, width = scene.category.shape
        self._images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes.tolist(), start=1):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": PERSON,
                    "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(np.count_nonzero(scene.human == number)),
                    "segmentation": [],
                    "parsing_id": number,
                }
            )
        return image_id

    def finish(self, detections: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
        """Write the annotation file, the detections and the manifest."""
        name = f"{self.layout.folder}_{self.split}.json"
        document = {
            "info": {"description": "synthetic scenes"},
            "categories": [{"id": PERSON, "name": "person"}],
            "images": self._images,
            "annotations": self._annotations,
        }
        write_text(self.root / "annotations" / name, json.dumps(document))
        write_text(self.root / f"detections_{self.split}.json", json.dumps(detections))
        counts = {"images": len(self._images), "people": len(self._annotations), "detections": len(detections)}
        write_text(self.root / f"synthetic_{self.split}.json", json.dumps({**manifest, **counts}, indent=2) + "\n")

    def _write(self, name: str, pixels: NDArray) -> None:
        import cv2

        parameters = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if name.endswith(".jpg") else []
        whole, data = cv2.imencode(Path(name).suffix, pixels, parameters)
        if not whole:
            raise QanetError(f"{name} could not be encoded", expected="a picture", got=pixels.shape)
        write_bytes(self.folder / name, data.tobytes())


def detections_of(image_id: int, rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Boxes (N, 5) x0 y0 x1 y1 score as COCO results."""
    return [
        {
            "image_id": image_id,
            "category_id": PERSON,
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(score, 4),
        }
        for x0, y0, x1, y1, score in rows.tolist()
    ]
