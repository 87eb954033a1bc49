"""The newest frame of a stream for the live page; drawn and encoded at most once, and only on request."""

import threading
import time
from collections import deque
from typing import Any

from qanet.errors import QanetError
from qanet.results import People
from qanet.runtime.video.frame import Frame, Source

_RATE_OVER_S = 2.0
_QUALITY = 80  # of the JPEGs: half the bytes of 95, without a visible difference
_LOST = ("dropped", "skipped", "reconnects")


class Feed:
    """Pictures and state of one stream. `publish` is cheap; the threads of the clients draw and encode.

    Args:
        name: of the stream.
        source: its counts of lost frames are part of the state.
        max_width: of the pictures, in pixels.
    """

    def __init__(self, name: str, source: Source, max_width: int):
        self.name, self._source, self._max_width = name, source, max_width
        self.ended = False
        self._changed = threading.Condition()
        self.encoded = 0  # number of encoded pictures
        self._number = self._people = 0
        self._newest: tuple[Frame, People] | None = None
        self._times: deque[float] = deque()  # times of the last frames
        self._encoding = threading.Lock()
        self._picture: tuple[int, bytes] = (0, b"")

    def publish(self, frame: Frame, result: People) -> None:
        """Replace the newest frame."""
        now = time.monotonic()
        with self._changed:
            self._number, self._people = self._number + 1, self._people + len(result)
            self._newest = (frame, result)
            self._times.append(now)
            self._forget(now)
            self._changed.notify_all()

    def end(self) -> None:
        """Mark the end of the stream and wake the waiting clients."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def picture(self, after: int = 0, timeout_s: float | None = None) -> tuple[int, bytes] | None:
        """The newest picture, once its number is above `after`.

        Returns:
            Number and JPEG; None after the timeout or at the end of the stream.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._number > after, timeout_s)
            if self._number <= after or self._newest is None:
                return None
        with self._encoding:  # one client encodes, the others reuse it
            with self._changed:
                number, (_, result) = self._number, self._newest
            if self._picture[0] != number:
                self._picture = number, _jpeg(result, self._max_width)
                self.encoded += 1
            return self._picture

    def state(self) -> dict[str, Any]:
        """Counts, rate and people of the newest frame, as plain data."""
        with self._changed:
            now = time.monotonic()
            self._forget(now)
            state: dict[str, Any] = {
                "name": self.name,
                "kind": self._source.kind,
                "ended": self.ended,
                "frames": self._number,
                "people_total": self._people,
                "frame_rate": round(self._rate(), 2),
                **{name: getattr(self._source, name, 0) for name in _LOST},
            }
            newest = self._newest
        if newest is None:
            return state | {"frame": None, "frame_name": None, "image_size": None, "people": []}
        frame, result = newest
        document = result.to_json(masks=False)
        return state | {
            "frame": frame.index,
            "frame_name": frame.name,
            "image_size": document["image_size"],
            "people": document["people"],
        }

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Ids, names and colours of the parts; empty before the first frame."""
        if self._newest is None:
            return []
        labels = self._newest[1].label_set
        return [
            {"class_id": i, "class": labels.classes[i], "rgb": labels.colours_rgb[i].tolist()}
            for i in range(1, labels.num_classes)
        ]

    def _forget(self, now: float) -> None:
        while len(self._times) > 2 and self._times[0] < now - _RATE_OVER_S:
            self._times.popleft()

    def _rate(self) -> float:
        """Frames per second over the last seconds; falls towards 0 when frames stop."""
        if len(self._times) < 2:
            return 0.0
        until = self._times[-1] if self.ended else max(self._times[-1], time.monotonic() - self._gap_s())
        return (len(self._times) - 1) / max(until - self._times[0], 1e-3)

    def _gap_s(self) -> float:
        """Mean time between frames: a frame may be late by this much before the rate falls."""
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)


def _jpeg(result: People, max_width: int) -> bytes:
    import cv2

    ok, data = cv2.imencode(".jpg", result.draw(max_width=max_width), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise QanetError("cannot encode a picture as JPEG", expected="an OpenCV with JPEG")
    return data.tobytes()
