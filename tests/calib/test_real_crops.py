"""Calibration on photographs: crops as the runtime makes them, time, memory, and agreement with FP32."""

import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from qanet.calib.quantize import quantise
from qanet.calib.ranges import METHODS
from qanet.calib.scales import find_scales
from qanet.datasets import PhotoFolder
from qanet.geometry import crop_boxes, crop_people
from qanet.labels import CCP13

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
CROP_HW = (96, 72)
SHARED = Path(os.environ.get("QANET_SHARED", Path(__file__).resolve().parents[3] / "shared"))


@pytest.fixture(scope="module")
def photographs():
    """uint8 (16, 96, 72, 3) BGR crops of CCP's validation photographs."""
    folder = SHARED / "data" / "ccp"
    if not folder.is_dir():
        pytest.skip(f"no CCP photographs at {folder}: set QANET_SHARED to the folder that holds data/ccp")
    samples = PhotoFolder(folder, CCP13, "val")
    chosen = [samples[i] for i in range(16)]
    return np.concatenate([crop_people(s.image, crop_boxes(s.box[None], CROP_HW), CROP_HW) for s in chosen])


@pytest.mark.parametrize("method", METHODS)
def test_int8_labels_agree_with_fp32_on_photographs(photographs, small_graph, method):
    model = small_graph(*CROP_HW).SerializeToString()
    start = time.monotonic()
    scales, _ = find_scales(model, [photographs[:8]], method)
    assert time.monotonic() - start < 20
    int8 = quantise(model, scales)
    feed = {"crops": photographs[8:], "box_scores": np.ones(8, np.float32)}
    labels = [
        ort.InferenceSession(p, providers=["CPUExecutionProvider"]).run(["labels"], feed)[0] for p in (model, int8)
    ]
    assert len(np.unique(labels[0])) > 1
    assert 0.97 < (labels[0] == labels[1]).mean() < 1.0  # close, and INT8 was really written


def test_memory_does_not_grow_with_the_number_of_crops(photographs, small_graph):
    model = small_graph(*CROP_HW).SerializeToString()
    find_scales(model, [photographs], "minmax")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # All activations of 320 crops would be about 270 MB.
    find_scales(model, (photographs for _ in range(20)), "minmax")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 60 * 1024
