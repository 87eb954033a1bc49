"""INA3221: the power rails of Jetson boards, as hwmon (or the older iio driver) shows them; what tegrastats prints."""

from collections.abc import Callable
from pathlib import Path

from qanet.benchmarks.energy.source import PowerIntegral, Unavailable

SYS = Path("/sys")
# The rail that everything hangs on, where a board has one; the others would be counted twice beside it.
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
    return lambda: _number(name, volts) * _number(name, amperes) / 1e6


def _single(name: str, power: Path) -> Callable[[], float]:
    return lambda: _number(name, power) / 1e3


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(name: str, path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise Unavailable(f"INA3221: rail {name} cannot be read") from error
