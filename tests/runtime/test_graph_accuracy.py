"""Accuracy of one graph after another on the same images, as the precision search asks for it."""

import cv2
import numpy as np
import pytest

from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.runtime.evaluate import open_accuracy

pytest.importorskip("openvino")


@pytest.fixture
def data(tmp_path, people):
    """Five drawn frames in CCP's layout; the labels are what the tiny network sees: hair above pants."""
    for name in ("photos", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(5):
        image = people(number)
        raw = np.where(image[..., 0] > 0, 19, np.where(image[..., 1] > 0, 31, 0)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "data" / "photos" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "data" / "labels" / f"{number}.png"), raw)
    return tmp_path / "data"


def test_metrics_of_graphs_on_thinned_images(shared_tiny_bundle, data):
    bundle = open_bundle(shared_tiny_bundle)
    measure, digest = open_accuracy(bundle, data, 3, threads=1)
    got = measure(bundle.graph("fp32"), "fp32")
    assert set(got) == {"miou", "pixel_accuracy", "ap_r", "rank_correlation"}
    assert 0 < got["pixel_accuracy"] <= 100
    assert measure(bundle.graph("fp32"), "fp32")["miou"] == got["miou"]
    assert open_accuracy(bundle, data, 3, threads=1)[1] == digest != open_accuracy(bundle, data, 5, threads=1)[1]


def test_a_folder_without_labels_is_refused(shared_tiny_bundle, tmp_path):
    with pytest.raises(QanetError, match="no data set with labels"):
        open_accuracy(open_bundle(shared_tiny_bundle), tmp_path, 3)
