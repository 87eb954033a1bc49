"""The live page as a sink: one server for all streams of a run."""

import time
from types import TracebackType
from typing import Any

import numpy as np

from qanet import _version
from qanet.commandline import note
from qanet.results import People
from qanet.runtime.serve.address import Address
from qanet.runtime.serve.feed import Feed
from qanet.runtime.serve.server import Server
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.frame import Frame, Source

_MAX_WIDTH = 1280  # of the pictures, unless --max-width is given
_SAMPLES = 200  # latest samples per stage


class LivePage:
    """Serves the live page from the start of the first stream to the end of the last.

    Args:
        address: to listen on.
        max_width: of the pictures, in pixels; 0: 1280.
    """

    def __init__(self, address: Address, max_width: int = 0):
        self.address, self._max_width = address, max_width or _MAX_WIDTH
        self.feeds: list[Feed] = []
        self._about: dict[str, Any] = {}
        self._times: list[list[StageTimes]] = []
        self._open = 0
        self._start = 0.0
        self.server: Server | None = None

    def stream(self, name: str, source: Source) -> "PageSink":
        """The sink of one stream."""
        self.feeds.append(Feed(name, source, self._max_width))
        return PageSink(self, self.feeds[-1])

    def describe(self, about: dict[str, Any], times: list[list[StageTimes]]) -> None:
        """Set what the page shows besides the frames.

        Args:
            about: model, runtime, precision and detector.
            times: stage times to show, for each stream.
        """
        self._about, self._times = about, times

    def enter(self) -> None:
        """Start the server with the first stream; QanetError if it cannot listen."""
        if self._open == 0:
            self.server = Server(self.address, self.feeds, self.state)
            self._start = time.monotonic()
            self.server.start()
            note(f"note: live page at {self.server.url}")
            if not self.address.is_loopback:
                note(
                    "warning: anyone on the network can see the live page and its pictures; "
                    f"--serve 127.0.0.1:{self.server.port} keeps it to this machine"
                )
        self._open += 1

    def leave(self) -> None:
        """Stop the server with the last stream."""
        self._open -= 1
        if self._open == 0 and self.server is not None:
            for feed in self.feeds:
                feed.end()
            self.server.close()

    def state(self) -> dict[str, Any]:
        """The content of state.json."""
        streams = []
        for number, feed in enumerate(self.feeds):
            times = self._times[number] if number < len(self._times) else []
            streams.append({**feed.state(), "stages_ms": _medians(times)})
        return {
            "qanet_edge": _version.__version__,
            **self._about,
            "uptime_s": round(time.monotonic() - self._start, 2),
            "classes": self.feeds[0].classes if self.feeds else [],
            "streams": streams,
        }


class PageSink:
    """The sink that passes the frames of one stream to the page."""

    def __init__(self, page: LivePage, feed: Feed):
        self._page, self._feed = page, feed

    def __enter__(self) -> "PageSink":
        self._page.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.end()
        self._page.leave()

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        self._feed.publish(frame, result)


def _medians(times: list[StageTimes]) -> dict[str, dict[str, float]]:
    """Median of the latest samples of each stage; other threads may add samples meanwhile."""
    found = {}
    for one in times:
        for stage, samples in list(one.samples_ms.items()):
            if latest := samples[-_SAMPLES:]:
                found[stage] = {"p50": round(float(np.median(latest)), 3), "n": len(latest)}
    return found
