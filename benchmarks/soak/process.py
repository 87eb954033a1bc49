"""What this process holds just now, by Linux's word: resident memory, threads, open files."""

import threading
from dataclasses import dataclass
from pathlib import Path

from qanet.errors import QanetError

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Reading:
    """One look at the process, after so many frames.

    Attributes:
        threads: of the operating system; the pools of OpenVINO and OpenCV are among them and stay.
        python_threads: those that Python knows, which are the pipeline's.
    """

    frame: int
    rss_mib: float
    threads: int
    python_threads: int
    files: int


def read_process(frame: int, proc: Path = _PROC) -> Reading:
    """Look at this process.

    Raises:
        QanetError: the system has no /proc.
    """
    try:
        lines = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        rss_mib = int(lines["VmRSS"].split()[0]) / 1024
        files = sum(1 for _ in (proc / "fd").iterdir())
        return Reading(frame, rss_mib, int(lines["Threads"]), threading.active_count(), files)
    except (OSError, KeyError, ValueError) as error:
        raise QanetError("memory cannot be watched here", expected="Linux's /proc", got=f"no {error}") from error


class Watch:
    """Collects a reading every so many frames."""

    def __init__(self, every: int):
        self.every = every
        self.readings: list[Reading] = []

    def __call__(self, frames: int) -> None:
        """`frames` are done."""
        if frames % self.every == 0:
            self.readings.append(read_process(frames))
