"""Energy meters: RAPL of x86 processors, NVML of NVIDIA GPUs, INA3221 of Jetson boards."""

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Unavailable(Exception):
    """There is no such sensor, or it cannot be read; the message has the sensor and the reason."""


class EnergySource(Protocol):
    """A running total of energy; the difference of two readings is what was used between them."""

    name: str  # "RAPL package-0", ...

    def joules(self) -> float:
        """Joules since some start of its own; Unavailable when it stops answering."""
        ...

    def close(self) -> None:
        """Release threads and handles."""
        ...


class PowerIntegral:
    """Adds up a power sensor's readings in a thread: watts times the time between them (trapezoids).

    Args:
        name: of the sensor.
        watts: one reading; may raise Unavailable, which `joules` hands on.
        period_s: between readings.
        clock: monotonic seconds.
    """

    def __init__(
        self, name: str, watts: Callable[[], float], period_s: float = 0.02, clock: Callable[[], float] = time.monotonic
    ):
        self.name, self._watts, self._period_s, self._clock = name, watts, period_s, clock
        self._lock = threading.Lock()
        self._total_j = 0.0
        self._last: tuple[float, float] | None = None  # seconds, watts
        self._error: Unavailable | None = None
        self._stop = threading.Event()
        self.sample()
        if self._error is not None:
            raise self._error
        self._thread = threading.Thread(target=self._work, name="qanet-power", daemon=True)
        self._thread.start()

    def sample(self) -> None:
        """Take one reading now."""
        try:
            watts = self._watts()
        except Unavailable as error:
            with self._lock:
                self._error = error
            return
        with self._lock:
            now = self._clock()
            if self._last is not None:
                self._total_j += (now - self._last[0]) * (watts + self._last[1]) / 2
            self._last = (now, watts)

    def joules(self) -> float:
        """See `EnergySource.joules`."""
        self.sample()
        with self._lock:
            if self._error is not None:
                raise self._error
            return self._total_j

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._period_s):
            self.sample()


POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """RAPL, the energy counters that Linux shows under powercap: the packages of all sockets together.

    Counters are microjoules that wrap around.

    Read it more often than it wraps: at 200 W a counter of 32 bits of 61 uJ does so after 22 minutes.

    Args:
        root: the powercap class of a sysfs tree.
    Raises:
        Unavailable: no counter, or none that this user may read.
    """

    def __init__(self, root: Path = POWERCAP):
        zones = [zone for zone in sorted(root.glob("*-rapl:*")) if zone.name.count(":") == 1]
        packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
        if not packages:
            raise Unavailable(f"RAPL: no package counter under {root}")
        self._zones = packages
        self._ranges = [_number(zone / "max_energy_range_uj", zone) for zone in packages]
        self._last = [_number(zone / "energy_uj", zone) for zone in packages]
        self._total_uj = 0
        self.name = f"RAPL {', '.join(_text(zone / 'name') for zone in packages)}"

    def joules(self) -> float:
        """See `EnergySource.joules`."""
        for index, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj", zone)
            step = now - self._last[index]
            self._total_uj += step if step >= 0 else step + self._ranges[index]
            self._last[index] = now
        return self._total_uj / 1e6

    def close(self) -> None:
        """Nothing is held."""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path, zone: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError as error:
        raise Unavailable(f"RAPL: {zone.name}/{path.name} may only be read by root") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"RAPL: {zone.name}/{path.name} cannot be read") from error


_SUCCESS = 0
_REASONS = {1: "not initialised", 3: "not supported by this GPU", 4: "no permission", 9: "no driver", 15: "GPU lost"}


class _Counter:
    """A total that the GPU itself counts, in millijoules."""

    def __init__(self, library: Any, device: ctypes.c_void_p, name: str):
        self.name, self._library, self._device = f"NVML energy of {name}", library, device
        self.joules()

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        _check("energy", self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(value)))
        return value.value / 1e3

    def close(self) -> None:
        """The driver frees the rest when the process ends."""


def open_nvml(index: int = 0, library: Any = None) -> EnergySource:
    """The GPU's energy counter (Volta and later); its power reading, integrated, where it has none.

    Args:
        library: what to call instead of libnvidia-ml.so.1; for tests.
    Raises:
        Unavailable: no driver, no GPU, or neither energy nor power can be read (Jetsons answer "not supported").
    """
    if library is None:
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as error:
            raise Unavailable("NVML: libnvidia-ml.so.1 is not there: no NVIDIA driver") from error
    _check("start", library.nvmlInit_v2())
    device = ctypes.c_void_p()
    _check(f"GPU {index}", library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)))
    text = ctypes.create_string_buffer(96)
    _check("name", library.nvmlDeviceGetName(device, text, 96))
    name = text.value.decode(errors="replace")
    try:
        return _Counter(library, device, name)
    except Unavailable:
        return PowerIntegral(f"NVML power of {name}", lambda: _watts(library, device))


def _watts(library: Any, device: ctypes.c_void_p) -> float:
    value = ctypes.c_uint()
    _check("power", library.nvmlDeviceGetPowerUsage(device, ctypes.byref(value)))
    return value.value / 1e3


def _check(what: str, code: int) -> None:
    if code != _SUCCESS:
        raise Unavailable(f"NVML: {what}: {_REASONS.get(code, f'error {code}')}")


SYS = Path("/sys")
# Rails of the whole board: where there is one, adding the others would count them twice.
_WHOLE = ("VDD_IN", "VIN", "VIN_SYS_5V0", "POM_5V_IN", "VDD_TOTAL")


def rails(sys: Path = SYS) -> dict[str, Callable[[], float]]:
    """Rail -> its power in watts now.

    Args:
        sys: the sysfs tree.
    """
    found: dict[str, Callable[[], float]] = {}
    for hwmon in sorted((sys / "class/hwmon").glob("hwmon*")):
        if _text(hwmon / "name") == "ina3221":
            for label in sorted(hwmon.glob("in[1-3]_label")):
                number = label.name[2]
                pair = (hwmon / f"in{number}_input", hwmon / f"curr{number}_input")  # millivolts, milliamperes
                name = _text(label)
                if name and name != "NC" and all(path.exists() for path in pair):
                    found[name] = _product(name, *pair)
    for device in sorted((sys / "bus/iio/devices").glob("iio:device*")):
        for label in sorted(device.glob("rail_name_*")):
            power = device / f"in_power{label.name[-1]}_input"  # milliwatts
            if _text(label) and power.exists():
                found[_text(label)] = _single(_text(label), power)
    return found


def open_ina3221(sys: Path = SYS) -> PowerIntegral:
    """The board's whole power, integrated; where no rail carries all of it, the sum of the rails.

    Raises:
        Unavailable: no such sensor, or one that cannot be read.
    """
    known = rails(sys)
    if not known:
        raise Unavailable(f"INA3221: no rail under {sys}/class/hwmon or {sys}/bus/iio")
    whole = [name for name in _WHOLE if name in known]
    names = whole[:1] or list(known)
    return PowerIntegral(f"INA3221 {', '.join(names)}", lambda: sum(known[name]() for name in names))


def _product(name: str, volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: _rail_number(name, volts) * _rail_number(name, amperes) / 1e6


def _single(name: str, power: Path) -> Callable[[], float]:
    return lambda: _rail_number(name, power) / 1e3


def _rail_number(name: str, path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise Unavailable(f"INA3221: rail {name} cannot be read") from error
