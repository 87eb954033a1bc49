"""The path on one made-up GPU with a plan for each bucket: the same people, and loading is no stage of a frame."""

import numpy as np
import pytest
from toy_engines import HEIGHT, KERNEL_TAIL, WIDTH, make_bundle, network
from toy_plans import make_bundle_apart, watch_runs

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle
from qanet.runtime.cuda.device import Event
from qanet.runtime.cuda.device_path import DeviceEngine, open_device_path
from qanet.runtime.detectors.base import Detections
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import Parser

SIZE = (30, 40)
IMAGE = np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)
BOXES = np.array([[x, x / 2, x + 10, x / 2 + 14] for x in range(1, 28, 3)], np.float32)  # 9 people
SCORES = np.linspace(0.2, 0.9, len(BOXES), dtype=np.float32)

pytestmark = pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")


@pytest.fixture
def scoring(kernels):
    kernels.image_size = SIZE
    return kernels


def test_each_batch_takes_the_plan_of_its_size(scoring, tmp_path, monkeypatch):
    runs = watch_runs(monkeypatch)
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert isinstance(engine, DeviceEngine)
        path = open_device_path(engine)
        for count, bucket in ((1, 1), (3, 4), (2, 2), (4, 4)):
            scored, iou, _ = path.run(IMAGE, BOXES[:count], SCORES[:count], 0.2)
            expected = network(choose_kernels().crop_people(IMAGE, BOXES[:count], (HEIGHT, WIDTH)), SCORES[:count])
            np.testing.assert_allclose(iou, expected["iou_scores"], rtol=1e-6)
            assert len(scored.labels) == count and runs.pop() == (bucket, bucket) and not runs
        with pytest.raises(QanetError, match="1 to 4 crops, got 5"):
            path.run(IMAGE, BOXES[:5], SCORES[:5], 0.2)


def test_a_parser_splits_by_the_largest_bucket_and_finds_the_people_of_one_plan(scoring, tmp_path, monkeypatch):
    made, whole = make_bundle_apart(tmp_path / "apart"), make_bundle(tmp_path / "whole")
    found = Detections(BOXES, SCORES)
    with engine_from_bundle(whole, "fp16", KERNEL_TAIL) as engine:
        expected = Parser(made, engine).parse(IMAGE, found)
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        runs = watch_runs(monkeypatch)
        parser = Parser(made, engine)
        assert parser.max_batch == 4
        got = parser.parse(IMAGE, found)
        assert runs == [(4, 4), (4, 4), (1, 1)] and engine.open_batches == (1, 4)
        without = Parser(made, engine)
        without._device_path = None  # by way of the host, 9 at once
        on_host = without.parse(IMAGE, found)
        assert runs[3:] == runs[:3]
    assert len(got) == len(on_host) == len(expected) > 0
    for one, other, third in zip(got, expected, on_host):
        assert np.array_equal(one.labels, other.labels) and np.array_equal(one.labels, third.labels)
        assert one.quality == pytest.approx(other.quality, abs=1e-6) == pytest.approx(third.quality, abs=1e-6)


def test_a_plan_is_loaded_before_the_clock_of_a_frame_starts(scoring, tmp_path, monkeypatch):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        path, open_at_marks, make = open_device_path(engine), [], Event.__init__

        def marked(event, device, timing=False):
            open_at_marks.extend([engine.open_batches] if timing else [])
            make(event, device, timing)

        monkeypatch.setattr(Event, "__init__", marked)
        path.run(IMAGE, BOXES[:4], SCORES[:4], 0.2)
        assert open_at_marks == [(1, 4)] * 4


def test_a_plan_that_cannot_be_loaded_fails_its_frame_and_leaves_the_next(scoring, tmp_path):
    made = make_bundle_apart(tmp_path, specs={4: {"fail": ["set_tensor_address"]}})
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        path = open_device_path(engine)
        for _ in range(2):
            with pytest.raises(QanetError, match="does not take the address of crops"):
                path.run(IMAGE, BOXES[:3], SCORES[:3], 0.2)
            assert not scoring.pending and scoring.calls["push"] == scoring.calls["pop"]
            path.run(IMAGE, BOXES[:2], SCORES[:2], 0.2)
