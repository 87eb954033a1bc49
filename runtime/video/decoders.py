"""Decoders of video files, and the choice among them: the fastest one that gives the same pictures."""

import importlib.util
import math
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import MAX_SIDE_PX
from qanet.quiet import quiet_opencv
from qanet.runtime.video.frame import Capture, read_frame
from qanet.runtime.video.hardware import GStreamer, Nvidia

_FRAMES = 30
_STILL = ("image2", "ico")  # FFmpeg's containers of still pictures, as is every NAME_pipe
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # of colours, 16..235 and 0..255; PyAV 16 does not expand by default
_MAX_ASPECT = 8.0  # of a pixel; a value beyond it is a broken header
_SAME_LEVELS = 8.0  # mean difference of two decoders' pictures; conversions to RGB differ by less


class Decoder(Protocol):
    """A way to decode a file."""

    name: str

    def lack(self) -> str | None:
        """Why this machine does not have it; None if it has."""
        ...

    def open(self, path: Path) -> Capture | None:
        """The opened file; None if this decoder cannot read it."""
        ...


def has_pyav() -> bool:
    """Whether PyAV is installed; without it OpenCV decodes files and network streams."""
    return importlib.util.find_spec("av") is not None


class Software:
    """Decoding on the CPU by PyAV, or by OpenCV where PyAV is not installed; the reference for the other decoders."""

    name = "software"

    def lack(self) -> str | None:
        """See `Decoder.lack`."""
        return None

    def open(self, path: Path) -> Capture | None:
        """See `Decoder.open`."""
        if has_pyav():
            try:
                return AvCapture(os.path.abspath(path))  # 12:30.mp4 is no address
            except OSError:
                return None
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(os.path.abspath(path))
        if capture.isOpened():
            return capture
        capture.release()
        return None


