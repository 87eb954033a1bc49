"""What is measured after the rounds: the pipeline, sweeps, pieces with their floors, MLPerf, the baseline's check."""

import numpy as np
import pytest

from qanet.benchmarks.harness import Measurement, Session, Target, WarmUp, run
from qanet.benchmarks.micro import (
    Piece,
    copy_bytes_per_second,
    floor_ms,
    multiply_adds_per_second,
    plan_pieces,
    rows_of,
)
from qanet.benchmarks.mlperf import parse_summary, run_mlperf
from qanet.benchmarks.pipeline import PipelineTarget
from qanet.benchmarks.samples import Sample, SampleSet
from qanet.benchmarks.schema import Latency
from qanet.benchmarks.targets import (
    PERSONS,
    SCALES,
    enlarged,
    label_share,
    open_checked,
    sweep_targets,
    sweeps_of,
    with_people,
)
from qanet.benchmarks.variants import list_variants
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.geometry import crop_boxes, crop_people
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser

CROP_HW = (16, 12)


def sample_set(count=2):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[10 * k, 5, 10 * k + 8, 30] for k in range(count)], np.float32)
    grown = crop_boxes(boxes, CROP_HW)
    found = Detections(boxes, np.full(count, 0.9, np.float32))
    return SampleSet("video", "fake", [Sample("0", image, found, grown, crop_people(image, grown, CROP_HW))], frames=1)


