"""Which decoder takes a file: what is there, the same pictures, the faster; and each decoder over made-up libraries."""

import ctypes
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.video import decoders as choice
from qanet.runtime.video import hardware, live
from qanet.runtime.video.decoders import Software, choose
from qanet.runtime.video.hardware import GStreamer, Nvidia
from qanet.runtime.video.sources import open_source

PICTURES = [np.full((6, 8, 3), (10 * n, 100, 200), np.uint8) for n in range(5)]


class Capture:
    """Pictures from a list."""

    def __init__(self, pictures, slow_s=0.0):
        self.pictures, self.slow_s, self.released = list(pictures), slow_s, False

    def read(self):
        time.sleep(self.slow_s)
        return (True, self.pictures.pop(0)) if self.pictures else (False, None)

    def get(self, prop):
        return 20.0 if prop == cv2.CAP_PROP_FPS else 5.0

    def release(self):
        self.released = True


class Decoder:
    """A decoder of a name, a speed and its own idea of the pictures."""

    def __init__(self, name, slow_s=0.0, pictures=PICTURES, lack=None):
        self.name, self.slow_s, self.pictures, self.why, self.opened = name, slow_s, pictures, lack, []

    def lack(self):
        return self.why

    def open(self, path):
        if self.pictures is None:
            return None
        self.opened.append(Capture(self.pictures, self.slow_s))
        return self.opened[-1]


CASES = {
    "only software": ([Decoder("software"), Decoder("nvidia", lack="none here")], "software", {"nvidia": "none here"}),
    "hardware is faster": ([Decoder("software", 0.02), Decoder("nvidia")], "nvidia", {}),
    "hardware is slower": ([Decoder("software"), Decoder("gstreamer", 0.02)], "software", {}),
    "it cannot decode this": (
        [Decoder("software", 0.01), Decoder("nvidia", pictures=None)],
        "software",
        {"nvidia": "cannot decode this file"},
    ),
    "it has no picture": (
        [Decoder("software", 0.01), Decoder("nvidia", pictures=[])],
        "software",
        {"nvidia": "cannot decode this file"},
    ),
    "it does not turn": (
        [Decoder("software", 0.01), Decoder("nvidia", pictures=[np.rot90(p) for p in PICTURES])],
        "software",
        {"nvidia": "its pictures are 6x8, not 8x6"},
    ),
    "it swaps red and blue": (
        [Decoder("software", 0.01), Decoder("nvidia", pictures=[p[..., ::-1] for p in PICTURES])],
        "software",
        {"nvidia": "its pictures differ by 133 levels on average"},
    ),
    "software cannot": (
        [Decoder("software", pictures=None), Decoder("nvidia")],
        "nvidia",
        {"software": "cannot decode this file"},
    ),
    "nobody can": (
        [Decoder("software", pictures=None), Decoder("nvidia", pictures=None)],
        "software",
        {"software": "cannot decode this file", "nvidia": "cannot decode this file"},
    ),
}


@pytest.mark.parametrize(("known", "best", "left_out"), CASES.values(), ids=CASES)
def test_the_faster_of_those_with_the_same_pictures_is_taken(known, best, left_out):
    made = choose(Path("clip"), "auto", known)
    assert made.decoder.name == best and made.left_out == left_out
    assert all(capture.released for decoder in known for capture in decoder.opened)
    if len(known) - len([why for why in left_out.values() if why == "none here"]) == 1:
        assert made.frame_ms == {}  # nothing to choose, nothing measured
    assert made.to_json()["name"] == best


def test_a_decoder_that_is_asked_for_is_taken_or_an_error():
    known = [Decoder("software"), Decoder("nvidia", lack="no GPU")]
    assert choose(Path("clip"), "software", known).decoder is known[0]
    with pytest.raises(QanetError, match="this machine has no nvidia decoder .got no GPU"):
        choose(Path("clip"), "nvidia", known)
    with pytest.raises(QanetError, match="unknown decoder .expected auto, software, nvidia, got vulkan"):
        choose(Path("clip"), "vulkan", known)


