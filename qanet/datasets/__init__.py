"""Data sets of parsed people: one interface for the official layouts, CCP's and CelebAMask's.

    from qanet.datasets import open_dataset
    data = open_dataset("CIHP", "cihp", split="train")
    data[0]                                        # a person: Sample(name, image, labels, box)
    for scene in data.images(): ...                # an image: its pixels, its exact truth, its boxes

Nothing is decoded before it is asked for.
"""

from qanet.datasets.detections import DetectedBoxes, read_detections
from qanet.datasets.formats import DATA_FORMATS, default_split, open_dataset, splits_of
from qanet.datasets.official import OfficialFolder
from qanet.datasets.photo_folder import PhotoFolder
from qanet.datasets.records import AnnotatedImage, DataSet, Sample, person_box

__all__ = [
    "DATA_FORMATS",
    "AnnotatedImage",
    "DataSet",
    "DetectedBoxes",
    "OfficialFolder",
    "PhotoFolder",
    "Sample",
    "default_split",
    "open_dataset",
    "person_box",
    "read_detections",
    "splits_of",
]