@pytest.mark.parametrize("count", PERSONS)
def test_people_of_a_sweep_are_inside_the_image_and_apart(count):
    sample = sample_set().samples[0]
    found = with_people(sample, count)
    assert len(found) == count and (found.boxes >= 0).all() and (found.boxes[:, 2:] <= [60, 40]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert len(np.unique(found.boxes[: min(count, 4)], axis=0)) == min(count, 4)


def test_people_grow_with_the_image():
    image, found = enlarged(sample_set().samples[0], 2.0)
    assert image.shape == (80, 120, 3) and np.array_equal(found.boxes[1], [20, 10, 36, 60])


def test_a_sweep_has_a_point_for_each_size(fake_engine, fake_bundle):
    planned = {"fp32": sweep_targets("fp32", Parser(fake_bundle, fake_engine()), sample_set())}
    session = run([target for _, _, target in planned["fp32"]], rounds=2, warm_up=WarmUp(max_calls=0))
    found = sweeps_of(planned, session)
    assert [p.x for p in found["persons"]["fp32"]] == list(PERSONS) and len(found["area"]["fp32"]) == len(SCALES)
    assert all(p.latency_ms.n == 2 for p in found["area"]["fp32"])
    assert sweeps_of(planned, Session([])) == {"persons": {}, "area": {}}


def test_the_pipeline_is_timed_from_file_to_file(shared_tiny_bundle, make_clip, boxes_file):
    pytest.importorskip("openvino")
    from qanet.runtime.backends.select import open_engine
    from qanet.runtime.detectors.base import BoxesFile
    from qanet.runtime.video.sources import open_source

    (variant,) = list_variants([open_bundle(shared_tiny_bundle)], ["fp32"], ["kernel"], ["cpu"])
    engine = open_engine(variant.bundle, "cpu", "fp32", variant.outputs, 1)
    call = PipelineTarget(variant, engine, BoxesFile(boxes_file), open_source(str(make_clip())), frames=3)
    session = run([call.target()], rounds=2, warm_up=WarmUp(window=1, max_calls=1))
    assert session.measurements[0].error is None and call.frames == [3, 3] and call.people == 12
    assert {"decode", "detect", "crop", "engine", "tail", "paint", "encode"} <= call.stages_ms.keys()
    assert {len(call.stages_ms[stage]) for stage in ("decode", "engine", "paint", "encode")} == {6}


@pytest.mark.parametrize(
    ("piece", "floor", "by"),
    [
        (Piece("a", 1e6), 1.0, "bytes"),
        (Piece("a", 1e6, 8e9, "int8"), 4.0, "multiply-adds"),
        (Piece("a", 1e6, 1e9, "int8"), 1.0, "bytes"),
        (Piece("a", 1e6, 8e9, "fp32"), 1.0, "bytes"),  # no rate known
    ],
)
def test_the_floor_is_the_slower_of_bytes_and_multiply_adds(piece, floor, by):
    assert floor_ms(piece, 1e9, {"int8": 2e12}) == (pytest.approx(floor), by)


def test_a_row_tells_how_far_the_floor_is():
    measured = Measurement(Target("a", lambda number: None, "micro"), [3.0] * 4)
    first, second = rows_of([Piece("a", 1e6), Piece("b", 1e6)], Session([measured]), 1e9, {})
    assert first.times_floor == 3.0 and first.floor_by == "bytes"
    assert second.times_floor is None and second.latency_ms == Latency(n=0)


def test_pieces_of_a_bundle(fake_engine, fake_bundle):
    variants = list_variants([fake_bundle], ["fp32", "int8"], ["kernel"], ["cpu"])
    engines = {v.label: fake_engine(v.precision) for v in variants}
    targets, pieces = plan_pieces(variants, engines, {"fake": sample_set()}, lambda variant: 5e6)
    assert [piece.target for piece in pieces] == [target.name for target in targets]
    session = run(targets, rounds=2, warm_up=WarmUp(max_calls=0))
    rows = rows_of(pieces, session, 1e9, {"fp32": 1e9, "int8": 4e9})
    assert [row.target for row in rows] == [
        "fake crop, one person",
        "fake crop by OpenCV, one person",
        "fp32 network, one crop",
        "int8 network, one crop",
        "fake tail, one person",
    ]
    assert all(row.error is None and row.latency_ms.n == 2 for row in rows)
    assert rows[2].floor_ms == 5.0 and rows[3].floor_ms == 1.25 and rows[2].floor_by == "multiply-adds"


def test_the_rates_of_this_machine_are_of_this_world():
    pytest.importorskip("openvino")
    assert 1e8 < copy_bytes_per_second() < 1e13
    assert 1e8 < multiply_adds_per_second("fp32", 1) < 1e15


SUMMARY = """MLPerf Results Summary
Scenario : SingleStream
90.0th percentile latency (ns) : 2552820
Result is : VALID
90.00 percentile latency (ns)   : 2552820
"""


@pytest.mark.parametrize("line", ["90.0th", "90th", "90.00th"])
def test_the_line_that_a_scenario_is_judged_by(line):
    found = parse_summary(SUMMARY.replace("90.0th", line), "SingleStream")
    assert found.p90_ms == 2.55282 and found.valid is True


def test_offline_is_judged_by_its_rate():
    found = parse_summary("Samples per second: 460.5\nResult is : INVALID\n", "Offline")
    assert found.samples_per_second == 460.5 and found.valid is False
    with pytest.raises(QanetError, match="no result"):
        parse_summary(SUMMARY, "Offline")


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
def test_a_run_of_the_real_loadgen(fake_engine, crops, scenario):
    pytest.importorskip("mlperf_loadgen", reason="MLPerf's load generator is not installed")
    engine = fake_engine()
    found = run_mlperf(engine, *crops, scenario, 0.1)
    assert found.samples >= 1 and found.scenario == scenario
    assert (found.p90_ms or found.samples_per_second) > 0


def test_an_engine_that_breaks_under_loadgen_is_told(fake_engine, crops):
    pytest.importorskip("mlperf_loadgen", reason="MLPerf's load generator is not installed")

    def breaks(outputs):
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        run_mlperf(fake_engine(spoil=breaks), *crops, "SingleStream", 0.05)


def test_without_loadgen_the_command_is_named(monkeypatch, fake_engine, crops):
    import sys

    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(QanetError, match="pip install mlcommons-loadgen"):
        run_mlperf(fake_engine(), *crops, "SingleStream")


class Scored:
    """What a baseline gives, as far as the check looks."""

    def __init__(self, labels):
        self.labels = labels


def whole_labels(parser, sample, change=lambda labels: labels):
    """Our own people's labels on the whole image, changed."""
    maps = []
    for person in parser.every_box(sample.image, sample.found):
        canvas = np.zeros(sample.image.shape[:2], np.uint8)
        x0, y0, x1, y1 = person.roi
        canvas[y0:y1, x0:x1] = change(person.labels)
        maps.append(canvas)
    return maps


@pytest.mark.parametrize(
    ("change", "quality", "reason"),
    [
        (lambda labels: labels, 0.5, ""),
        (lambda labels: (labels + 1) % 13, 0.5, "agree with our FP32 parser on 0.0%"),
        (lambda labels: labels, float("nan"), "not finite"),
    ],
)
def test_a_wrong_baseline_is_not_timed(fake_engine, fake_bundle, change, quality, reason, the_pytorch_form):
    sample, parser = sample_set().samples[0], Parser(fake_bundle, fake_engine())

    def open_baseline(bundle, threads):
        maps = whole_labels(parser, sample, change)
        return lambda image, boxes, scores: (Scored(maps), np.full(len(boxes), quality))

    the_pytorch_form(open_baseline)
    parse, said = open_checked(fake_bundle, 1, parser, sample)
    assert (parse is not None) == (reason == "") and reason in said
    assert label_share(whole_labels(parser, sample), parser, sample) == 1.0


def test_a_baseline_that_cannot_be_opened_has_a_reason(fake_engine, fake_bundle, the_pytorch_form):
    def missing(bundle, threads):
        raise QanetError("the bundle holds no weights")

    sample, parser = sample_set().samples[0], Parser(fake_bundle, fake_engine())
    the_pytorch_form(missing)
    assert open_checked(fake_bundle, None, parser, sample) == (None, "the bundle holds no weights")
    assert "no FP32 parser" in open_checked(fake_bundle, None, None, sample)[1]


def test_the_shipped_networks_pytorch_form_agrees_with_ours():
    pytest.importorskip("torch", reason="the baseline runs in PyTorch")
    pytest.importorskip("openvino")
    from qanet.runtime.backends.select import open_engine

    bundle = open_bundle("ccp13-lite0")
    parser = Parser(bundle, open_engine(bundle, "cpu", "fp32", ("logits", "iou_scores"), 1))
    image = np.random.default_rng(1).integers(0, 256, (120, 90, 3), np.uint8)
    boxes = np.array([[20, 10, 70, 110]], np.float32)
    found = Detections(boxes, np.ones(1, np.float32))
    sample = Sample("0", image, found, crop_boxes(boxes, bundle.input_hw), np.zeros((1, 1, 1, 3), np.uint8))
    parse, reason = open_checked(bundle, 1, parser, sample)
    assert parse is not None, reason
    scored, quality = parse(image, boxes, found.scores)
    assert label_share(scored.labels, parser, sample) > 0.99
    assert quality[0] == pytest.approx(parser.every_box(image, found)[0].quality, abs=2e-3)


def test_a_bundle_without_weights_has_no_pytorch_form(fake_bundle):
    pytest.importorskip("torch", reason="the baseline runs in PyTorch")
    from qanet.export.baseline import open_baseline

    with pytest.raises(QanetError, match=r"holds no weights.*model\.safetensors"):
        open_baseline(fake_bundle)
