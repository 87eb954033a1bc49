"""Files as people have them, decoded and written by PyAV: true times, rotation, deep colour, damage, browsers."""

import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from headless_browser import Browser, find_browser

from qanet.errors import QanetError
from qanet.runtime.video import live
from qanet.runtime.video.decoders import AvCapture, Software
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.sinks import JsonLines
from qanet.runtime.video.sources import open_source

STEP = 12  # grey levels between two frames of a clip
UNEVEN_S = [0.0, 0.04, 0.24, 0.28, 0.9, 1.5, 1.54, 2.0]


def write_clip(path, codec="libx264", pixels="yuv420p", size=(64, 48), times_s=None, count=10, options=None):
    """A clip whose frame k has grey level 20 + STEP * k; 10 frames/s, or at the given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(times_s or [k / 10 for k in range(count)]):
            picture = np.full((size[1], size[0], 3), 20 + STEP * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format=pixels)
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def number_of(image):
    """The number of a clip's frame, from its grey level."""
    return round((float(image.mean()) - 20) / STEP)


def times_of(path):
    """The times of a file's frames in seconds."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


FORMATS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "hevc10.mp4": ("libx265", "yuv420p10le"),
    "hevc.ts": ("libx265", "yuv420p"),
    "av1.mkv": ("libsvtav1", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "deep.mkv": ("ffv1", "yuv444p16le"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_of_every_format_is_read_in_order(tmp_path, name):
    codec, pixels = FORMATS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    source = open_source(str(write_clip(tmp_path / name, codec, pixels, size=(64, 64))))
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == [frame.index for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx([k / 10 for k in range(10)], abs=2e-3)
    assert source.fps == pytest.approx(10) and source.warnings == [] and source.skipped == 0


def test_pyav_and_opencv_give_the_same_pictures(tmp_path, monkeypatch):
    """The fallback without PyAV reads the same pixels at the same times."""
    path = write_clip(tmp_path / "a.mp4", times_s=UNEVEN_S)
    by_pyav = list(open_source(str(path)))
    monkeypatch.setattr("qanet.runtime.video.decoders.has_pyav", lambda: False)
    assert not isinstance(Software().open(path), AvCapture)
    by_opencv = list(open_source(str(path)))
    assert len(by_pyav) == len(by_opencv) == len(UNEVEN_S)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(by_pyav, by_opencv))
    assert [frame.time_s for frame in by_opencv] == pytest.approx(UNEVEN_S, abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_a_variable_frame_rate_is_kept(parser, tmp_path, suffix):
    path = write_clip(tmp_path / "in.mp4", times_s=UNEVEN_S)
    source = open_source(str(path))
    sinks = [VideoFileSink(tmp_path / f"o{suffix}", source.fps), JsonLines(tmp_path / "o.jsonl")]
    summary = run(source, parser, sinks)
    assert times_of(tmp_path / f"o{suffix}") == pytest.approx(UNEVEN_S, abs=2e-3)
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [record["time_s"] for record in records] == pytest.approx(UNEVEN_S, abs=1e-6)
    assert summary.warnings == [] and list(open_source(str(tmp_path / f"o{suffix}")))[-1].time_s == pytest.approx(2.0)


def test_an_avi_holds_a_variable_rate_in_whole_frames(parser, tmp_path):
    source = open_source(str(write_clip(tmp_path / "in.mp4", times_s=[0.0, 0.1, 0.4, 0.45, 0.5, 0.9])))
    run(source, parser, [VideoFileSink(tmp_path / "o.avi", 10.0)])
    assert times_of(tmp_path / "o.avi") == pytest.approx([0.0, 0.1, 0.4, 0.5, 0.6, 0.9])


def test_times_that_start_again_in_the_middle_lose_no_frame(tmp_path):
    part = write_clip(tmp_path / "part.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    frames = list(open_source(str(tmp_path / "joined.ts")))
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(10)]
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()


def turn(path, degrees):
    """Write a rotation into the track header of an .mp4, as a phone does."""
    data, whole = bytearray(path.read_bytes()), 0x10000
    a, b = {0: (whole, 0), 90: (0, whole), 180: (-whole, 0), 270: (0, -whole)}[degrees]
    matrix = data.find(b"tkhd") + 4 + 40  # version 0: numbers of 16.16 and 2.30 bits
    numbers = [a, b, 0, -b, a, 0, 0, 0, 0x40000000]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in numbers)
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_in_the_right_direction(parser, tmp_path, degrees):
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[:16, :32] = 255  # the upper left quarter
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    turn(path, degrees)
    image = next(iter(open_source(str(path)))).image
    expected = np.rot90(picture, -degrees // 90)  # clockwise
    assert image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 8
    assert np.array_equal(image, cv2.VideoCapture(str(path)).read()[1])


def break_packets(path, numbers):
    """Overwrite packets of a file with zeros."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    with path.open("rb+") as file:
        for number in numbers:
            file.seek(packets[number][0])
            file.write(bytes(packets[number][1]))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        ("1/1", (64, 48)),
        ("2/1", (128, 48)),
        ("1/2", (64, 96)),
        ("4/3", (85, 48)),
        ("8/9", (64, 54)),
        ("9999/1", (64, 48)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_that_are_not_square_become_so(parser, tmp_path, suffix, aspect, size):
    path = tmp_path / f"wide{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, 32:] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    frames = [frame.image for frame in open_source(str(path))]
    assert len(frames) == 3 and frames[0].shape == (size[1], size[0], 3)
    third = size[0] // 3
    assert frames[0][:, :third].max() < 40 and frames[0][:, -third:].min() > 215
    out = tmp_path / "out.mp4"
    run(open_source(str(path)), parser, [VideoFileSink(out, 10)])
    with av.open(str(out)) as container:
        written = container.streams.video[0]
        assert (written.width, written.height) == (size[0] // 2 * 2, size[1] // 2 * 2)
        assert (written.sample_aspect_ratio or 1) == 1


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg writes the edit lists")
@pytest.mark.parametrize("cut_s", [("-ss", "0.55"), ("-t", "0.5"), ("-itsoffset", "0.4")])
def test_an_edit_list_is_no_early_end(tmp_path, cut_s):
    whole = write_clip(tmp_path / "whole.mp4", count=20, options={"g": "20", "bf": "0"})
    part = tmp_path / "part.mp4"
    subprocess.run(["ffmpeg", "-loglevel", "error", *cut_s, "-i", str(whole), "-c", "copy", str(part)], check=True)
    source = open_source(str(part))
    frames = list(source)
    assert source.warnings == [] and 4 <= len(frames) <= 20
    assert frames[0].time_s == 0 and frames[-1].time_s == pytest.approx((len(frames) - 1) / 10)


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe", "\u4eba".encode(), b"two words", b"x" * 240])
def test_names_that_are_not_utf8_are_read_and_written(parser, tmp_path, name):
    path = write_clip(tmp_path / "clip.mp4").rename(tmp_path / os.fsdecode(name + b".mp4"))
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    out, lines = folder / os.fsdecode(b"o\xe9.webm"), folder / os.fsdecode(b"o\xe9.jsonl")
    run(open_source(str(path)), parser, [VideoFileSink(out, 10), JsonLines(lines)])
    assert len(times_of(out)) == len(lines.read_text().splitlines()) == 10


@pytest.mark.parametrize("broken", [[4], [2, 3, 7], [1, 8], [7, 8]])
def test_broken_packets_in_the_middle_are_skipped_and_counted(parser, tmp_path, broken):
    path, seen = write_clip(tmp_path / "a.mp4", options={"g": "1", "bf": "0"}), []
    break_packets(path, broken)
    summary = run(open_source(str(path)), parser, [], on_frame=lambda f, r: seen.append((f.index, number_of(f.image))))
    assert seen == [(k, k) for k in range(10) if k not in broken] and summary.skipped == len(broken)
    assert f"broken frames skipped: {len(broken)}, the first is number {broken[0]}" in "".join(summary.warnings)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".webm"])
