"""Label maps, windows and RTSP streams, over a made-up window system and a made-up ffmpeg."""

import os
import stat
import sys
import time
import zlib

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.video import encode as rtsp
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.sinks import indexed_png
from qanet.runtime.video.sources import open_source


@pytest.mark.parametrize("hw", [(1, 1), (3, 5), (120, 161)])
def test_an_indexed_png_holds_numbers_and_colours(hw):
    colours = np.random.default_rng(1).integers(0, 256, (13, 3), np.uint8)
    labels = np.random.default_rng(2).integers(0, 13, hw, np.uint8)
    data = indexed_png(labels, colours)
    assert data[25] == 3  # colour type: a palette
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture[..., ::-1], colours[labels])
    length, start = int.from_bytes(data[data.index(b"IDAT") - 4 :][:4], "big"), data.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8).reshape(hw[0], hw[1] + 1)
    assert np.array_equal(rows[:, 1:], labels) and not rows[:, 0].any()  # the numbers themselves, unfiltered


def test_label_maps_go_to_a_folder_a_frame_each(make_clip, parser, tmp_path):
    expected = {}
    sinks = open_sinks(None, None, "video", 10.0, labels=str(tmp_path / "labels"))
    run(
        open_source(str(make_clip(3))),
        parser,
        sinks,
        on_frame=lambda frame, result: expected.update({frame.index: result.labels}),
    )
    assert sorted(os.listdir(tmp_path / "labels")) == ["000000.png", "000001.png", "000002.png"]
    colours = parser.bundle.labels.colours_rgb
    for index, labels in expected.items():
        picture = cv2.imread(str(tmp_path / "labels" / f"{index:06d}.png"))
        assert labels.any() and np.array_equal(picture[..., ::-1], colours[labels])


def test_the_label_map_of_one_image_may_be_a_file(parser, people, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), people(0))
    run(
        open_source(str(tmp_path / "a.png")),
        parser,
        open_sinks(None, None, "image", 10.0, labels=str(tmp_path / "o.png")),
    )
    assert (tmp_path / "o.png").read_bytes()[25] == 3
    with pytest.raises(QanetError, match="o.png holds one picture, the input is a video .*; next: .* --labels o"):
        open_sinks(None, None, "video", 10.0, labels="o.png")


class Windows:
    """A window system that presses a key, or closes the window, at a frame."""

    def __init__(self, monkeypatch, key=None, closed_at=None):
        self.shown, self.key, self.closed_at, self.destroyed = [], key or {}, closed_at, []
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:     QT5\n")
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: None)
        monkeypatch.setattr(cv2, "imshow", lambda title, picture: self.shown.append((title, picture.shape)))
        monkeypatch.setattr(cv2, "waitKey", lambda delay_ms: self.key.get(len(self.shown), -1))
        monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: float(len(self.shown) != self.closed_at))
        monkeypatch.setattr(cv2, "destroyWindow", self.destroyed.append)


@pytest.mark.parametrize(
    ("options", "frames"), [({}, 40), ({"key": {3: ord("q")}}, 3), ({"key": {2: 27}}, 2), ({"closed_at": 4}, 4)]
)
def test_a_window_shows_each_frame_until_its_user_has_enough(make_clip, parser, monkeypatch, options, frames):
    windows = Windows(monkeypatch, **options)
    sinks = open_sinks("display://", None, "video", 10.0, max_width=80, title="clip")
    summary = run(open_source(str(make_clip(40))), parser, sinks)
    assert windows.shown == [("clip", (60, 80, 3))] * frames and windows.destroyed == ["clip"]
    assert summary.interrupted == (frames < 40) and summary.frames >= frames


def test_without_windows_the_error_says_what_is_missing(make_clip, parser, monkeypatch):
    windows = Windows(monkeypatch)
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    source = open_source(str(make_clip(2)))
    if sys.platform == "linux":
        with pytest.raises(QanetError, match="no display .expected a desktop session, got no DISPLAY is set"):
            run(source, parser, open_sinks("display://", None, "video", 10.0))
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:    NONE\n")
    with pytest.raises(QanetError, match="no display .*got a headless one.; next: pip install opencv-python in"):
        run(source, parser, open_sinks("display://", None, "video", 10.0))
    assert windows.shown == []


FAKE_FFMPEG = """#!{python}
import sys, time
open({log!r}, "w").write(" ".join(sys.argv[1:]))
if {what!r} == "refuse":
    sys.exit("rtsp://host: Connection refused")
if {what!r} == "hang":
    time.sleep(60)
data = sys.stdin.buffer.read()
open({log!r} + ".size", "w").write(str(len(data)))
if {what!r} == "fail":
    sys.exit("the server went away")
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Puts an ffmpeg that does as it is told on the PATH; gives what it was asked and how many bytes it got."""
    folder, log = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()

    def make(what="take"):
        program = folder / "ffmpeg"
        program.write_text(FAKE_FFMPEG.format(python=sys.executable, log=str(log), what=what))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        return log

    return make


def test_ffmpeg_gets_every_frame_and_pushes_it(make_clip, parser, ffmpeg):
    log = ffmpeg()
    sinks = open_sinks("rtsp://host:8554/street", None, "video", 12.5, max_width=101)
    summary = run(open_source(str(make_clip(5))), parser, sinks)
    words = log.read_text()
    assert "-f rawvideo -pixel_format bgr24 -video_size 100x76 -framerate 12.5 -use_wallclock_as_timestamps 1" in words
    assert words.endswith("-f rtsp -rtsp_transport tcp rtsp://host:8554/street") and summary.frames == 5
    assert int((log.parent / "asked.size").read_text()) == 5 * 100 * 76 * 3


@pytest.mark.parametrize(
    ("what", "words"),
    [("refuse", "Connection refused"), ("hang", "no data accepted for 0.3 s"), ("fail", "the server went away")],
)
def test_a_server_that_does_not_take_the_stream_is_one_error(make_clip, parser, ffmpeg, monkeypatch, what, words):
    if what == "hang":
        monkeypatch.setattr(rtsp, "_STALL_S", 0.3)
        monkeypatch.setattr(rtsp, "_END_S", 0.3)
    ffmpeg(what)
    start = time.monotonic()
    with pytest.raises(QanetError, match=f"could not stream to rtsp://host/x .expected an RTSP server .*{words}"):
        run(open_source(str(make_clip(60))), parser, open_sinks("rtsp://host/x", None, "video", 10.0))
    assert time.monotonic() - start < 20


def test_without_ffmpeg_the_error_says_so(make_clip, parser, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QanetError, match="cannot stream to rtsp://host/x .expected ffmpeg on the PATH, got none"):
        run(open_source(str(make_clip(2))), parser, open_sinks("rtsp://host/x", None, "video", 10.0))
