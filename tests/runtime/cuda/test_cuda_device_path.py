"""Crop, engine and tail on one made-up GPU: the same people as through the host, with nothing between."""

import sys
from functools import partial

import numpy as np
import pytest
from toy_engines import ALL_OUTPUTS, HEIGHT, KERNEL_TAIL, STATIC, WIDTH, make_bundle, network
from toy_plans import make_bundle_apart, watch_runs

from qanet import quality
from qanet.errors import QanetError, QanetWarning
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle
from qanet.runtime.cuda.crop import queue_crops
from qanet.runtime.cuda.device import Event
from qanet.runtime.cuda.device_path import DeviceEngine, DevicePath, open_device_path
from qanet.runtime.cuda.gpu_context import fetch
from qanet.runtime.detectors.base import Detections
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import Parser

SIZE = (30, 40)
IMAGE = np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)
BOXES = np.array([[x, x / 2, x + 10, x / 2 + 14] for x in range(1, 28, 3)], np.float32)  # 9 people
SCORES = np.linspace(0.2, 0.9, len(BOXES), dtype=np.float32)


def parsing_bundle(folder):
    """A bundle with the engine and all that a parser reads."""
    made = make_bundle(folder)
    made.manifest |= {"pixel_score_threshold": 0.2, "qam_weights": [1, 0.5, 3]}
    return made


@pytest.fixture
def scoring(kernels):
    kernels.image_size = SIZE
    return kernels


@pytest.mark.parametrize("half", [[], ["logits", "iou_scores"]], ids=["float32", "float16"])
def test_the_outputs_of_an_engine_stay_on_the_gpu(scoring, tmp_path, half):
    with engine_from_bundle(make_bundle(tmp_path, half=half), "fp16", KERNEL_TAIL) as engine:
        for count in (1, 3, 8):
            boxes = BOXES[:count]
            before = scoring.calls["dtoh"]
            fill = partial(queue_crops, image=IMAGE, boxes=boxes)
            with engine.run_on_device(count, SCORES[:count], fill) as outputs:
                assert scoring.calls["dtoh"] == before  # nothing came to the host
                got = {name: fetch(engine.gpu, outputs[name]) for name in KERNEL_TAIL}
            crops = choose_kernels().crop_people(IMAGE, boxes, (HEIGHT, WIDTH))
            expected = network(crops, SCORES[:count])
            for name in KERNEL_TAIL:
                assert outputs[name].dtype == (np.float16 if half else np.float32)
                np.testing.assert_allclose(got[name], expected[name], rtol=1e-3 if half else 1e-6, atol=1e-3)
            host = engine.run(crops, SCORES[:count])  # the way through the host is still there, with the same rows
            np.testing.assert_array_equal(host["logits"], got["logits"])


def test_other_inputs_go_up_and_the_padding_of_a_bucket_is_zero(scoring, tmp_path):
    made = make_bundle(tmp_path, profiles=[(4, 4)], outputs=ALL_OUTPUTS)
    with engine_from_bundle(made, "fp16", ALL_OUTPUTS) as engine:
        fill = partial(queue_crops, image=IMAGE, boxes=BOXES[:3])
        with engine.run_on_device(3, SCORES[:3], fill) as outputs:
            found = fetch(engine.gpu, outputs["quality"])
            crops = engine._plans[0].session._tensors["crops"].first(4)
            assert not fetch(engine.gpu, crops)[3].any()
        crops = choose_kernels().crop_people(IMAGE, BOXES[:3], (HEIGHT, WIDTH))
        np.testing.assert_allclose(found, network(crops, SCORES[:3])["quality"], rtol=1e-6)