def test_a_cut_file_is_read_as_far_as_it_goes(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = tmp_path / f"cut{suffix}"
    write_clip(path, codec, options={"g": "1"}, size=(256, 256))
    os.truncate(path, path.stat().st_size * 6 // 10)
    frames = list(open_source(str(path)))
    assert 1 <= len(frames) < 10 and [number_of(frame.image) for frame in frames] == list(range(len(frames)))


def test_an_mp4_plays_while_it_loads_and_says_its_colours(parser, tmp_path):
    path = tmp_path / "o.mp4"
    run(
        open_source(str(write_clip(tmp_path / "in.mp4", size=(101, 75), pixels="yuv444p"))),
        parser,
        [VideoFileSink(path, 10.0)],
    )
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 100, 74)
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, 16..235


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
def test_colours_come_back_as_they_were(parser, tmp_path, suffix):
    class Plain:
        kind, fps, expected_frames, warnings = "video", 10.0, 3, []

        def __iter__(self):
            from qanet.runtime.video.frame import Frame

            return (Frame(k, str(k), np.full((64, 64, 3), (200, 60, 30), np.uint8)) for k in range(3))

    sink = VideoFileSink(tmp_path / f"o{suffix}", 10.0)
    source = Plain()
    with sink:
        for frame in source:
            sink.write(frame, Drawn(frame.image))
    image = next(iter(open_source(str(tmp_path / f"o{suffix}")))).image
    assert np.abs(image.astype(int) - (200, 60, 30)).max() <= 6


class Drawn:
    """A result whose overlay is a given picture."""

    def __init__(self, image):
        self.image = image

    def draw(self, max_width=0):
        return self.image


@pytest.mark.parametrize("container", ["matroska", "mpegts", "mjpeg", "mp4"])
def test_standard_input_takes_streamable_containers(tmp_path, container):
    path = tmp_path / "in.bin"
    with av.open(str(path), "w", format=container, options={"movflags": "frag_keyframe+empty_moov"}) as made:
        stream = made.add_stream("mjpeg" if container == "mjpeg" else "libx264", rate=10)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if container == "mjpeg" else "yuv420p"
        for number in range(6):
            picture = np.full((48, 64, 3), 20 + STEP * number, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        made.mux(stream.encode())
    script = (
        "from qanet.runtime.video.sources import open_source\n"
        "for f in open_source('-'): print(f.index, round((float(f.image.mean()) - 20) / 12), round(f.time_s, 3))"
    )
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", script], stdin=file, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    gap = 0.04 if container == "mjpeg" else 0.1  # JPEGs have no times: 25 frames/s
    assert rows == [(k, k, pytest.approx(k * gap, abs=2e-3)) for k in range(6)]


@pytest.fixture
def served(tmp_path):
    """The address of a server that offers the test's folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_network_stream_is_read_live(tmp_path, served):
    write_clip(tmp_path / "a.ts")
    source = open_source(f"{served}/a.ts")
    source._give_up_s = 0.0
    frames = list(source)
    assert source.kind == "live" and source.fps == pytest.approx(10)
    assert len(frames) + source.dropped == 10 and all(number_of(frame.image) == frame.index for frame in frames)
    assert frames[0].time_s == 0 and frames[-1].captured_s - frames[0].captured_s == frames[-1].time_s
    with pytest.raises(QanetError, match="cannot open .*missing.ts .expected a stream that answers, got .*; next: ff"):
        open_source(f"{served}/missing.ts")


def test_a_server_that_never_answers_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(live, "STALL_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/a.ts"
        with pytest.raises(QanetError, match="cannot open http.*got no answer within 0.3 s.; next: ffprobe"):
            open_source(uri)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_browser_plays_the_overlay(parser, tmp_path, served, suffix):
    find_browser()
    run(
        open_source(str(write_clip(tmp_path / "in.mkv", times_s=UNEVEN_S))),
        parser,
        [VideoFileSink(tmp_path / f"o{suffix}", 10.0)],
    )
    (tmp_path / "page.html").write_text(f"<video id=v muted src=o{suffix}></video>")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"{served}/page.html", 320, 240)
        browser.wait_for("v.readyState >= 2 || v.error")
        assert browser.evaluate("v.error && v.error.message") is None
        assert browser.evaluate("[v.videoWidth, v.videoHeight]") == [64, 48]
        assert browser.evaluate("v.duration") == pytest.approx(2.1, abs=0.15)
        browser.evaluate("v.play()")
        browser.wait_for("v.ended")
        assert browser.evaluate("v.currentTime") == pytest.approx(browser.evaluate("v.duration"), abs=0.05)
    finally:
        browser.close()


def test_without_pyav_a_video_cannot_be_written(parser, tmp_path, make_clip, monkeypatch):
    monkeypatch.setattr("qanet.runtime.video.encode.has_pyav", lambda: False)
    with pytest.raises(QanetError, match="cannot write .*o.mp4 .expected PyAV, got none.; next: pip install av"):
        run(open_source(str(make_clip(2))), parser, [VideoFileSink(tmp_path / "o.mp4", 10.0)])
