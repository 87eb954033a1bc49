"""Frames in order, broken inputs told apart, and outputs that are whole or not there."""

import json
import os
import threading
import time

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detections
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.queues import DEPTH, Feeder
from qanet.runtime.video.sinks import JsonLines, Pictures
from qanet.runtime.video.sources import open_source


def test_all_frames_come_in_order_and_go_out_in_order(make_clip, parser, tmp_path, count_frames):
    seen = []
    sinks = open_sinks(str(tmp_path / "out" / "o.avi"), str(tmp_path / "out" / "o.jsonl"), "video", 10.0)
    source = open_source(str(make_clip(11)))
    summary = run(source, parser, sinks, on_frame=lambda frame, result: seen.append(frame.index))
    records = [json.loads(line) for line in (tmp_path / "out" / "o.jsonl").read_text().splitlines()]
    assert [r["frame"] for r in records] == seen == list(range(11)) and summary.frames == 11
    assert {part["class_id"] for r in records for part in r["people"][0]["parts"]} >= {1, 2}
    assert count_frames(tmp_path / "out" / "o.avi") == 11 and len(os.listdir(tmp_path / "out")) == 2
    document = summary.to_json()
    assert document["stages_ms"]["engine"]["n"] == 11 and document["warnings"] == [] and not document["interrupted"]


@pytest.mark.parametrize("suffix", [".webm", ".mp4", ".avi"])
def test_an_overlay_video_has_every_frame_and_even_sides(parser, make_clip, tmp_path, suffix):
    source = open_source(str(make_clip(5)))
    path = tmp_path / f"o{suffix}"
    run(source, parser, [VideoFileSink(path, source.fps, max_width=101)])
    again = open_source(str(path))
    frames = list(again)
    assert len(frames) == 5 and frames[0].image.shape[:2] == (76, 100) and again.warnings == []
    assert again.fps == pytest.approx(10)


def test_a_video_that_ends_early_is_parsed_and_told(make_clip, parser, tmp_path):
    clip = make_clip(20)
    os.truncate(clip, int(clip.stat().st_size * 0.6))
    summary = run(open_source(str(clip)), parser, [JsonLines(tmp_path / "o.jsonl")])
    assert 5 < summary.frames < 20 and len((tmp_path / "o.jsonl").read_text().splitlines()) == summary.frames
    assert len(summary.warnings) == 1
    assert f"ends early: 20 frames announced, {summary.frames} read and parsed" in summary.warnings[0]


