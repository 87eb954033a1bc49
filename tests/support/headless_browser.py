"""A real browser without a screen, driven over its debugging pipe; nothing to install beside the browser itself."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-default-browser-check",
    "--mute-audio",
    "about:blank",
)
_FIRST_FREE_FD = 10  # the browser reads commands from 3 and answers on 4


def find_browser() -> str:
    """Its path; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser to show the page in: none of {', '.join(_NAMES)}")
    return found


class Browser:
    """One tab. `events` holds what it told: (method, parameters) pairs.

    Args:
        profile: an empty folder of its own.
    """

    def __init__(self, profile: Path):
        self.events: list[tuple[str, dict]] = []
        command_read, self._write = (fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE_FD) for fd in os.pipe())
        self._read, answer_write = (fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE_FD) for fd in os.pipe())

        def hand_over() -> None:
            os.dup2(command_read, 3)
            os.dup2(answer_write, 4)

        self._process = subprocess.Popen(
            [find_browser(), f"--user-data-dir={profile}", *_OPTIONS],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            pass_fds=(3, 4, command_read, answer_write),
            preexec_fn=hand_over,
            start_new_session=True,
        )
        os.close(command_read)
        os.close(answer_write)
        self._left, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        """A command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, timeout_s: float) -> dict:
        """The next message; an event is remembered."""
        deadline = time.monotonic() + timeout_s
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 65536) if ready else b""
            assert data, f"the browser said nothing for {timeout_s} s"
            self._left += data
        one, _, self._left = self._left.partition(b"\0")
        message = json.loads(one)
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message

    def open(self, url: str, width: int, height: int, dark: bool = False) -> None:
        """Show a page in a window of a size in CSS pixels; less than 500 wide counts as a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState !== 'loading'")

    def evaluate(self, expression: str) -> object:
        """What a JavaScript expression comes to; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 30) -> object:
        """The first value of an expression that is true in JavaScript."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [told["request"]["url"] for method, told in self.events if method == "Network.requestWillBeSent"]

    def complaints(self) -> list[object]:
        """What the page wrote to the console as an error or a warning, and exceptions nobody caught."""
        found: list[object] = []
        for method, told in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"].get("exception", told))
            elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(told["entry"])
            elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(told["args"])
        return found

    def close(self) -> None:
        """End the browser, whatever it does."""
        self._session = None
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
