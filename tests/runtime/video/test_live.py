"""Live sources made up for the test: the newest frame wins, a lost one is tried again, and nothing ever hangs."""

import threading
import time

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.video import live
from qanet.runtime.video.live import LiveSource, is_live, open_live
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.sources import open_source


class Camera:
    """A capture that gives numbered pictures at a rate, and does what its script says at a frame.

    Args:
        turn: a semaphore that the one who takes the frames releases; then none comes before it is wanted.
        script: frame number -> "broken" (no picture), "hang" (until released by `freed`), or a picture.
    """

    def __init__(self, frames, rate=1000.0, script=None, fps=30.0, turn=None):
        self.turn = turn
        self.frames, self.rate, self.script, self.fps = frames, rate, script or {}, fps
        self.count, self.released, self.freed = 0, threading.Event(), threading.Event()

    def read(self):
        what = self.script.get(self.count)
        if self.count >= self.frames:
            return False, None
        self.count += 1
        if self.turn is None:
            time.sleep(1 / self.rate)
        elif not isinstance(what, str):
            self.turn.acquire(timeout=5)
        if isinstance(what, str):
            if what == "hang":
                self.freed.wait(10)
            return False, None
        return True, what if what is not None else np.full((48, 64, 3), self.count, np.uint8)

    def get(self, prop):
        return self.fps if prop == cv2.CAP_PROP_FPS else 0.0

    def release(self):
        self.released.set()


class Line:
    """A stream that gives one camera after another; None refuses the connection."""

    def __init__(self, *cameras):
        self.cameras, self.attempts, self.said = list(cameras), [], []

    def connect(self):
        self.attempts.append(time.monotonic())
        camera = self.cameras.pop(0) if self.cameras else None
        if camera is None:
            raise QanetError("cannot open the line")
        return camera

    def source(self, **options):
        quick = {"stall_s": 2.0, "give_up_s": 0.1, "first_wait_s": 0.02, "longest_wait_s": 0.05} | options
        return LiveSource("line", self.connect, self.said.append, **quick)


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """No test leaves a thread; and none waits long for a broken stream."""
    monkeypatch.setattr(live, "_BROKEN_WAIT_S", 0.002)
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_the_newest_frame_wins_and_the_others_are_counted():
    camera, seen = Camera(60, rate=500), []
    source = Line(camera).source()
    for frame in source:
        time.sleep(0.02)
        seen.append((frame.index, int(frame.image[0, 0, 0])))
        assert 0 <= time.monotonic() - frame.captured_s < 2
    assert all(value == index + 1 for index, value in seen)  # each is the camera's own picture of that number
    assert source.dropped == 60 - len(seen) > 20 and np.diff([index for index, _ in seen]).max() > 3
    assert camera.released.is_set()


def in_turn(frames, script=None):
    """The frames that a source gives when each comes only once the last was taken."""
    turn, taken = threading.Semaphore(1), []
    source = Line(Camera(frames, script=script, turn=turn)).source()
    for frame in source:
        taken.append(frame)
        turn.release()
    return source, taken


def test_a_slow_source_loses_nothing():
    source, frames = in_turn(20)
    assert [frame.index for frame in frames] == list(range(20)) and source.dropped == 0


def test_a_source_that_breaks_off_is_tried_again_and_says_so():
    line = Line(Camera(5, 100), None, None, Camera(5, 100))
    source = line.source(give_up_s=0.9, first_wait_s=0.1, longest_wait_s=0.4)
    indices = [frame.index for frame in source]
    assert indices[-1] == 9 and len(indices) + source.dropped == 10 and (np.diff(indices) > 0).all()
    assert source.reconnects == 1
    assert line.said[0] == "line broke off; trying again" and line.said[1].startswith("line is back after 0.")
    waits = np.diff(line.attempts[1:4])
    assert waits[1] > 1.5 * waits[0]  # 0.2 s after 0.1 s: the waits grow
    assert source.warnings == ["line broke off and did not come back within 0.9 s"]


def test_a_source_cut_off_ten_times_comes_back_ten_times():
    source = Line(*(Camera(3, 200) for _ in range(11))).source(give_up_s=0.05)
    assert len(list(source)) + source.dropped == 33 and source.reconnects == 10


def test_a_stream_that_stalls_is_left_and_opened_again():
    stalled, fresh = Camera(9, 200, {3: "hang"}), Camera(4, 200)
    line, start = Line(stalled, fresh), time.monotonic()
    source = line.source(stall_s=0.2)
    frames = list(source)
    assert len(frames) + source.dropped == 7 and source.reconnects == 1 and time.monotonic() - start < 6
    assert line.said[0] == "line sent nothing for 0.2 s; trying again"
    assert not stalled.released.is_set()  # a capture is not released while it reads
    stalled.freed.set()
    assert stalled.released.wait(2)


