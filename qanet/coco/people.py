"""People of a COCO-format data set, one binary mask each: the mask network's training data.

A sample's labels are 1 on the person's own pixels and 0 elsewhere, on other people too: the crop is centred on one
person, and the task is to separate that person from the others. Crowds are left out.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import (
    Document,
    file_name,
    person_category,
    read_annotation_file,
    segmentation_mask,
    usable_people,
)
from qanet.datasets.decoding import decode_photo, require_size
from qanet.datasets.records import AnnotatedImage, DataSet, Sample
from qanet.errors import QanetError
from qanet.labels import PERSON1
from qanet.metrics.records import Truth

_ANNOTATION_NAMES = ("instances_{}2017", "instances_{}2014", "instances_{}", "person_keypoints_{}2017", "{}")
_IMAGE_FOLDERS = ("{}2017", "{}2014", "{}", "images/{}2017", "images/{}", "images")
_MAX_HUMANS = 255  # a truth map has 8 bits


class CocoPeople(DataSet):
    """The people of an annotation file; indexable by person, decodes on access."""

    def __init__(self, annotations: str | Path, images: str | Path):
        """
        Args:
            annotations: the JSON file; polygons or run lengths.
            images: the folder its `file_name`s are in.
        Raises:
            QanetError: a broken file, one without a person, or an image that is missing.
        """
        self.path, self.folder, self.label_set = Path(annotations), Path(images), PERSON1
        document = read_annotation_file(self.path)
        self.category = person_category(document, self.path)
        self._images: list[Document] = sorted(document["images"], key=lambda image: str(image["id"]).zfill(20))
        self.image_ids = [image["id"] for image in self._images]
        self.image_names = [Path(file_name(image)).stem for image in self._images]
        place = {image_id: index for index, image_id in enumerate(self.image_ids)}
        people = usable_people(document, self.category)
        self._people = sorted(people, key=lambda entry: (place[entry["image_id"]], entry["id"]))
        self._image_of = [place[entry["image_id"]] for entry in self._people]
        self._people_of: list[list[int]] = [[] for _ in self._images]
        for person, image_index in enumerate(self._image_of):
            self._people_of[image_index].append(person)
        self.names = [f"{self.image_names[i]}#{e['id']}" for i, e in zip(self._image_of, self._people)]
        if not self._people:
            raise QanetError(f"{self.path} has no person to use", expected="annotations without crowds", got=0)
        missing = [name for i in sorted(set(self._image_of)) if not (name := self.image_path(i)).is_file()]
        if missing:
            got = f"{len(missing)} missing, the first is {missing[0].name}"
            raise QanetError(f"{self.folder} lacks images of {self.path.name}", expected="every image", got=got)

    def image_path(self, index: int) -> Path:
        """The file of the image of that index."""
        return self.folder / file_name(self._images[index])

    def people_of(self, index: int) -> list[int]:
        """The people of the image of that index."""
        return self._people_of[index]

    def box(self, person: int) -> NDArray[np.float32]:
        """(4,) float32 xyxy pixels, as annotated."""
        x, y, width, height = self._people[person]["bbox"]
        return np.array([x, y, x + width, y + height], np.float32)

    def mask(self, person: int) -> NDArray[np.uint8]:
        """(H, W) uint8 of 0 and 1, the same pixels that pycocotools evaluates against."""
        entry = self._people[person]
        try:
            return segmentation_mask(entry["segmentation"], self._hw(self._image_of[person]))
        except QanetError as error:
            raise QanetError(f"{self.path}: annotation {entry['id']}: {error.line()}") from error

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.names[index], self._decode(self._image_of[index]), self.mask(index), self.box(index))

    def image(self, index: int) -> AnnotatedImage:
        """An image with all its people; where masks overlap, the later annotation is on top."""
        people = self.people_of(index)[:_MAX_HUMANS]
        human = np.zeros(self._hw(index), np.uint8)
        for number, person in enumerate(people, 1):
            human[self.mask(person) > 0] = number
        boxes = np.array([self.box(person) for person in people], np.float32).reshape(-1, 4)
        truth = Truth((human > 0).astype(np.uint8), human)
        image = self._decode(index)
        return AnnotatedImage(
            self.image_names[index], self.image_ids[index], image, truth, boxes, np.ones(len(boxes), np.float32)
        )

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(P, 2) pixels of background and person, by the annotated areas: nothing is decoded."""
        height, width = self._hw(index)
        areas = [self._people[person].get("area", height * width // 2) for person in self.people_of(index)]
        pixels = np.array(areas, np.float64).reshape(-1).astype(np.int64)
        return np.stack([height * width - pixels, pixels], axis=1)

    def _hw(self, index: int) -> tuple[int, int]:
        return int(self._images[index]["height"]), int(self._images[index]["width"])

    def _decode(self, index: int) -> NDArray[np.uint8]:
        image = decode_photo(self.image_path(index), self._hw(index))
        require_size(f"{self.image_path(index)} and its annotation", self._hw(index), image.shape[:2])
        return image


def open_coco_people(root: str | Path, split: str = "train") -> CocoPeople:
    """The people of a data set in COCO's layout: annotations/instances_<split>2017.json and <split>2017/ (or 2014, or
    without a year; images/ may come between).

    Raises:
        QanetError: no such layout, or what `CocoPeople` raises.
    """
    folder = Path(root)
    annotations, images = _find(folder, split)
    if annotations is None or images is None:
        lacks = "annotations" if annotations is None else "images"
        raise QanetError(
            f"no {lacks} of split {split!r} in {folder}",
            next_command="qanet train person-mask-lite0 --data COCO_DIR",
            expected=f"annotations/instances_{split}2017.json and {split}2017/, or without the year",
            got=sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else "no folder",
        )
    return CocoPeople(annotations, images)


def open_train_and_val(root: str | Path) -> tuple[CocoPeople, CocoPeople | None]:
    """The people to train on, and those to validate on where the data set has annotations of a val split."""
    val = open_coco_people(root, "val") if _find(Path(root), "val")[0] else None
    return open_coco_people(root, "train"), val


def _find(root: Path, split: str) -> tuple[Path | None, Path | None]:
    """The annotation file and the image folder of a split, each None where there is none."""
    files = [root / "annotations" / f"{name.format(split)}.json" for name in _ANNOTATION_NAMES]
    folders = [root / name.format(split) for name in _IMAGE_FOLDERS]
    return next((path for path in files if path.is_file()), None), next((p for p in folders if p.is_dir()), None)