def test_a_batch_that_does_not_fit_or_fails_leaves_nothing_in_flight(scoring, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        for count, scores, words in ((0, [], "1 to 8 crops"), (9, SCORES, "1 to 8 crops"), (2, SCORES, "box_scores")):
            with pytest.raises(QanetError, match=words), engine.run_on_device(count, scores, lambda *_: None):
                pytest.fail("the block ran")
        fill = partial(queue_crops, image=IMAGE, boxes=BOXES[:2])
        with pytest.raises(ZeroDivisionError), engine.run_on_device(2, SCORES[:2], fill):
            raise ZeroDivisionError
        assert not scoring.pending and scoring.calls["push"] == scoring.calls["pop"]
        scoring.launch_error = "cuLaunchKernel failed: invalid argument"
        with pytest.raises(QanetError, match="launching crop_people"), engine.run_on_device(2, SCORES[:2], fill):
            pytest.fail("the block ran")
        scoring.launch_error = None
        with engine.run_on_device(2, SCORES[:2], fill):
            pass
    with pytest.raises(QanetError, match="the engine is closed"), engine.run_on_device(2, SCORES[:2], fill):
        pytest.fail("the block ran")


def test_the_path_gives_the_scores_of_the_reference(scoring, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        path = open_device_path(engine)
        assert isinstance(path, DevicePath) and path.max_batch == STATIC[-1][1]
        for _ in range(3):
            scored, iou, times = path.run(IMAGE, BOXES[:5], SCORES[:5], 0.2)
        assert list(times) == ["crop", "engine", "tail"] and min(times.values()) > 0
    expected = network(choose_kernels().crop_people(IMAGE, BOXES[:5], (HEIGHT, WIDTH)), SCORES[:5])
    reference = quality.pixel_score(expected["logits"], BOXES[:5], SIZE)
    np.testing.assert_allclose(scored.pixel_scores, reference.pixel_scores, atol=1e-6)
    np.testing.assert_allclose(scored.part_scores, reference.part_scores, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(scored.labels, reference.labels))
    np.testing.assert_allclose(iou, expected["iou_scores"], rtol=1e-6)


def test_a_parser_takes_the_path_and_finds_the_people_it_finds_without(scoring, tmp_path):
    made = parsing_bundle(tmp_path)
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        parser, without = Parser(made, engine), Parser(made, engine)
        without._device_path = None
        found = Detections(BOXES, SCORES)
        got, expected = parser.parse(IMAGE, found), without.parse(IMAGE, found)
        assert {"crop", "engine", "tail", "suppress"} <= parser.times.samples_ms.keys()
        assert len(parser.times.samples_ms["engine"]) == 2  # 9 people, 8 at a time
        assert Parser(made, engine, tail="graph")._device_path is None
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected):
        assert np.array_equal(one.labels, other.labels) and one.roi == other.roi
        assert one.quality == pytest.approx(other.quality, abs=1e-6) and one.iou_score == other.iou_score


def test_without_kernels_the_parser_stays_on_the_host_and_says_so(scoring, tmp_path, monkeypatch):
    def missing(name, target):
        raise QanetError("no compiler for the kernels", next_command="install the CUDA toolkit")

    monkeypatch.setattr(sys.modules["qanet.runtime.cuda.build"], "kernel_image", missing)
    made = parsing_bundle(tmp_path)
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        with pytest.warns(QanetWarning, match="crops and the tail run on the CPU: no compiler for the kernels"):
            parser = Parser(made, engine)
        assert parser._device_path is None and len(parser.parse(IMAGE, Detections(BOXES, SCORES))) > 0
    assert open_device_path(object()) is None


@pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")
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


@pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")
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


@pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")
def test_a_plan_is_loaded_before_the_clock_of_a_frame_starts(scoring, tmp_path, monkeypatch):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        path, open_at_marks, make = open_device_path(engine), [], Event.__init__

        def marked(event, device, timing=False):
            open_at_marks.extend([engine.open_batches] if timing else [])
            make(event, device, timing)

        monkeypatch.setattr(Event, "__init__", marked)
        path.run(IMAGE, BOXES[:4], SCORES[:4], 0.2)
        assert open_at_marks == [(1, 4)] * 4


@pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")
def test_a_plan_that_cannot_be_loaded_fails_its_frame_and_leaves_the_next(scoring, tmp_path):
    made = make_bundle_apart(tmp_path, specs={4: {"fail": ["set_tensor_address"]}})
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        path = open_device_path(engine)
        for _ in range(2):
            with pytest.raises(QanetError, match="does not take the address of crops"):
                path.run(IMAGE, BOXES[:3], SCORES[:3], 0.2)
            assert not scoring.pending and scoring.calls["push"] == scoring.calls["pop"]
            path.run(IMAGE, BOXES[:2], SCORES[:2], 0.2)