def test_a_video_tells_what_decodes_it(make_clip, monkeypatch):
    clip = make_clip(4)
    assert open_source(str(clip)).decoder["name"] == "software"
    fast = Decoder("nvidia", pictures=[frame.image for frame in open_source(str(clip))])
    slow = Software()
    monkeypatch.setattr(slow, "open", lambda path: Capture([f.image for f in before], 0.01), raising=False)
    before = list(open_source(str(clip)))
    monkeypatch.setattr(choice.choose, "__defaults__", ("auto", (slow, fast)))
    source = open_source(str(clip))
    assert source.decoder["name"] == "nvidia" and source.decoder["frame_ms"]["nvidia"] < 10
    assert (source.fps, source.expected_frames) == (20.0, 5)
    assert [np.array_equal(a.image, b.image) for a, b in zip(source, before)] == [True] * 4


def test_a_file_that_the_wanted_decoder_cannot_read_is_refused(make_clip, monkeypatch):
    monkeypatch.setattr(choice.choose, "__defaults__", ("auto", (Decoder("software"), Decoder("nvidia", pictures=[]))))
    with pytest.raises(QanetError, match="clip.avi cannot be decoded as video by the nvidia decoder"):
        open_source(str(make_clip(2)), "nvidia")


@pytest.fixture
def pipelines(monkeypatch):
    """An OpenCV with GStreamer: what it was asked to open."""
    asked = []

    def capture(address, backend):
        asked.append((address, backend))
        made = Capture(PICTURES)
        made.isOpened = lambda: "missing" not in address
        return made

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    monkeypatch.setattr(hardware, "has_gstreamer", lambda: True)
    monkeypatch.setattr(hardware, "_JETSON", Path("no such file"))
    return asked


def test_gstreamer_reads_a_file_by_whatever_decoder_is_installed(pipelines, tmp_path, monkeypatch):
    path = tmp_path / 'a "b".mp4'
    assert GStreamer().lack() is None and GStreamer().open(path).read()[0]
    text, backend = pipelines[0]
    assert backend == cv2.CAP_GSTREAMER and '/a \\"b\\".mp4" ! decodebin ! videoflip method=automatic' in text
    assert text.endswith("videoconvert ! video/x-raw,format=BGR ! appsink sync=false max-buffers=4")
    assert GStreamer().open(tmp_path / "missing.mp4") is None
    monkeypatch.setattr(hardware, "_JETSON", tmp_path)
    assert "nvvidconv ! video/x-raw,format=BGRx ! videoflip" in hardware.to_bgr()


def test_this_opencv_says_whether_it_has_gstreamer():
    has = "GStreamer:                   YES" in cv2.getBuildInformation()
    assert hardware.has_gstreamer() == has and (GStreamer().lack() is None) == has


def test_csi_cameras_are_opened_by_their_pipeline(pipelines):
    source = open_source("csi://1", size=(1920, 1080), rate=60.0)
    assert source.kind == "live" and source.fps == 20.0
    text = pipelines[0][0]
    assert text.startswith(
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1"
    )
    assert "nvvidconv" in text and text.endswith("appsink drop=true max-buffers=1 sync=false")
    open_source("csi://0")
    assert "sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1" in pipelines[1][0]
    with pytest.raises(QanetError, match="no camera csi://left .expected csi:// and the sensor's number, got left"):
        open_source("csi://left")


@pytest.mark.parametrize(
    ("uri", "decoder", "words"),
    [
        ("csi://0", "auto", "cannot open csi://0 .expected an OpenCV built with GStreamer, such as JetPack's"),
        ("rtsp://host/x", "gstreamer", "cannot open rtsp://host/x .expected an OpenCV built with GStreamer"),
        ("rtsp://host/x", "nvidia", "nvidia decodes no live stream .expected auto, software or gstreamer"),
    ],
)
def test_what_gstreamer_is_needed_for_is_told(uri, decoder, words, monkeypatch):
    monkeypatch.setattr(hardware, "has_gstreamer", lambda: False)
    with pytest.raises(QanetError, match=words):
        open_source(uri, decoder)