class AvCapture:
    """The first video stream of a file, an address or a pipe, decoded by PyAV.

    Rotation metadata and the pixel aspect are applied: the pixels of a frame are square. A broken packet is one failed
    `read`. `still` names the format of a file that is no video but a picture.

    Args:
        source: path, address, or an object with `read(size) -> bytes`.
        options: of FFmpeg's demuxer and protocol.
        container: name of the container format; None: FFmpeg recognises it.
        timeout_s: longest time to open, and to wait for data; None: no limit.
        low_delay: decode with threads inside a frame only: several frames at once are faster, and later.
    Raises:
        OSError: not a video, or no answer in time.
    """

    def __init__(
        self,
        source: Any,
        options: dict[str, str] | None = None,
        container: str | None = None,
        timeout_s: float | None = None,
        low_delay: bool = False,
    ):
        import av
        from av.video.reformatter import Interpolation, VideoReformatter

        self._av = av
        try:
            self._container = av.open(source, format=container, container_options=options or {}, timeout=timeout_s)
        except av.error.ExitError:
            raise OSError(f"no answer within {timeout_s or 0:g} s") from None
        except (av.error.FFmpegError, ValueError) as error:
            raise OSError(getattr(error, "strerror", None) or str(error)) from None
        if not self._container.streams.video:
            self._container.close()
            raise OSError("no video stream")
        name = self._container.format.name
        self.still = name.removesuffix("_pipe") if name in _STILL or name.endswith("_pipe") else None
        self._path = source if isinstance(source, str) and not low_delay else None
        self._begin("SLICE" if low_delay else "AUTO")
        if self._stream.codec_context.name == "mjpeg" and not isinstance(source, str):
            self._stream.codec_context.options = {"err_detect": "explode"}  # a cut picture is broken, not grey below
        self._reformatter, self._interpolation = VideoReformatter(), Interpolation.BICUBIC
        self._frames: deque[Any] = deque()
        self._newest_packet = self._newest_frame = -math.inf  # timestamps
        self._given = -math.inf  # timestamp of the newest frame before the end was decoded again
        self._broken = self._known_broken = 0  # packets after the newest frame; those counted before the end was reread
        self._first_s: float | None = None
        self._time_s = 0.0
        self.ended = False

    def _begin(self, thread_type: str) -> None:
        self._stream: Any = self._container.streams.video[0]
        self._stream.thread_type = thread_type
        self._packets = self._container.demux(self._stream)

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Whether there was a frame, and the frame, (H, W, 3) uint8 BGR; see `ended`."""
        try:
            while not self._frames:
                packet = None if self.ended else next(self._packets, None)
                if packet is None:
                    if self.ended or not self._decode_end_again():
                        self.ended = True
                        return False, None
                elif not self._decode(packet):
                    return False, None
        except self._av.error.FFmpegError:  # nothing more can be read
            self.ended = True
            return False, None
        frame = self._frames.popleft()
        if frame.time is not None:
            self._first_s = frame.time if self._first_s is None else self._first_s
            self._time_s = frame.time - self._first_s
        try:
            full = {"dst_color_range": _FULL_RANGE} if frame.color_range == _LIMITED_RANGE else {}
            size = square_size(frame.width, frame.height, self._pixel_aspect())
            if size != (frame.width, frame.height):
                full |= {"width": size[0], "height": size[1]}
            converted = self._reformatter.reformat(frame, format="bgr24", interpolation=self._interpolation, **full)
            image = np.asarray(converted.to_ndarray(), np.uint8)
        except (self._av.error.FFmpegError, ValueError):
            return False, None
        if turns := round(getattr(frame, "rotation", 0) / 90) % 4:
            image = np.ascontiguousarray(np.rot90(image, turns))
        return True, image

    def _pixel_aspect(self) -> float:
        """Width of a pixel by its height, as the container says, else as the codec does."""
        return float(self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio or 1)

    def _decode(self, packet: Any) -> bool:
        """Decode a packet, whose frames may come later; False if it is broken."""
        if packet.size and packet.pts is not None:
            self._newest_packet = max(self._newest_packet, packet.pts)
        try:
            decoded = packet.decode()
        except self._av.error.FFmpegError:
            if not packet.size or (packet.pts is not None and packet.pts <= self._given):
                return True
            if self._known_broken:
                self._known_broken -= 1
                return True
            self._broken += 1
            return False
        for frame in decoded:
            if self._given == -math.inf or (frame.pts is not None and frame.pts > self._given):
                self._frames.append(frame)
                self._broken = self._known_broken = 0
                self._newest_frame = max(self._newest_frame, -math.inf if frame.pts is None else frame.pts)
        return True

    def _decode_end_again(self) -> bool:
        """Decode again from the last good frame, once, if later frames are missing at the end of a file.

        Decoding with several threads loses the frames that are still in the threads when the last packets are broken.
        """
        if self._path is None or self._newest_frame >= self._newest_packet or self._newest_frame == -math.inf:
            return False
        self._container.close()
        self._container, self._path = self._av.open(self._path), None
        self._known_broken, self._given = self._broken, self._newest_frame
        self._begin("SLICE")
        self._container.seek(int(self._newest_frame), stream=self._stream)
        return True

    def get(self, prop: int) -> float:
        """Frames per second, number of frames (estimated where the file does not count them), time of the last."""
        import cv2

        rate = float(self._stream.guessed_rate or self._stream.average_rate or 0)
        if prop == cv2.CAP_PROP_FPS:
            return rate
        if prop == cv2.CAP_PROP_POS_MSEC:
            return self._time_s * 1000
        if prop != cv2.CAP_PROP_FRAME_COUNT:
            return 0.0
        by_time, count = self._duration_s() * rate, self._stream.frames
        if count and by_time and "mp4" in self._container.format.name:
            # an edit list shows fewer frames than the file counts, and no part of a frame
            return float(min(count, math.floor(by_time + 0.01)))
        return float(count or math.ceil(by_time - 0.01))

    def _duration_s(self) -> float:
        """Of the video stream, where the file tells it; of the whole file otherwise."""
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        if said := re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", self._stream.metadata.get("DURATION", "")):  # Matroska
            return int(said[1]) * 3600 + int(said[2]) * 60 + float(said[3])
        return (self._container.duration or 0) / self._av.time_base

    def release(self) -> None:
        """Close the file."""
        self.ended = True
        self._frames.clear()
        self._container.close()


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """(width, height) of a frame with square pixels, where one pixel was `aspect` times as wide as high.

    The short side of a pixel is stretched, so that nothing is lost. An aspect that no video has is ignored.

    >>> square_size(160, 240, 2.0), square_size(720, 480, 8 / 9)
    ((320, 240), (720, 540))
    """
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        return width, height
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return size if max(size) <= MAX_SIDE_PX else (width, height)


KNOWN: tuple[Decoder, ...] = (Software(), GStreamer(), Nvidia())
NAMES = tuple(decoder.name for decoder in KNOWN)


@dataclass(frozen=True)
class Choice:
    """The chosen decoder and the reasons.

    Attributes:
        decoder: the chosen one.
        frame_ms: decoder name -> milliseconds per frame, of the measured ones.
        left_out: decoder name -> why it was not a candidate.
    """

    decoder: Decoder
    frame_ms: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the summary."""
        times = {name: round(ms, 3) for name, ms in self.frame_ms.items()}
        return {"name": self.decoder.name, "frame_ms": times, "left_out": self.left_out}


