"""The accuracy of every variant that may be timed, through the engine that is timed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qanet.benchmarks.accuracy.intervals import ResampledEvaluator
from qanet.benchmarks.targets.variants import Variant
from qanet.datasets import DataSet, default_split, open_dataset
from qanet.labels import LabelSet
from qanet.runtime.backends.base import Engine
from qanet.runtime.evaluate import evaluate, is_synthetic, plain
from qanet.runtime.parser import Parser


@dataclass(frozen=True)
class Data:
    """A data set and what it is called."""

    images: DataSet
    root: Path
    split: str | None  # None: taken whole

    @property
    def name(self) -> str:
        """Folder and split."""
        return " ".join([self.root.resolve().name, *([self.split] if self.split else [])])


def open_data(path: str, data_format: str, split: str | None, labels: LabelSet) -> Data:
    """The data set of a folder.

    Raises:
        QanetError: no such data, or a folder of another kind.
    """
    chosen = split or default_split(path, data_format)
    return Data(open_dataset(path, data_format, labels, chosen), Path(path), chosen)


def measure_accuracies(
    variants: Sequence[Variant],
    engines: Mapping[str, Engine],
    data: Data,
    protocol: str,
    limit: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Label -> data, images, protocol, boxes, note, and values: metric -> value with its interval over the images.

    Args:
        limit: take the first so many images; None: all.
        progress: called with a line before each variant.
    Raises:
        QanetError: data and model have different classes, or a file of the data set is broken.
    """
    found = {}
    for variant in variants:
        if variant.label not in engines:
            continue
        images = min(len(data.images.image_names), limit or len(data.images.image_names))
        progress(f"accuracy of {variant.label} on {images} images")
        bundle = variant.bundle
        evaluator = ResampledEvaluator(bundle.labels.num_classes, protocol, bundle.qam_weights)
        parser = Parser(bundle, engines[variant.label], variant.tail)
        some = _Some(data.images, limit)
        report = evaluate(parser, some, protocol, evaluator=evaluator)  # type: ignore[arg-type]
        synthetic = is_synthetic(data.root)
        note = f"{data.name}, {report['images']} images, ground-truth boxes, protocol {protocol}, measured here"
        found[variant.label] = {
            "data": data.name,
            "images": report["images"],
            "persons": report["persons"],
            "protocol": protocol,
            "boxes": "ground truth",
            "synthetic": synthetic,
            "note": note + (", SYNTHETIC scenes" if synthetic else ""),
            "values": plain(evaluator.intervals()),
        }
    return found


class _Some:
    """The first images of a data set, as a data set."""

    def __init__(self, data: DataSet, limit: int | None):
        self._data, self._limit = data, limit
        self.label_set = data.label_set

    def images(self, detected: Any = None) -> Iterator[Any]:
        return islice(self._data.images(detected), self._limit)
