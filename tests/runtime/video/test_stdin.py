"""Standard input: Motion-JPEG in every form, broken pictures passed over, and inputs that are no video."""

import io
import json
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.runtime.video import sources
from qanet.runtime.video.sources import PipeSource, open_source


def jpeg(number, *options, size=(24, 32)):
    """A picture of one grey level, 20 times its number."""
    return cv2.imencode(".jpg", np.full((*size, 3), 20 * number, np.uint8), list(options))[1].tobytes()


def noisy(seed):
    """A picture whose coded data is long and full of 0xff."""
    picture = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def with_thumbnail(picture, thumbnail):
    """A JPEG with another one inside its metadata."""
    segment = b"Exif\0\0" + thumbnail
    return picture[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + picture[2:]


PROGRESSIVE, RESTARTS = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
PICTURES = [jpeg(1), noisy(1), jpeg(2, *PROGRESSIVE), jpeg(3, *RESTARTS), with_thumbnail(jpeg(4), jpeg(5)), noisy(2)]
PART = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
FORMS = {
    "one after another": b"".join(PICTURES),
    "multipart": PART + PART.join(PICTURES) + b"\r\n--frame--\r\n",
    "filled up": b"\0\0\xff".join(PICTURES),
}


def piped(data, **options):
    """A source of a pipe that somebody else writes to."""
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()
    return PipeSource(reader, "the pipe", **options)


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_every_picture_is_a_frame(data):
    source = piped(data)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(6)) and source.warnings == []
    for frame, picture in zip(frames, PICTURES):
        expected = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert frame.image.shape == expected.shape
        assert np.abs(frame.image.mean((0, 1)) - expected.mean((0, 1))).max() < 2


def test_frames_are_numbered_and_broken_ones_counted():
    broken = jpeg(9)[:2] + b"\xff\xfe\0\x04ab\xff\xd9"  # a whole file without a picture
    source = piped(jpeg(1) + noisy(1)[:700] + jpeg(2) + broken + jpeg(3), fps=12.0)
    frames = list(source)
    assert [(f.index, round(f.image.mean() / 20)) for f in frames] == [(0, 1), (2, 2), (4, 3)]
    assert [f.time_s for f in frames] == pytest.approx([0, 2 / 12, 4 / 12])
    assert (source.skipped, source.fps, source.kind) == (2, 12.0, "video")
    assert source.warnings == ["the pipe: broken frames skipped: 2"]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "got nothing"), (b"hello, this is text" * 100, "got 1900 bytes without a frame"), (jpeg(1)[:50], "50")],
)
def test_a_pipe_without_a_picture_is_an_error(data, words):
    with pytest.raises(QanetError, match=f"no frame on the pipe .expected a video, .*{words}.*; next: ffmpeg"):
        list(piped(data))


def test_something_else_that_never_ends_is_an_error_too():
    source = PipeSource(os.open("/dev/zero", os.O_RDONLY), "the pipe")
    with pytest.raises(QanetError, match="bytes without a frame"):
        list(source)


def test_a_silent_pipe_ends_when_it_is_stopped(monkeypatch):
    monkeypatch.setattr(sources, "_LOOK_S", 0.01)
    reader, _ = os.pipe()
    source = PipeSource(reader, "the pipe")
    threading.Timer(0.05, source.stop).start()
    assert list(source) == []


def test_a_closed_standard_input_and_a_terminal_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(QanetError, match="standard input is closed"):
        open_source("-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    with pytest.raises(QanetError, match="standard input is closed"):
        open_source("-")
    terminal, mine = os.openpty()
    with os.fdopen(mine) as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(QanetError, match="standard input is a terminal .expected a video"):
            open_source("-")
    os.close(terminal)


def test_the_command_reads_standard_input(shared_tiny_bundle, tmp_path):
    options = ["--whole-image", "--json", "--results", tmp_path / "o.jsonl", "--threads", "1"]
    command = [sys.executable, "-m", "qanet", "parse", "-", "--model", shared_tiny_bundle, *options]
    done = subprocess.run(command, input=b"".join(jpeg(n) for n in range(4)), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["frames"], document["input"]) == (4, "-") and len((tmp_path / "o.jsonl").read_text().split()) == 4