def choose(path: Path, wanted: str = "auto", known: Sequence[Decoder] = KNOWN) -> Choice:
    """The decoder for a file.

    Args:
        path: of the file; with "auto" each available decoder reads its first frames, if there are several.
        wanted: name of a decoder, or "auto".
    Raises:
        QanetError: an unknown decoder, or one that this machine does not have.
    """
    if wanted != "auto":
        return Choice(_named(wanted, known))
    left_out = {decoder.name: lack for decoder in known if (lack := decoder.lack()) is not None}
    available = [decoder for decoder in known if decoder.name not in left_out]
    software = available[0]
    if len(available) == 1:
        return Choice(software, {}, left_out)
    frame_ms, expected = {}, None
    for decoder in available:
        measured = _measure(decoder, path)
        if measured is None:
            left_out[decoder.name] = "cannot decode this file"
            continue
        frame_ms[decoder.name], pictures = measured
        expected = pictures if decoder is software else expected
        if expected is not None and (difference := _difference(pictures, expected)) is not None:
            left_out[decoder.name] = difference
    candidates = [decoder for decoder in available if decoder.name in frame_ms and decoder.name not in left_out]
    best = min(candidates, key=lambda decoder: frame_ms[decoder.name], default=software)
    return Choice(best, frame_ms, left_out)


def _named(wanted: str, known: Sequence[Decoder]) -> Decoder:
    for decoder in known:
        if decoder.name == wanted:
            if (lack := decoder.lack()) is not None:
                raise QanetError(f"this machine has no {wanted} decoder", got=lack, next_command="qanet doctor")
            return decoder
    raise QanetError("unknown decoder", expected=f"auto, {', '.join(d.name for d in known)}", got=wanted)


def _measure(decoder: Decoder, path: Path) -> tuple[float, list[NDArray[np.uint8]]] | None:
    """Milliseconds per frame, and the first and last picture; None if the file cannot be decoded.

    The first frame is not timed: it includes the start-up, which occurs once per file.
    """
    capture = decoder.open(path)
    if capture is None:
        return None
    try:
        first = last = read_frame(capture)
        if first is None:
            return None
        count, start = 0, time.perf_counter()
        while count < _FRAMES - 1 and (image := read_frame(capture)) is not None:
            last, count = image, count + 1
        elapsed_ms = (time.perf_counter() - start) * 1e3
    finally:
        capture.release()
    assert last is not None
    return elapsed_ms / max(count, 1), [first, last]


def _difference(pictures: list[NDArray[np.uint8]], expected: list[NDArray[np.uint8]]) -> str | None:
    """How the pictures of a decoder differ from those of the software decoder; None if they do not."""
    for picture, other in zip(pictures, expected):
        if picture.shape != other.shape:  # such as a rotation that is not applied
            return f"its pictures are {picture.shape[1]}x{picture.shape[0]}, not {other.shape[1]}x{other.shape[0]}"
        levels = float(np.abs(picture.astype(np.int16) - other).mean())
        if levels > _SAME_LEVELS:
            return f"its pictures differ by {levels:.0f} levels on average"
    return None
