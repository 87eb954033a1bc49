"""The processor: model, instruction sets, clocks, governor, temperature, throttling; and the memory."""

import os
from pathlib import Path
from typing import Any

from qanet.benchmarks.machine.reading import answer, number, read

ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
)
_SYS = Path("/sys")


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model, cores and the instruction sets that matter, from /proc/cpuinfo of x86 or Arm.

    Returns:
        model (None where it is not told), logical_cpus, physical_cores (None where it is not told), isa.
    """
    blocks = [dict(_pair(line) for line in block.splitlines() if ":" in line) for block in text.split("\n\n")]
    cores = [block for block in blocks if "processor" in block]
    first = cores[0] if cores else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    model = first.get("model name") or next((b["Model"] for b in blocks if "Model" in b), None)
    physical = {(c.get("physical id"), c["core id"]) for c in cores if "core id" in c}
    return {
        "model": model or read("/proc/device-tree/model").strip("\0\n ") or None,
        "logical_cpus": len(cores) or os.cpu_count(),
        "physical_cores": len(physical) or None,
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
    }


def parse_meminfo(text: str) -> dict[str, float | None]:
    """Total and available memory in GiB from /proc/meminfo; None where it is not told."""
    kib = dict(_pair(line) for line in text.splitlines() if ":" in line)

    def gib(key: str) -> float | None:
        return round(int(kib[key].split()[0]) / 2**20, 2) if key in kib else None

    return {"total_gib": gib("MemTotal"), "available_gib": gib("MemAvailable")}


def clocks(sys: Path = _SYS) -> dict[str, Any]:
    """Governor, clocks in MHz and the power mode of the machine; None for what it does not tell.

    Args:
        sys: the sysfs tree.
    """
    folder = sys / "devices/system/cpu/cpu0/cpufreq"

    def mhz(name: str) -> float | None:
        khz = number(folder / name)
        return None if khz is None else round(khz / 1000, 1)

    no_turbo, boost = (
        number(sys / "devices/system/cpu/intel_pstate/no_turbo"),
        number(sys / "devices/system/cpu/cpufreq/boost"),
    )
    return {
        "governor": read(folder / "scaling_governor").strip() or None,
        "clock_mhz": mhz("scaling_cur_freq"),
        "min_clock_mhz": mhz("scaling_min_freq"),
        "max_clock_mhz": mhz("cpuinfo_max_freq"),
        "energy_preference": read(folder / "energy_performance_preference").strip() or None,
        "platform_profile": read(sys / "firmware/acpi/platform_profile").strip() or None,
        "turbo": (None if boost is None else bool(boost)) if no_turbo is None else not no_turbo,
    }


def jetson_power_mode() -> str | None:
    """The power mode of a Jetson, by nvpmodel; None elsewhere."""
    said = answer(["nvpmodel", "-q"])
    lines = [line.split(":", 1)[1].strip() for line in (said or "").splitlines() if "Power Mode" in line]
    return lines[0] if lines else None


def temperatures_c(sys: Path = _SYS) -> dict[str, float]:
    """Name of a thermal zone or sensor -> degrees Celsius; empty where none can be read."""
    found: dict[str, float] = {}
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        value = number(zone / "temp")
        if value is not None:
            found[read(zone / "type").strip() or zone.name] = value / 1000
    for sensor in sorted((sys / "class/hwmon").glob("hwmon*")):
        name = read(sensor / "name").strip()
        if name in ("coretemp", "k10temp", "zenpower"):
            values = [v for path in sensor.glob("temp*_input") if (v := number(path)) is not None]
            if values:
                found[name] = max(values) / 1000
    return found


def throttle_counts(sys: Path = _SYS) -> dict[str, int]:
    """How often the processor throttled itself since it was started: "core" and "package" events; empty where it does
    not count."""
    found: dict[str, int] = {}
    for kind in ("core", "package"):
        paths = sorted((sys / "devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count"))
        counts = [value for path in paths if (value := number(path)) is not None]
        if counts:
            found[kind] = max(counts) if kind == "package" else sum(counts)
    return found


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()
