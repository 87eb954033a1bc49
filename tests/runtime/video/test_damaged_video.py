"""Videos that are not as they should be, crowds, empty scenes, and what follows from frame to frame."""

import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.detectors.base import NOBODY, BoxesFile, Detections
from qanet.runtime.video import pipeline
from qanet.runtime.video import summary as summaries
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.sinks import JsonLines
from qanet.runtime.video.sources import open_source


def break_frame(clip, number):
    """Overwrite one picture of a Motion-JPEG file with zeros."""
    data, start = bytearray(clip.read_bytes()), clip.read_bytes().find(b"movi")
    for _ in range(number + 1):
        start = data.find(b"00dc", start + 1)
    size = int.from_bytes(data[start + 4 : start + 8], "little")
    data[start + 8 : start + 8 + size] = bytes(size)
    clip.write_bytes(data)


@pytest.mark.parametrize(("broken", "first"), [([4], 4), ([4, 5, 8], 4), ([10], None), ([0], None)])
def test_a_corrupt_frame_in_the_middle_is_skipped_and_counted(make_clip, parser, broken, first):
    clip, seen = make_clip(11), []
    source = open_source(str(clip)) if 0 in broken else None  # a broken first frame would be refused
    for number in broken:
        break_frame(clip, number)
    summary = run(source or open_source(str(clip)), parser, [], on_frame=lambda f, r: seen.append(f.index))
    assert seen == [index for index in range(11) if index not in broken]
    skipped = len(broken) if broken != [10] else 0  # at the end nothing tells it from a file cut short
    assert summary.to_json()["skipped"] == skipped
    text = "".join(summary.warnings)
    assert (f"broken frames skipped: {len(broken)}, the first is number {broken[0]}" in text) == bool(skipped)
    assert ("ends early: 11 frames announced, 10 read" in text) == (broken == [10])


class Made:
    """A source of given pictures, as of a video."""

    kind, fps = "video", 25.0

    def __init__(self, images):
        self.images, self.expected_frames, self.warnings = images, len(images), []

    def __iter__(self):
        return (Frame(index, str(index), image) for index, image in enumerate(self.images))


class Painted:
    """A detector that finds whatever is not black: one box, the whole of it."""

    name = "painted"

    def detect(self, image, frame=0):
        rows, columns = image.any((1, 2)), image.any((0, 2))
        if not rows.any():
            return NOBODY
        y, x = np.flatnonzero(rows), np.flatnonzero(columns)
        box = np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1]], np.float32)
        return Detections(box, np.array([0.9], np.float32))


@pytest.mark.parametrize("smooth", [False, True])
def test_frames_that_change_size_midway_go_on_with_the_same_people(parser, people, tmp_path, smooth, count_frames):
    parser.detector = Painted()
    images = [people(0)[:, :80]] * 3
    images += [cv2.resize(images[0], size, interpolation=cv2.INTER_NEAREST) for size in ((160, 240), (57, 85))] * 2
    seen = []
    path = tmp_path / "o.avi"
    summary = run(
        Made(images),
        parser,
        [VideoFileSink(path, 25), JsonLines(tmp_path / "o.jsonl")],
        smooth=smooth,
        on_frame=lambda frame, result: seen.append((result.image_size, [p.track_id for p in result])),
    )
    assert [size for size, _ in seen] == [image.shape[:2] for image in images] and summary.frames == 7
    assert all(ids == [1] for _, ids in seen)
    assert count_frames(path) == 7  # the size of the first frame throughout


@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (37, 1), (121, 163)])
def test_odd_sizes_pass_through(parser, hw, tmp_path, count_frames):
    images = [np.full((*hw, 3), 90, np.uint8)] * 3
    summary = run(Made(images), parser, [VideoFileSink(tmp_path / "o.webm", 25)], smooth=True)
    assert summary.frames == 3 and count_frames(tmp_path / "o.webm") == 3


def test_two_hundred_people_are_cut_to_the_best(parser):
    class Crowd(Painted):
        def detect(self, image, frame=0):
            xy = np.array([(x, y) for x in range(0, 1200, 60) for y in range(0, 800, 80)], np.float32)
            return Detections(np.concatenate([xy, xy + [40, 70]], 1), np.linspace(0.4, 0.99, 200, dtype=np.float32))

    parser.detector, seen = Crowd(), []
    summary = run(
        Made([np.full((800, 1200, 3), (255, 0, 0), np.uint8)] * 3),
        parser,
        [],
        max_people=10,
        on_frame=lambda frame, result: seen.append([p.box_score for p in result]),
    )
    assert all(len(scores) == 10 and min(scores) > 0.95 for scores in seen)
    assert summary.crowded == 3
    assert summary.warnings == ["3 frames have more than 10 people, up to 200: the best 10 by score were parsed"]


def test_nobody_for_an_hour_is_no_trouble(parser):
    parser.detector = Painted()
    summary = run(Made([np.zeros((32, 32, 3), np.uint8)] * 1500), parser, [], detect_every=None, smooth=True)
    assert summary.people == 0 and summary.frames == 1500 and 500 <= summary.detections <= 505


