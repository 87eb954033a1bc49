"""Several streams and one engine: the results of each alone, batches across them, and nobody held up by another."""

import json
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detections, WholeImage
from qanet.runtime.parser import Parser, batches
from qanet.runtime.video import live
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.live import LiveSource
from qanet.runtime.video.pipeline import run, run_streams
from qanet.runtime.video.sinks import JsonLines
from qanet.runtime.video.stream import FrameWork, Stream


def our_threads():
    """Names of the threads that a run starts."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("qanet-")]


@pytest.fixture(autouse=True)
def threads():
    """No test leaves a thread."""
    yield
    deadline = time.monotonic() + 3
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert our_threads() == []


class Painted:
    """A detector that finds whatever is not black in each half of the picture."""

    name = "painted"

    def detect(self, image, frame=0):
        half, boxes = image.shape[1] // 2, []
        for start in (0, half):
            part = image[:, start : start + half]
            y, x = np.flatnonzero(part.any((1, 2))), np.flatnonzero(part.any((0, 2)))
            if len(y):
                boxes.append([start + x[0], y[0], start + x[-1] + 1, y[-1] + 1])
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32))


class Counting:
    """An engine that notes how many people come at once."""

    def __init__(self, inner):
        self.inner, self.runtime, self.precision, self.sizes = inner, inner.runtime, inner.precision, []

    def run(self, crops, scores):
        self.sizes.append(len(crops))
        return self.inner.run(crops, scores)


@pytest.fixture
def parser(tiny_parser):
    """A parser of its own times and detector, whose engine counts."""
    return Parser(tiny_parser.bundle, Counting(tiny_parser.engine), "kernel", Painted())


class Made:
    """A source of given pictures, as of a video; `error` ends it; all but two wait for `gate`, each for `slow_s`."""

    kind, fps = "video", 25.0

    def __init__(self, images, error=None, slow_s=0.0, gate=None):
        self.images, self.error, self.slow_s, self.gate = images, error, slow_s, gate
        self.expected_frames, self.warnings = len(images), []

    def __iter__(self):
        for index, image in enumerate(self.images):
            time.sleep(self.slow_s)
            assert self.gate is None or index < 2 or self.gate.wait(30)
            yield Frame(index, str(index), image)
        if self.error:
            raise self.error


def moving_people(people, count, seed):
    """Frames of two people who walk, of an odd size for odd seeds, and vanish for a while."""
    frames = []
    for index in range(count):
        image = np.zeros((130 + seed, 180 + 2 * seed, 3), np.uint8)
        shift = 2 * index + seed
        if not 8 <= index < 10:
            image[2:122, shift % 20 : shift % 20 + 160] = people(0)
        frames.append(image)
    return frames


def stream(parser, source, sinks=(), **options):
    given = {"detect_every": None, "carry": True, "smooth": False, "max_people": 32} | options
    return Stream(source, FrameWork(parser, source.kind, **given), list(sinks))


@pytest.mark.parametrize("smooth", [False, True])
def test_each_stream_gives_what_it_gives_alone(parser, people, tmp_path, smooth):
    clips = [moving_people(people, 14, seed) for seed in range(3)]
    for number, clip in enumerate(clips):
        run(Made(clip), parser, [JsonLines(tmp_path / f"alone{number}")], detect_every=None, smooth=smooth)
    parser.engine.sizes.clear()
    streams = [
        stream(parser, Made(clip), [JsonLines(tmp_path / f"beside{number}")], smooth=smooth)
        for number, clip in enumerate(clips)
    ]
    summary = run_streams(streams, parser)
    for number in range(3):
        alone = (tmp_path / f"alone{number}").read_text()
        assert alone == (tmp_path / f"beside{number}").read_text() and alone.count("track_id") > 20
    assert summary.frames == 42 and [part.frames for part in summary.streams] == [14] * 3
    assert max(parser.engine.sizes) >= 4  # people of several streams went through the engine together
    assert summary.people == sum(part.people for part in summary.streams)
    document = summary.streams[0].to_json()
    assert document["stages_ms"].keys() == {"decode", "frame", "write"} and document["frames_per_second"] > 0
    assert {"crop", "engine", "tail"} <= summary.to_json()["stages_ms"].keys()


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([], 4, []),
        ([0, 0], 4, []),
        ([2, 2], 4, [[(0, 0, 2), (1, 0, 2)]]),
        ([5], 4, [[(0, 0, 4)], [(0, 4, 5)]]),
        ([3, 0, 3], 4, [[(0, 0, 3), (2, 0, 1)], [(2, 1, 3)]]),
        ([1, 1, 1], 1, [[(0, 0, 1)], [(1, 0, 1)], [(2, 0, 1)]]),
    ],
)
def test_people_are_laid_into_batches_in_order(counts, size, expected):
    made = [[(number, where.start, where.stop) for number, where in batch] for batch in batches(counts, size)]
    assert made == expected


def test_people_of_several_images_are_parsed_as_those_of_each(parser, people):
    images = [people(0), people(1)[:, :81], np.zeros((20, 30, 3), np.uint8)]
    found = [parser.detector.detect(image) for image in images]
    found[0] = found[0].take(np.tile(np.arange(len(found[0])), 10))  # 20 people: more than a batch
    together = parser.parse_batch(list(zip(images, found)))
    assert parser.engine.sizes[0] == 16 and len(together[2]) == 0
    for image, some, result in zip(images, found, together):
        assert np.array_equal(result.labels, parser.parse(image, some).labels)


def test_a_round_takes_no_more_people_than_a_batch_holds(parser):
    class Crowd:
        name = "crowd"

        def detect(self, image, frame=0):
            boxes = np.array([(x, 0, x + 20, 40) for x in range(0, 220, 20)], np.float32)  # 11 people
            return Detections(boxes, np.full(len(boxes), 0.9, np.float32))

    parser.detector = Crowd()
    image = np.full((40, 240, 3), (0, 0, 255), np.uint8)
    streams = [stream(parser, Made([image] * 6), carry=False, detect_every=1) for _ in range(3)]
    summary = run_streams(streams, parser)
    assert parser.engine.sizes == [11] * 18 and [part.frames for part in summary.streams] == [6] * 3


class Closed:
    """A sink that takes nothing until the gate opens."""

    def __init__(self, gate):
        self.gate = gate

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def write(self, frame, result):
        assert self.gate.wait(30)


@pytest.mark.parametrize("slow", ["source", "sink"])
def test_a_slow_stream_does_not_hold_the_others_up(parser, slow):
    """The slow one goes on only once the other has come to its end."""
    parser.detector, gate = WholeImage(), threading.Event()
    image, order = np.full((32, 32, 3), 200, np.uint8), []
    source, sinks = Made([image] * 20, gate=gate if slow == "source" else None), [Closed(gate)] * (slow == "sink")
    streams = [stream(parser, source, sinks), stream(parser, Made([image] * 40))]

    def tell(which, frame, result):
        order.append(streams.index(which))
        if order.count(1) == 40:
            gate.set()

    run_streams(streams, parser, tell)
    assert order.count(0) == 20 and order[-10:] == [0] * 10 and order.count(1) == 40


@pytest.mark.parametrize("broken", ["source", "sink", "detector"])
def test_a_stream_that_breaks_off_leaves_the_others_alone(parser, people, tmp_path, broken):
    class Full(JsonLines):
        def write(self, frame, result):
            raise QanetError("could not write", got="No space left on device")

    class Picky(Painted):
        def detect(self, image, frame=0):
            if image.shape[0] == 131:
                raise QanetError("cannot look at this")
            return super().detect(image, frame)

    good, bad = moving_people(people, 12, 0), moving_people(people, 12, 1)
    sink = (Full if broken == "sink" else JsonLines)(tmp_path / "bad.jsonl")
    source = Made(bad, error=QanetError("the file went away") if broken == "source" else None)
    parser.detector = Picky() if broken == "detector" else Painted()
    streams = [stream(parser, source, [sink]), stream(parser, Made(good), [JsonLines(tmp_path / "good.jsonl")])]
    summary = run_streams(streams, parser)
    words = {"source": "the file went away", "sink": "No space left", "detector": "cannot look at this"}
    assert words[broken] in summary.streams[0].error and summary.streams[1].error is None
    assert os.listdir(tmp_path) == ["good.jsonl"] and summary.streams[1].frames == 12


def test_where_all_break_off_the_first_error_is_raised(parser, tmp_path):
    sources = [Made([], error=QanetError(f"broken {number}")) for number in range(2)]
    with pytest.raises(QanetError, match="broken 0"):
        run_streams([stream(parser, source) for source in sources], parser)


def test_a_bug_ends_all_of_them_and_leaves_nothing(parser, people, tmp_path):
    sources = [Made(moving_people(people, 6, 0), error=ZeroDivisionError()), Made(moving_people(people, 6, 1))]
    with pytest.raises(ZeroDivisionError):
        run_streams([stream(parser, s, [JsonLines(tmp_path / f"{n}.jsonl")]) for n, s in enumerate(sources)], parser)
    assert os.listdir(tmp_path) == []


def test_an_output_that_cannot_be_opened_stops_all_before_the_first_frame(parser, tmp_path):
    (tmp_path / "o.jsonl").mkdir()
    image = np.zeros((32, 32, 3), np.uint8)
    streams = [stream(parser, Made([image])), stream(parser, Made([image]), [JsonLines(tmp_path / "o.jsonl")])]
    with pytest.raises(QanetError, match="a folder of that name"):
        run_streams(streams, parser)
    assert parser.times.samples_ms == {}


def test_ctrl_c_keeps_what_was_parsed_of_each(parser, people, tmp_path):
    def interrupt(which, frame, result):
        if min(part.summary.frames for part in streams) == 3:
            signal.raise_signal(signal.SIGINT)

    clips = [moving_people(people, 40, seed) for seed in (0, 1)]
    paths = [(tmp_path / f"{n}.jsonl", tmp_path / f"{n}.avi") for n in range(2)]
    streams = [
        stream(parser, Made(clip), [JsonLines(lines), VideoFileSink(video, 25)])
        for clip, (lines, video) in zip(clips, paths)
    ]
    summary = run_streams(streams, parser, interrupt)
    assert summary.interrupted and summary.frames < 80
    for part, (lines, video) in zip(summary.streams, paths):
        assert len(lines.read_text().splitlines()) == part.frames >= 3
        assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == part.frames


def test_the_first_ctrl_c_raises_nothing_and_the_second_at_once(parser):
    """An exception between taking a lock and its `with` would leave the threads of the run waiting for ever."""
    reached = []

    def interrupt(frame, result):
        signal.raise_signal(signal.SIGINT)
        reached.append(frame.index)
        if frame.index == 0:
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    summary = run(Made([np.zeros((32, 32, 3), np.uint8)] * 50), parser, [], on_frame=interrupt)
    assert summary.interrupted and summary.frames == 1 and reached == [0]


class Camera:
    """Pictures at a rate, for a time; then it breaks off."""

    def __init__(self, seconds, rate):
        self.end, self.rate = time.monotonic() + seconds, rate
        self.next = time.monotonic()

    def read(self):
        self.next = max(self.next + 1 / self.rate, time.monotonic() - 1 / self.rate)
        if time.monotonic() < self.end:
            time.sleep(max(0.0, self.next - time.monotonic()))
        return time.monotonic() < self.end, np.full((48, 64, 3), 200, np.uint8)

    def get(self, prop):
        return 50.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def release(self):
        self.end = 0.0


def test_a_live_stream_cut_off_ten_times_does_not_hold_the_other_up(parser, monkeypatch):
    """Each time the one comes back only once three more frames of the other were parsed."""
    monkeypatch.setattr(live, "_BROKEN_WAIT_S", 0.001)
    parser.detector = WholeImage()
    steady_camera, times, held_up = Camera(60, 100), [], []

    def connect():
        if len(times) == 11:
            steady_camera.end = 0.0
            raise QanetError("cannot open it again")
        goal, deadline = steady.summary.frames + 3, time.monotonic() + 20
        while times and steady.summary.frames < goal:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        held_up.append(steady.summary.frames < goal and bool(times))
        times.append(time.monotonic())
        return Camera(0.05, 100)

    def again():
        if steady_camera.end == 0.0:
            raise QanetError("cannot open it again")
        return steady_camera

    quick = {"stall_s": 5.0, "give_up_s": 0.1, "first_wait_s": 0.01, "longest_wait_s": 0.02}
    steady = stream(parser, LiveSource("steady", again, lambda text: None, **quick))
    broken = stream(parser, LiveSource("broken", connect, lambda text: None, **quick))
    summary = run_streams([broken, steady], parser)
    assert summary.streams[0].reconnects == 10 and held_up == [False] * 11
    assert summary.streams[1].frames >= 30 and summary.streams[1].reconnects == 0
    assert summary.streams[0].warnings[0].startswith("broken broke off and did not come back")


def test_a_live_stream_that_stalls_holds_nobody_up_and_ctrl_c_does_not_wait_for_it(parser):
    hang = threading.Event()

    class Stalled(Camera):
        def read(self):
            if time.monotonic() > self.end:
                hang.wait(20)
            return super().read()

    stalled = LiveSource("stalled", lambda: Stalled(0.2, 50), lambda text: None, stall_s=60.0)
    image, seen = np.full((32, 32, 3), 200, np.uint8), []
    parser.detector = WholeImage()
    streams = [stream(parser, stalled), stream(parser, Made([image] * 30, slow_s=0.02))]

    def tell(which, frame, result):
        seen.append(which)
        if seen.count(streams[1]) == 30:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    start, usual = (
        time.monotonic(),
        signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # in the background: ignored
    try:
        summary = run_streams(streams, parser, tell)
    finally:
        hang.set()
        signal.signal(signal.SIGINT, usual)
    assert summary.interrupted and summary.streams[1].frames == 30 and time.monotonic() - start < 8


def test_the_document_of_a_command_with_streams(make_clip, shared_tiny_bundle, tmp_path, capfd):
    from qanet.__main__ import main

    clip, out = make_clip(5), tmp_path / "out"
    arguments = [
        "parse",
        clip,
        "--streams",
        2,
        "--output-dir",
        out,
        "--labels",
        tmp_path / "labels",
        "--whole-image",
        "--model",
        shared_tiny_bundle,
        "--threads",
        1,
    ]
    assert main([str(a) for a in (*arguments, "--json")]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [part["name"] for part in document["streams"]] == ["clip", "clip-2"] and document["frames"] == 10
    assert sorted(os.listdir(out)) == ["clip-2.jsonl", "clip-2.mp4", "clip.jsonl", "clip.mp4"]
    assert (out / "clip.jsonl").read_text() == (out / "clip-2.jsonl").read_text()
    assert len(os.listdir(tmp_path / "labels" / "clip-2")) == 5
    assert main([str(a) for a in (*arguments, "--quiet")]) == 0
    text = capfd.readouterr().out
    assert text.startswith("10 frames of 2 streams, 1.00 people per frame") and "frames/s" in text
    assert f"wrote {out}/clip-2.mp4" in text
