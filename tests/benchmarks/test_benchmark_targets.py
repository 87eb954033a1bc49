"""Samples from an input, and what each target does with them."""

from pathlib import Path

import numpy as np
import pytest

from qanet.benchmarks.harness import WarmUp, run
from qanet.benchmarks.samples import Sample, SampleSet, collect, recrop
from qanet.benchmarks.targets import TIMED, baseline_target, batches, build_targets, mean_batch
from qanet.benchmarks.variants import list_variants
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.geometry import crop_boxes, crop_people
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.video.frame import Frame

CROP_HW = (16, 12)


def sample(count, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[10 * k, 5, 10 * k + 8, 30] for k in range(count)], np.float32)
    grown = crop_boxes(boxes, CROP_HW)
    found = Detections(boxes, np.full(count, 0.9, np.float32))
    return Sample(str(seed), image, found, grown, crop_people(image, grown, CROP_HW))


def model_of(input_hw):
    """A bundle of crops of people, as far as cropping knows it."""
    return Bundle(Path("fake.qanet"), {"input_hw": list(input_hw), "view": "person"})


def sample_set(*counts):
    return SampleSet("video", "fake", [sample(count, seed) for seed, count in enumerate(counts)], frames=len(counts))


def targets_of(bundle, engines, samples):
    """The targets of one bundle with the kernel tail."""
    variants = list_variants([bundle], list(engines), ["kernel"], ["cpu"])
    return build_targets(variants, engines, {"fake": samples})


@pytest.mark.parametrize(("counts", "mean"), [((1,), 1), ((1, 2, 3), 2), ((1, 1, 2), 1), ((3, 2, 4, 3), 3)])
def test_mean_batch(counts, mean):
    assert mean_batch(sample_set(*counts)) == mean


def test_batches_are_full_and_hold_every_crop():
    samples = sample_set(2, 3)
    prepared = batches(samples, 2)
    assert [len(crops) for crops, _ in prepared] == [2, 2, 2]
    seen = np.concatenate([crops for crops, _ in prepared])
    assert np.array_equal(seen[:5], samples.crops()[0]) and np.array_equal(seen[5], seen[0])


def test_crops_thin_out_evenly():
    samples = sample_set(*[1] * 10)
    crops, scores = samples.crops(4)
    assert len(crops) == len(scores) == 4
    assert np.array_equal(crops[[0, -1]], samples.crops()[0][[0, -1]])


def test_every_precision_gets_every_kind_and_the_precisions_of_a_kind_follow_each_other(fake_engine, fake_bundle):
    engines = {p: fake_engine(p) for p in ("fp32", "int8")}
    targets, parsers = targets_of(fake_bundle, engines, sample_set(2, 2))
    assert [(t.kind, t.precision, t.batch) for t in targets] == [
        ("null", "", 1),
        ("anchor", "", 1),
        ("engine", "fp32", 1),
        ("engine", "int8", 1),
        ("engine", "fp32", 2),
        ("engine", "int8", 2),
        ("tail", "fp32", 2),
        ("tail", "int8", 2),
        ("parser", "fp32", 2),
        ("parser", "int8", 2),
    ]
    assert len({t.name for t in targets}) == len(targets) and {t.kind for t in targets} == set(TIMED) - {
        "baseline",
        "pipeline",
    }
    assert list(parsers) == ["fp32", "int8"]


def test_one_person_a_frame_needs_no_second_batch_size(fake_engine, fake_bundle):
    targets, _ = targets_of(fake_bundle, {"fp32": fake_engine()}, sample_set(1, 1))
    assert [t.batch for t in targets if t.kind == "engine"] == [1]


def test_targets_run_what_they_say_and_the_warm_up_leaves_no_stage_times(fake_engine, fake_bundle):
    engine = fake_engine()
    targets, parsers = targets_of(fake_bundle, {"fp32": engine}, sample_set(3, 3))
    session = run(targets, rounds=4, warm_up=WarmUp(max_calls=2))
    assert all(m.error is None and len(m.samples_ms) == 4 for m in session.measurements)
    stages = parsers["fp32"].times.samples_ms
    assert {name: len(values) for name, values in stages.items()} == dict.fromkeys(
        ("crop", "engine", "tail", "suppress"), 4
    )
    whole = np.array(next(m.samples_ms for m in session.measurements if m.target.kind == "parser"))
    parts = np.sum([stages[name] for name in stages], axis=0)
    assert (parts <= whole + 0.05).all()  # the stages are inside the whole, sample by sample
    assert set(engine.batches) == {1, 3}


def test_a_refused_variant_has_no_target(fake_engine, fake_bundle):
    variants = list_variants([fake_bundle], ["fp32", "int8"], ["kernel"], ["cpu"])
    targets, _ = build_targets(variants, {"fp32": fake_engine()}, {"fake": sample_set(1)})
    assert {t.variant for t in targets} == {"", "fp32"}


def test_the_baseline_gets_the_same_frames_and_boxes(fake_bundle):
    seen = []
    samples = sample_set(2, 1)
    target = baseline_target("fake", lambda image, boxes, scores: seen.append((image, boxes, scores)), samples)
    run([target], rounds=3, warm_up=WarmUp(max_calls=0))
    assert [len(boxes) for _, boxes, _ in seen] == [2, 1, 2] and seen[0][0] is samples.samples[0].image
    assert (target.kind, target.variant, target.batch) == ("baseline", "fake in PyTorch", 1.5)


def test_another_input_size_keeps_the_frames_and_boxes():
    samples = sample_set(2, 1)
    again = recrop(samples, model_of((32, 24)))
    assert [s.crops.shape[1:3] for s in again.samples] == [(32, 24)] * 2
    assert again.samples[0].image is samples.samples[0].image and again.samples[0].found is samples.samples[0].found


class Source:
    kind, fps, warnings = "video", 25.0, ()

    def __init__(self, count):
        self.expected_frames, self.read = count, 0
        self.warnings = []

    def __iter__(self):
        for index in range(self.expected_frames):
            self.read += 1
            yield Frame(index, str(index), np.zeros((40, 60, 3), np.uint8))


class Detector:
    name = "fake"

    def __init__(self, people_at):
        self.people_at, self.seen = people_at, []

    def detect(self, image, frame=0):
        self.seen.append(frame)
        if frame not in self.people_at:
            return NOBODY
        return Detections(np.array([[5, 5, 20, 35]], np.float32), np.ones(1, np.float32))


def test_frames_are_spread_over_the_input():
    detector = Detector({0, 20})
    samples = collect(Source(40), detector, model_of(CROP_HW), 4)
    assert detector.seen == [0, 10, 20, 30] and samples.frames == 4
    assert [s.name for s in samples.samples] == ["0", "20"] and samples.mean_people == 1
    assert samples.samples[0].crops.shape == (1, *CROP_HW, 3)


def test_a_long_video_is_not_decoded_to_its_end():
    source = Source(100_000)
    collect(source, Detector(range(100_000)), model_of(CROP_HW), 4)
    assert source.read <= 4 * 30


def test_nobody_there_is_an_error_with_the_way_out():
    with pytest.raises(QanetError, match=r"no person was found in 4 frames.*--detector"):
        collect(Source(4), Detector(set()), model_of(CROP_HW), 4)