def test_network_streams_may_go_through_gstreamer(pipelines):
    frame = next(iter(open_source("rtsp://host/x", "gstreamer")))  # the newest: the reader may be ahead of this thread
    assert np.array_equal(frame.image, PICTURES[frame.index])
    assert pipelines[0][0].startswith('uridecodebin uri="rtsp://host/x" ! ')
    with pytest.raises(QanetError, match="cannot open rtsp://missing"):
        open_source("rtsp://missing", "gstreamer")


def test_v4l2_cameras_are_asked_for_a_size_and_a_rate(monkeypatch):
    asked = []

    class Camera(Capture):
        def __init__(self, address, backend):
            super().__init__(PICTURES)
            asked.append((address, backend))

        def isOpened(self):
            return True

        def set(self, prop, value):
            asked.append((prop, value))

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    live.open_live("v4l2:///dev/video3", size=(800, 600), rate=15.0)
    width, height, rate = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS
    assert asked == [("/dev/video3", cv2.CAP_V4L2), (width, 800), (height, 600), (rate, 15.0)]


class FakeFrame:
    """An RGB picture in host memory, as PyNvVideoCodec hands it out."""

    def __init__(self, bgr):
        self.rgb = np.ascontiguousarray(bgr[..., ::-1])

    def framesize(self):
        return self.rgb.nbytes

    def GetPtrToPlane(self, plane):
        return self.rgb.ctypes.data_as(ctypes.c_void_p).value


@pytest.fixture
def codec(monkeypatch):
    """A module in the place of PyNvVideoCodec; `script` is what its decoder gives, batch by batch."""
    module = ModuleType("PyNvVideoCodec")
    module.__spec__ = SimpleNamespace()
    module.OutputColorType = SimpleNamespace(RGB="RGB")
    module.script, module.ended, module.asked = [], [], []

    class ThreadedDecoder:
        def __init__(self, path, buffer_size, **options):
            if path.endswith(".txt"):
                raise RuntimeError("unsupported")
            module.asked.append((path, options))

        def get_stream_metadata(self):
            return SimpleNamespace(width=8, height=6, average_fps=20.0, num_frames=5)

        def get_batch_frames(self, count):
            batch = module.script.pop(0) if module.script else []
            if isinstance(batch, Exception):
                raise batch
            return batch

        def end(self):
            module.ended.append(True)

    module.ThreadedDecoder = ThreadedDecoder
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
    return module


def test_nvidia_frames_come_as_bgr_and_broken_ones_as_none(codec):
    odd = FakeFrame(np.zeros((4, 4, 3), np.uint8))
    codec.script = [[FakeFrame(p) for p in PICTURES[:2]], RuntimeError("corrupt"), [odd, FakeFrame(PICTURES[2])]]
    assert Nvidia().lack() is None
    capture = Nvidia().open(Path("a.mp4"))
    got = [capture.read() for _ in range(6)]
    assert [ok for ok, _ in got] == [True, True, False, False, True, False]
    assert all(np.array_equal(got[at][1], PICTURES[n]) for at, n in ((0, 0), (1, 1), (4, 2)))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (20.0, 5.0)
    assert codec.asked == [("a.mp4", {"use_device_memory": False, "output_color_type": "RGB"})]
    capture.release()
    capture.release()
    assert codec.ended == [True] and capture.read() == (False, None)
    assert Nvidia().open(Path("a.txt")) is None


def test_without_pynvvideocodec_there_is_no_nvidia_decoder(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Nvidia().lack() == "PyNvVideoCodec is not installed"
