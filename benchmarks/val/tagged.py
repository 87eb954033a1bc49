"""Accuracy where the tags of a photograph are known: a class that is not among them cannot win.

This is the setting of Clothing Co-Parsing (arXiv 1502.00739), which parses photographs "annotated with tags". It asks
for less than parsing without them, so its numbers are never mixed with those.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage
from qanet.datasets.tags import read_tags, tags_of
from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.runtime.engines.base import Engine, Outputs

ANNOTATION = "annotation"
_NEVER = -1e4  # a logit: within FP16, and its probability is zero beside any other

TagsOf = Callable[[AnnotatedImage], NDArray[np.intp]]


def choose_tags(source: str, labels: LabelSet) -> TagsOf:
    """Image -> its tags: of the annotation itself, or of a JSON file (`qanet.datasets.tags`).

    Raises:
        QanetError: a file that cannot be read; later, an image that it does not name.
    """
    if source == ANNOTATION:
        return lambda scene: tags_of(scene.truth, labels.num_classes)
    tags = read_tags(Path(source), labels)

    def of(scene: AnnotatedImage) -> NDArray[np.intp]:
        if scene.name not in tags:
            raise QanetError(f"{source} has no tags of {scene.name}", expected="every image of the split")
        return tags[scene.name]

    return of


class TaggedEngine:
    """An engine whose logits of classes that are not allowed can win nowhere.

    Args:
        engine: gives "logits" (N, C, h, w).
        labels: the classes; of a left and right pair both are allowed or none, since a mirrored view swaps them.
    """

    def __init__(self, engine: Engine, labels: LabelSet):
        self._engine, self._labels = engine, labels
        self.runtime, self.precision, self.outputs = engine.runtime, engine.precision, engine.outputs
        self._absent = np.zeros(labels.num_classes, bool)

    def allow(self, ids: NDArray[np.intp]) -> None:
        """The classes that may be there, from the next run on."""
        self._absent[:] = True
        self._absent[ids] = False
        for left, right in self._labels.flip_pairs:
            self._absent[[left, right]] &= self._absent[[right, left]]

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """See `Engine.run`."""
        outputs = dict(self._engine.run(crops, box_scores))
        logits = outputs["logits"].copy()
        logits[:, self._absent] = _NEVER
        return {**outputs, "logits": logits}