def test_a_source_that_cannot_be_opened_at_first_is_an_error():
    with pytest.raises(QanetError, match="cannot open the line"):
        Line().source()


@pytest.mark.parametrize("fps", [0.0, float("nan"), -1.0, 90000.0])
def test_a_rate_that_is_none_becomes_25(fps):
    source = Line(Camera(1, fps=fps)).source()
    assert source.fps == 25 and len(list(source)) == 1


def test_broken_frames_are_skipped_and_grey_and_odd_ones_taken():
    grey, odd, deep = np.full((31, 17), 9, np.uint8), np.zeros((47, 33, 4), np.uint8), np.zeros((20, 30), np.uint16)
    script = {1: "broken", 2: "broken", 4: grey, 5: odd, 6: deep, 7: "broken"}
    source, frames = in_turn(10, script)
    assert [f.image.shape for f in frames[2:5]] == [(31, 17, 3), (47, 33, 3), (20, 30, 3)]
    assert source.skipped == 3 and [f.index for f in frames] == [0, 3, 4, 5, 6, 8, 9]


def test_a_live_run_counts_what_it_drops_and_measures_the_delay(parser):
    source = Line(Camera(80, rate=400)).source()
    seen = []
    summary = run(source, parser, [], on_frame=lambda frame, result: (seen.append(frame.index), time.sleep(0.01)))
    document = summary.to_json()
    assert document["dropped"] == source.dropped > 0 and summary.frames + source.dropped == 80
    assert document["stages_ms"]["capture to result"]["n"] == len(seen) == summary.frames
    assert document["warnings"] == ["line broke off and did not come back within 0.1 s"]


@pytest.mark.parametrize("where", ["parsing", "waiting"])
def test_ctrl_c_ends_a_live_run_at_once(parser, where):
    camera = Camera(10**6, 200, {5: "hang"} if where == "waiting" else {})
    line = Line(camera)

    def interrupt(frame, result):
        if frame.index >= 3:
            raise KeyboardInterrupt

    if where == "waiting":  # the stream stalls, and the user gives up while it is being tried again
        line.source = lambda: LiveSource("line", line.connect, _raise_interrupt, stall_s=0.1)
    summary = run(line.source(), parser, [], on_frame=interrupt if where == "parsing" else None)
    assert summary.interrupted and summary.frames >= 1
    camera.freed.set()
    assert camera.released.wait(2)


def _raise_interrupt(text):
    raise KeyboardInterrupt


def test_two_streams_at_once_do_not_hold_each_other_up(parser):
    """One is cut off and restored over and over while the other goes on."""
    steady, counts = Line(Camera(100, 200)).source(), []
    broken = Line(*(Camera(2, 200) if k % 2 == 0 else None for k in range(30))).source(give_up_s=0.2)
    other = threading.Thread(target=lambda: counts.append(len(list(broken))))
    start = time.monotonic()
    other.start()
    frames = len(list(steady))
    assert frames + steady.dropped == 100 and time.monotonic() - start < 6
    other.join(10)
    assert counts and broken.reconnects >= 10


def test_addresses_of_live_sources_are_known():
    for uri in ("/dev/video0", "v4l2:///dev/video1", "rtsp://host/stream", "http://host/a.mjpg", "udp://@:1234"):
        assert is_live(uri)
    assert not any(is_live(uri) for uri in ("clip.mp4", "file:///dev/video", "folder", "rtsp"))


@pytest.mark.parametrize("uri", ["/dev/video93", "v4l2:///dev/video93", "rtsp://127.0.0.1:9/nothing"])
def test_a_stream_that_is_not_there_is_one_error(uri):
    with pytest.raises(QanetError, match=f"cannot open {uri}.*; next: "):
        open_source(uri)


def test_without_pyav_opencv_is_asked_with_limits_of_time(monkeypatch):
    asked = []
    monkeypatch.setattr(live, "has_pyav", lambda: False)

    class Fake(Camera):
        def __init__(self, *arguments):
            super().__init__(3, 100)
            asked.append(arguments)

        def isOpened(self):
            return True

    monkeypatch.setattr(cv2, "VideoCapture", Fake)
    monkeypatch.setattr(live, "_GIVE_UP_S", 0.0)
    source = open_live("rtsp://host/stream")
    assert next(iter(source)).index in range(3)  # the newest: the reader may be ahead of this thread
    address, backend, limits = asked[0]
    assert (address, backend) == ("rtsp://host/stream", cv2.CAP_FFMPEG)
    assert dict(zip(limits[::2], limits[1::2]))[cv2.CAP_PROP_READ_TIMEOUT_MSEC] == 5000
