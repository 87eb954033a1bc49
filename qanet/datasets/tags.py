"""Tags: which classes a photograph may show, known without looking at its pixels."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.metrics.records import Truth

Tags = Mapping[str, NDArray[np.intp]]  # photograph -> its class ids, ascending, background among them


def read_tags(path: Path, labels: LabelSet) -> Tags:
    """The tags of a JSON file, `{"1005": [0, 19, 41], ...}`: class ids of `labels` by photograph.

    Raises:
        QanetError: not a JSON object of photographs with lists of class ids.
    """
    try:
        document = {str(name): {0, *map(int, ids)} for name, ids in json.loads(path.read_text()).items()}
        if any(not 0 <= i < labels.num_classes for ids in document.values() for i in ids):
            raise ValueError(f"class ids are 0 to {labels.num_classes - 1}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        expected = '{"1005": [0, 19, 41], ...}: class ids by photograph'
        raise QanetError(f"{path} cannot be read as tags", expected=expected, got=error) from error
    return {name: np.array(sorted(ids), np.intp) for name, ids in document.items()}


def tags_of(truth: Truth, num_classes: int) -> NDArray[np.intp]:
    """The class ids that an annotation shows, ascending, background among them: tags derived from the answer."""
    shown = np.bincount(truth.category.ravel(), minlength=256)[:num_classes] > 0
    shown[0] = True
    return np.flatnonzero(shown)
