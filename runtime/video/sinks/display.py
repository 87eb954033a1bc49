"""The overlay in a window."""

import contextlib
import os
import re
import sys

from qanet.errors import QanetError
from qanet.results import People
from qanet.runtime.video.sinks.base import StopRun
from qanet.runtime.video.sources.base import Frame

_QUIT_KEYS = (27, ord("q"))
_ELSE = "qanet parse INPUT OUTPUT.webm"


class Display:
    """Shows each frame in a window of OpenCV's; q, Esc or closing the window ends the run.

    All calls of a window come from the thread that writes, as window systems want it.
    """

    def __init__(self, title: str, max_width: int = 0):
        self.title, self.max_width = title, max_width
        self._shown = self._closed = False

    def __enter__(self) -> "Display":
        import cv2

        kind = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
        if kind is None or kind[1] == "NONE":
            raise QanetError(
                "no display",
                expected="an OpenCV with windows",
                got="a headless one",
                next_command=f"pip install opencv-python in place of opencv-python-headless, or {_ELSE}",
            )
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise QanetError("no display", expected="a desktop session", got="no DISPLAY is set", next_command=_ELSE)
        return self

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        import cv2

        if self._closed:
            return
        try:
            if not self._shown:
                cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.imshow(self.title, result.draw(max_width=self.max_width))
            key = cv2.waitKey(1) & 0xFF
            closed = self._shown and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise QanetError("cannot show a window", got=str(error).splitlines()[-1], next_command=_ELSE) from error
        self._shown = True
        if key in _QUIT_KEYS or closed:
            self._closed = True
            raise StopRun

    def __exit__(self, *_: object) -> None:
        import cv2

        if self._shown:
            with contextlib.suppress(cv2.error):  # the user closed it
                cv2.destroyWindow(self.title)
