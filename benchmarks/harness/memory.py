"""Peak memory: how much a call takes beyond what was resident, and the most the process ever had."""

from collections.abc import Callable
from pathlib import Path

from qanet.benchmarks.harness.rounds import Measurement

_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Reads this process's resident memory where Linux tells it.

    Args:
        status, reset: files of /proc/self.
    """

    def __init__(self, status: Path = _STATUS, reset: Path = _PEAK_RESET):
        self._status, self._reset = status, reset

    def peak_mib(self) -> float | None:
        """The most resident memory since the start, or since the last reset; None where it is not told."""
        return _mib(self._kib("VmHWM"))

    def extra_mib(self, call: Callable[[], object]) -> float | None:
        """Growth of the resident memory at its peak over one call; None where the peak cannot be reset or read."""
        try:
            self._reset.write_text("5")  # the kernel forgets the peak so far
        except OSError:
            return None
        before = self._kib("VmRSS")
        call()
        after = self._kib("VmHWM")
        return None if before is None or after is None else _mib(max(after - before, 0))

    def _kib(self, key: str) -> int | None:
        try:
            lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines() if ":" in line)
            return int(lines[key].split()[0])
        except (OSError, KeyError, ValueError):
            return None


def measure_extra(measurements: list[Measurement], reader: PeakMemory | None = None) -> dict[str, float | None]:
    """Target's name -> MiB one more call of it takes at its peak; after the timing, since reading disturbs it.

    A target that fails here keeps its timing and gets None.
    """
    reader = reader or PeakMemory()
    found: dict[str, float | None] = {}
    for measurement in measurements:
        if measurement.error is not None or not measurement.samples_ms:
            continue
        call = measurement.target.call
        try:
            found[measurement.target.name] = reader.extra_mib(lambda call=call: call(0))  # type: ignore[misc]
        except Exception:  # the timing stands
            found[measurement.target.name] = None
    return found


def _mib(kib: int | None) -> float | None:
    return None if kib is None else round(kib / 1024, 3)
