"""The expected mIoU of a parsed person: by both tails, in arrays and JSON, and what thresholds take; the ladder."""

import json

import numpy as np
import pytest

import qanet
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.quality.quality_map import Curve, QualityMap
from qanet.runtime import ladder
from qanet.runtime.cli import command
from qanet.runtime.detectors.base import Detections

CHART = QualityMap((0.0, 0.5, 3.0), Curve((0.0, 1.0), (0.0, 0.9)), Curve((0.0, 1.0), (0.0, 0.8)))


@pytest.fixture
def mapped_bundle(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    bundle.manifest["quality_map"] = {"fp32": CHART.to_json()}
    bundle.save()
    return tiny_bundle


@pytest.mark.parametrize("tail", ["kernel", "graph"])
def test_a_person_has_an_expected_iou_whatever_the_box_scores(mapped_bundle, people, tail):
    parser = qanet.load(mapped_bundle, device="cpu", tail=tail, threads=1)
    found = [parser(people(0), people.boxes(0)[:1], [score]) for score in (1.0, 0.3)]
    person, unsure = (result[0] for result in found)
    fused = (person.iou_score**0.5 * person.pixel_score**3) ** (1 / 3.5)
    assert person.expected_miou == unsure.expected_miou == pytest.approx(0.9 * fused, abs=1e-5)
    assert unsure.quality < person.quality and person.worth == person.expected_miou
    assert (person.expected_part_iou > 0).tolist() == (np.asarray(person.part_scores) > 0).tolist()
    assert person.expected_part_iou["hat"] == person.expected_part_iou[0]
    assert found[0].expected_miou.tolist() == [pytest.approx(person.expected_miou)]
    assert found[0].expected_part_iou.shape == (1, 12)
    record = found[0].to_json(masks=False)["people"][0]
    assert record["expected_miou"] == round(person.expected_miou, 4) and "expected_iou" in record["parts"][0]


def test_without_a_map_nothing_is_expected_and_thresholds_take_q(tiny_parser, people):
    result = tiny_parser(people(0), people.boxes(0))
    assert result[0].expected_miou is None and np.isnan(result.expected_miou).all()
    assert np.isnan(result.expected_part_iou).all() and result.expected_part_iou.shape == (2, 12)
    assert "expected_miou" not in result.to_json(masks=False)["people"][0]
    assert len(result.at_least(0.0)) == 2 and len(result.at_least(1.01)) == 0
    assert len(result.at_least(result[1].quality)) == 2


def test_min_quality_leaves_people_out_of_the_lines(mapped_bundle, people, make_clip, tmp_path):
    boxes = tmp_path / "boxes.json"
    rows = {str(k): [[*box, 1.0] for box in people.boxes(k)] for k in range(3)}
    boxes.write_text(json.dumps(rows))
    for least, expected in (("0", [2, 2, 2]), ("0.95", [0, 0, 0])):  # the map never says more than 0.9
        lines = tmp_path / f"{least}.jsonl"
        arguments = [str(make_clip(3)), "--model", str(mapped_bundle), "--boxes", str(boxes), "--results", str(lines)]
        assert command.main([*arguments, "--quiet", "--min-quality", least, "--threads", "1"]) == 0
        assert [len(json.loads(line)["people"]) for line in lines.read_text().splitlines()] == expected


@pytest.mark.parametrize(
    "entry", [{"fp32": {"weights": [1, 2, 3]}}, ["fp32"], {"fp32": CHART.to_json() | {"people": 3}}]
)
def test_a_manifest_with_a_map_that_cannot_be_used_is_refused(tiny_bundle, entry):
    manifest = json.loads((tiny_bundle / "manifest.json").read_text()) | {"quality_map": entry}
    (tiny_bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(QanetError, match="bad field quality_map"):
        open_bundle(tiny_bundle)


class Slow:
    """A parser that takes its time by a clock of its own."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.detector = clock, seconds, object()

    def detect(self, image, frame):
        return Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32))

    def parse(self, image, found):
        self.clock[0] += self.seconds
        return [object()]

    def close(self):
        assert self.detector is None  # it belongs to the caller


@pytest.mark.parametrize(
    ("wanted", "rung", "enough"), [(9, "accurate", True), (15, "balanced", True), (99, "fast", False)]
)
def test_the_most_accurate_rung_that_keeps_up_is_taken(monkeypatch, wanted, rung, enough):
    clock = [0.0]
    seconds = {"fast": 0.02, "balanced": 0.05, "accurate": 0.1}
    monkeypatch.setattr(ladder, "LADDER", {name: name for name in seconds})
    monkeypatch.setattr(ladder, "load", lambda name, **options: Slow(clock, seconds[name]))
    monkeypatch.setattr(ladder.time, "perf_counter", lambda: clock[0])
    pick = ladder.pick_rung([np.zeros((8, 8, 3), np.uint8)] * 2, object(), wanted)
    assert (pick.rung, pick.enough) == (rung, enough) and pick.fps == pytest.approx(
        {"fast": 50, "balanced": 20, "accurate": 10}
    )
    assert f"took {rung} (" in str(pick) and ("none is fast enough" in str(pick)) != enough


def test_every_rung_of_the_ladder_ships_and_the_accurate_one_mirrors():
    for name, rung in ladder.LADDER.items():
        assert open_bundle(name).name == rung.bundle and open_bundle(name).is_shipped
    assert qanet.load("accurate", device="cpu", precision="fp32", threads=1).augmentation.flip


def test_a_target_rate_that_cannot_be_is_refused():
    for arguments, message in (
        (["clip.mp4", "--target-fps", "15", "--model", "other"], "--target-fps chooses the model"),
        (["clip.mp4", "--target-fps", "0"], "target-fps"),
    ):
        with pytest.raises(QanetError, match=message):
            command.main(arguments)
    with pytest.raises(QanetError, match="cannot measure on standard input"):
        ladder.first_frames([], ["-"])