def test_a_cut_download_is_read_as_far_as_it_goes(shared, tmp_path):
    whole = (shared / "data" / "video" / "sports2d_demo.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:600_000])
    source = open_source(str(tmp_path / "cut.mp4"))
    count = sum(1 for _ in source)
    assert 1 <= count < 230 and "ends early: 230 frames announced" in source.warnings[0]


@pytest.mark.parametrize("name", ["text.mp4", "clip_01.mp4", "unknown"])
def test_a_file_that_is_no_video_is_refused(tmp_path, name):
    (tmp_path / name).write_text("hello, this is text\n" * 20)
    with pytest.raises(QanetError, match=f"{name} cannot be decoded as video .*start with b'hello, t'.; next: "):
        open_source(str(tmp_path / name))


def test_an_mp4_without_its_index_is_refused(make_clip, tmp_path, parser):
    source = open_source(str(make_clip(5)))
    run(source, parser, [VideoFileSink(tmp_path / "o.mp4", 10.0)])
    os.truncate(tmp_path / "o.mp4", (tmp_path / "o.mp4").stat().st_size // 2)
    with pytest.raises(QanetError, match="o.mp4 cannot be decoded as video"):
        open_source(str(tmp_path / "o.mp4"))


def test_nothing_and_empty_inputs_are_told_apart(tmp_path):
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "zero.png").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden.png").write_bytes(b"x")
    for name in ("zero.mp4", "zero.png"):
        with pytest.raises(QanetError, match=f"{name} is empty .*got 0 bytes"):
            open_source(str(tmp_path / name))
    with pytest.raises(QanetError, match="no images in .*folder .expected a JPEG, PNG"):
        open_source(str(tmp_path / "folder"))
    with pytest.raises(QanetError, match="missing: no such file .expected a video, an image or a folder"):
        open_source(str(tmp_path / "missing"))


@pytest.fixture
def folder(tmp_path, people):
    """b.png, a.jpg and a.png of the drawn people, and c.png, which is broken."""
    path = tmp_path / "photos"
    path.mkdir()
    for index, name in enumerate(("a.jpg", "a.png", "b.png")):
        cv2.imwrite(str(path / name), people(index))
    (path / "c.png").write_bytes((path / "b.png").read_bytes()[:100])
    (path / "notes.txt").write_text("no image")
    return path


def test_one_broken_image_does_not_stop_a_folder(folder, parser, tmp_path):
    out = tmp_path / "out"
    sinks = [JsonLines(tmp_path / "o.jsonl"), Pictures(out, single=False)]
    summary = run(open_source(f"file://{folder}"), parser, sinks)
    assert [json.loads(line)["name"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [
        "a.jpg",
        "a.png",
        "b.png",
    ]
    assert sorted(os.listdir(out)) == ["a-1.png", "a.png", "b.png"]  # neither overlay of a replaces the other
    assert cv2.imread(str(out / "a-1.png")).shape == (120, 160, 3)
    left_out, skipped = summary.warnings
    assert "left out of" in left_out and left_out.endswith("no pictures: 1: notes.txt")
    assert "skipped: " in skipped and "c.png" in skipped


def test_pictures_are_told_by_content_and_taken_in_natural_order(parser, people, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    png = cv2.imencode(".png", people(0))[1].tobytes()
    for name in ("f10.png", "f9.jfif", "f2", "f1.heic", "f11.gif"):
        (folder / name).write_bytes(png)
    for number in range(7):
        (folder / f"n{number}.txt").write_text("no picture")
    (folder / "sub").mkdir()
    summary = run(open_source(str(folder)), parser, [JsonLines(tmp_path / "o.jsonl")])
    names = [json.loads(line)["name"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert names == ["f1.heic", "f2", "f9.jfif", "f10.png", "f11.gif"]
    assert [w.split("frames, ")[1] for w in summary.warnings] == [
        "no pictures: 8: n0.txt, n1.txt, n2.txt, n3.txt, n4.txt ..."
    ]
    assert all(open_source(str(folder / name)).kind == "image" for name in names)


def test_a_folder_of_broken_images_is_an_error(folder, parser, tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        (folder / name).unlink()
    with pytest.raises(QanetError, match="no image in .*photos can be read; the last: .*c.png is truncated"):
        run(open_source(str(folder)), parser, [JsonLines(tmp_path / "o.jsonl"), VideoFileSink(tmp_path / "o.avi", 10)])
    assert os.listdir(tmp_path) == ["photos"]


def test_one_image_is_parsed_to_one_picture(folder, parser, tmp_path):
    source = open_source(str(folder / "b.png"))
    assert (source.kind, source.expected_frames) == ("image", 1)
    run(source, parser, open_sinks(str(tmp_path / "o.jpg"), None, source.kind, source.fps))
    assert cv2.imread(str(tmp_path / "o.jpg")).shape == (120, 160, 3)
    with pytest.raises(QanetError, match="c.png is truncated"):
        run(open_source(str(folder / "c.png")), parser, [])


class Failing:
    """A detector that finds nobody until a frame, and then does as it is told."""

    name = "failing"

    def __init__(self, frame: int, error: BaseException):
        self.frame, self.error = frame, error

    def detect(self, image, frame=0):
        if frame == self.frame:
            raise self.error
        return Detections(np.array([[20, 20, 60, 100]], np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize("error", [QanetError("broken box"), RuntimeError("bug")])
def test_an_error_midway_leaves_nothing_behind(parser, make_clip, tmp_path, error):
    parser.detector = Failing(4, error)
    sinks = [JsonLines(tmp_path / "o.jsonl"), VideoFileSink(tmp_path / "o.avi", 10)]
    before = threading.active_count()
    with pytest.raises(type(error), match=str(error)):
        run(open_source(str(make_clip(8))), parser, sinks, carry=False)
    assert os.listdir(tmp_path) == ["clip.avi"] and threading.active_count() == before


@pytest.mark.parametrize("frame", [0, 4])
def test_an_interruption_keeps_what_was_parsed(parser, make_clip, tmp_path, frame, count_frames):
    parser.detector = Failing(frame, KeyboardInterrupt())
    sinks = [JsonLines(tmp_path / "o.jsonl"), VideoFileSink(tmp_path / "o.avi", 10)]
    summary = run(open_source(str(make_clip(8))), parser, sinks, carry=False)
    assert summary.interrupted and summary.frames == frame
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == frame
    assert (count_frames(tmp_path / "o.avi") if frame else not (tmp_path / "o.avi").exists()) == (frame or True)


def test_an_error_of_a_sink_stops_the_run(parser, make_clip, tmp_path):
    class Full(JsonLines):
        def write(self, frame, result):
            raise QanetError("could not write", got="No space left on device")

    with pytest.raises(QanetError, match="No space left"):
        run(open_source(str(make_clip(30))), parser, [Full(tmp_path / "o.jsonl")])
    assert os.listdir(tmp_path) == ["clip.avi"]


def test_people_are_carried_between_detections(parser, make_clip, tmp_path):
    calls = []

    class Counting(Failing):
        def detect(self, image, frame=0):
            calls.append(frame)
            return super().detect(image, frame)

    parser.detector = Counting(-1, ValueError())
    run(open_source(str(make_clip(7))), parser, [JsonLines(tmp_path / "o.jsonl")], detect_every=3)
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert calls == [0, 3, 6] and len(records) == 7
    assert all(1 in [p["track_id"] for p in r["people"]] for r in records)


class Numbers:
    """A source of numbers in the place of frames, as of a file; it may end with an error."""

    kind = "video"

    def __init__(self, count, error=None):
        self.count, self.error, self.read = count, error, 0

    def __iter__(self):
        for number in range(self.count):
            self.read += 1
            yield number
        if self.error:
            raise self.error


def test_a_feeder_keeps_order_and_hands_errors_over():
    feeder, got = Feeder(Numbers(50, ValueError("the end")), StageTimes(), threading.Condition()), []
    with pytest.raises(ValueError, match="the end"):
        while not feeder.exhausted():
            got += [number for number in [feeder.take()] if number is not None]
    assert got == list(range(50))
    feeder.close()


def test_a_feeder_never_runs_far_ahead_and_stops_its_thread():
    source, before = Numbers(10**9), threading.active_count()
    feeder = Feeder(source, StageTimes(), threading.Condition())
    while feeder.take() is None:
        time.sleep(0.001)
    time.sleep(0.05)
    feeder.close()
    assert threading.active_count() == before and source.read <= DEPTH + 2


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ("o.png", "video", "one picture, the input is a video .expected a folder or an .mp4 file, got .png.; next"),
        ("o.jpg", "folder", "the input is a folder"),
        ("o.gif", "video", "unknown output format .*got .gif"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(output, kind, message):
    with pytest.raises(QanetError, match=message):
        open_sinks(output, None, kind, 10.0)


def test_a_folder_in_the_place_of_a_file_is_refused_at_once(parser, make_clip, tmp_path):
    (tmp_path / "o.avi").mkdir()
    with pytest.raises(QanetError, match="cannot write .*o.avi .expected a file's name, got a folder of that name"):
        run(open_source(str(make_clip(2))), parser, open_sinks(str(tmp_path / "o.avi"), None, "video", 10.0))