def test_the_adaptive_detector_sleeps_while_nothing_is_new_and_wakes_up(parser, people):
    parser.detector = Painted()
    images = [people(0)[:, :80]] * 30 + [np.zeros((120, 80, 3), np.uint8)] * 8 + [people(0)[:, :80]] * 10
    counts = []
    summary = run(Made(images), parser, [], detect_every=None, on_frame=lambda f, r: counts.append(len(r)))
    assert summary.detections < 25 and counts[:30] == [1] * 30
    assert counts[-5:] == [1] * 5


def test_detection_overlaps_with_parsing_and_results_stay_the_same(make_clip, parser):
    """Two runs give one result, whichever thread is faster; the detector works in a thread of its own."""
    names, runs = set(), []

    class Slow(Painted):
        def detect(self, image, frame=0):
            names.add(threading.current_thread().name)
            time.sleep(0.004 * (frame % 3) * len(runs))
            return super().detect(image, frame)

    parser.detector = Slow()
    for _ in range(2):
        boxes = []
        run(
            open_source(str(make_clip(9))),
            parser,
            [],
            detect_every=None,
            on_frame=lambda f, r, boxes=boxes: boxes.append([(p.track_id, p.box.tolist()) for p in r]),
        )
        runs.append(boxes)
    assert runs[0] == runs[1] and all(name.startswith("qanet-detect") for name in names)


def test_smoothing_numbers_the_people_of_a_boxes_file(make_clip, parser, boxes_file):
    parser.detector, ids = BoxesFile(boxes_file), []
    run(
        open_source(str(make_clip(4))),
        parser,
        [],
        carry=False,
        smooth=True,
        on_frame=lambda f, r: ids.append(sorted(p.track_id for p in r)),
    )
    assert ids == [[1, 2]] * 4


def test_the_memory_of_stage_times_is_bounded(monkeypatch, parser):
    monkeypatch.setattr(pipeline, "KEPT_SAMPLES", 8)
    monkeypatch.setattr(summaries, "KEPT_SAMPLES", 8)
    parser.detector = Painted()
    summary = run(Made([np.zeros((32, 32, 3), np.uint8)] * 40), parser, [])
    assert max(len(samples) for samples in summary.stages_ms.values()) <= 16


@pytest.mark.parametrize("rate", [0.0, float("nan"), 1e6])
def test_a_file_that_tells_no_rate_plays_at_25(make_clip, monkeypatch, rate):
    clip, real = make_clip(3), cv2.VideoCapture

    class Rateless:
        def __init__(self, *arguments):
            self.inner = real(*arguments)

        def get(self, prop):
            return rate if prop == cv2.CAP_PROP_FPS else self.inner.get(prop)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr("qanet.runtime.video.decoders.has_pyav", lambda: False)
    monkeypatch.setattr(cv2, "VideoCapture", Rateless)
    source = open_source(str(clip))
    assert source.fps == 25 and len(list(source)) == 3


@pytest.mark.parametrize(("depth", "dtype"), [(cv2.CV_8U, np.uint8), (cv2.CV_16U, np.uint16)])
def test_greyscale_video_is_parsed_as_grey(parser, tmp_path, depth, dtype):
    options = [cv2.VIDEOWRITER_PROP_IS_COLOR, 0, cv2.VIDEOWRITER_PROP_DEPTH, depth]
    path, seen = tmp_path / "grey.mkv", []
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (34, 28), options)
    assert writer.isOpened()
    for _ in range(3):
        writer.write(np.full((28, 34), np.iinfo(dtype).max // 2, dtype))
    writer.release()
    run(open_source(str(path)), parser, [], on_frame=lambda frame, result: seen.append(result.image))
    assert [image.shape for image in seen] == [(28, 34, 3)] * 3
    assert all(np.abs(image.astype(int) - 127).max() < 3 for image in seen)


@pytest.mark.parametrize("name", ["o.jsonl", "o.avi", "o.webm", "pictures", "o.png"])
def test_an_output_under_a_file_cannot_be_opened(parser, make_clip, tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    path, before = tmp_path / "file" / name, threading.active_count()
    results, output = (str(path), None) if name.endswith("jsonl") else (None, str(path))
    kind = "image" if name == "o.png" else "video"
    with pytest.raises(QanetError, match="(could not|cannot) write .*file"):
        run(open_source(str(make_clip(20))), parser, open_sinks(output, results, kind, 10.0))
    assert threading.active_count() == before and sorted(os.listdir(tmp_path)) == ["clip.avi", "file"]


def test_a_file_in_the_place_of_a_folder_is_refused_at_once(parser, make_clip, tmp_path):
    (tmp_path / "pictures").write_text("no folder")
    with pytest.raises(QanetError, match="cannot write .*pictures .expected a folder, got a file of that name"):
        run(open_source(str(make_clip(2))), parser, open_sinks(str(tmp_path / "pictures"), None, "video", 10.0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_drops_still_ends_the_run(parser):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)  # what is raised in a finaliser is only printed

    def drop(frame, result):
        if frame.index == 3:
            Dropped()

    images = [np.zeros((32, 32, 3), np.uint8)] * 50
    summary = run(Made(images), parser, [], on_frame=drop)
    assert summary.interrupted and summary.frames == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
