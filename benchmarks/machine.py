"""The machine of a measurement: processor, memory, GPUs, versions, and how busy it was; nothing that names its owner.

psutil gives what all systems have. Governor, turbo and throttling come from Linux's sysfs, GPUs from nvidia-smi, a
Jetson's power mode from nvpmodel. What cannot be read is None or empty.
"""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from qanet.cpu import cpu_features

_BUSY_SHARE = 0.3  # load per usable CPU, before the first measurement, from which the machine counts as busy
_SLOW_GOVERNORS = ("powersave", "conservative")
_SYS = Path("/sys")
PACKAGES = (  # those whose version changes the speed
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt_rtx",
    "pycuda",
    "cuda-python",
)
GPU_FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "compute_cap",
    "temperature.gpu",
    "pstate",
    "persistence_mode",
    "memory.used",
)
_THROTTLE_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # new name, old name
_NOT_THROTTLING = 0x1 | 0x2  # idle, and clocks that the user set
_THROTTLE_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}


def describe() -> dict[str, Any]:
    """Plain data on the machine. Call it before the measurement, so that the load is that of other programs."""
    memory = psutil.virtual_memory()
    return {
        "cpu": {
            "model": cpu_model(_read("/proc/cpuinfo")),
            "logical_cpus": psutil.cpu_count(),
            "physical_cores": psutil.cpu_count(logical=False),
            "isa": list(cpu_features()),
            "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
            **clocks(),
        },
        "memory": {"total_gib": round(memory.total / 2**30, 2), "available_gib": round(memory.available / 2**30, 2)},
        "load_average": _load_average(),
        "power_mode": jetson_power_mode(),
        "temperatures_c": temperatures_c(),
        "throttle_counts": throttle_counts(),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_hash(Path(__file__).resolve().parents[1]),
    }


def finish(before: dict[str, Any]) -> dict[str, Any]:
    """What changed since `describe`; call it after the measurement.

    Args:
        before: the result of `describe`.
    Returns:
        Plain data: load_average, clock_mhz, temperatures_c, gpus, and throttled: "core" and "package" -> throttling
        events since `describe`, with no entry where the processor does not count them.
    """
    counts = throttle_counts()
    return {
        "load_average": _load_average(),
        "clock_mhz": clocks()["clock_mhz"],
        "temperatures_c": temperatures_c(),
        "throttled": {
            kind: value - before.get("throttle_counts", {}).get(kind, value) for kind, value in counts.items()
        },
        "gpus": gpus() if before.get("gpus") else [],
    }


def warnings_of(machine: dict[str, Any]) -> list[str]:
    """Facts about the machine that make the latencies less reliable, a sentence each."""
    busy = busy_warning(machine)
    lines = [busy] if busy else []
    governor = machine["cpu"].get("governor")
    if governor in _SLOW_GOVERNORS and machine["cpu"].get("energy_preference") is None:
        lines.append(f"the CPU governor is {governor}: clocks may be low; set it to performance to measure")
    after = machine.get("after") or {}
    for kind, events in (after.get("throttled") or {}).items():
        if events > 0:
            lines.append(f"the processor throttled itself {events} times while measuring ({kind}): it is too hot")
    for when, listed in (("before", machine.get("gpus") or []), ("after", after.get("gpus") or [])):
        for gpu in listed:
            if gpu.get("throttled"):
                lines.append(f"{gpu.get('name')} was throttled {when} the measurement: {gpu['throttled']}")
    return lines


def busy_warning(machine: dict[str, Any]) -> str | None:
    """A sentence where other programs used the machine before the measurement began; else None."""
    load, cpus = machine["load_average"], machine["cpu"]["usable_cpus"]
    if not load or load[0] < _BUSY_SHARE * cpus:
        return None
    return (
        f"the machine was busy before the measurement: load average {load[0]} on {cpus} CPUs; "
        "the latencies are those of a shared machine"
    )


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name, or the board's, from the text of /proc/cpuinfo; else from the device tree or the system."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    board = _read("/proc/device-tree/model").strip("\0\n ")
    return fields.get("model name") or fields.get("Model") or board or platform.processor() or None


def clocks(sys: Path = _SYS) -> dict[str, Any]:
    """Clocks in MHz (the current one a mean over the CPUs), governor and power settings.

    Args:
        sys: the sysfs tree.
    """
    try:
        found = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # a system without CPU frequencies
        found = None
    current, low, high = (round(value, 1) or None for value in found) if found else (None, None, None)
    folder = sys / "devices/system/cpu/cpu0/cpufreq"
    no_turbo = _number(sys / "devices/system/cpu/intel_pstate/no_turbo")
    boost = _number(sys / "devices/system/cpu/cpufreq/boost")
    return {
        "governor": _read(folder / "scaling_governor").strip() or None,
        "clock_mhz": current,
        "min_clock_mhz": low,
        "max_clock_mhz": high,
        "energy_preference": _read(folder / "energy_performance_preference").strip() or None,
        "platform_profile": _read(sys / "firmware/acpi/platform_profile").strip() or None,
        "turbo": (None if boost is None else bool(boost)) if no_turbo is None else not no_turbo,
    }


def jetson_power_mode() -> str | None:
    """The power mode of a Jetson, from nvpmodel; None on other machines."""
    lines = (_output(["nvpmodel", "-q"]) or "").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if "Power Mode" in line and ":" in line), None)


def temperatures_c() -> dict[str, float]:
    """Name of a sensor -> its highest reading in degrees Celsius."""
    read = getattr(psutil, "sensors_temperatures", dict)  # Linux and FreeBSD only
    return {name: max(entry.current for entry in entries) for name, entries in read().items() if entries}


def throttle_counts(sys: Path = _SYS) -> dict[str, int]:
    """Throttling events since the machine started: "core" (all cores together) and "package" (the highest)."""
    found: dict[str, int] = {}
    for kind in ("core", "package"):
        paths = (sys / "devices/system/cpu").glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
        counts = [value for path in paths if (value := _number(path)) is not None]
        if counts:
            found[kind] = max(counts) if kind == "package" else sum(counts)
    return found


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as nvidia-smi lists them, by GPU_FIELDS and "throttled". A Jetson has [N/A] in places."""
    rows = _query_gpus(GPU_FIELDS)
    found = [dict(zip(GPU_FIELDS, row)) for row in rows if len(row) == len(GPU_FIELDS)]
    for field in _THROTTLE_FIELDS:
        reasons = _query_gpus((field,)) if found else []
        if len(reasons) == len(found) and reasons:
            for gpu, (mask, *_) in zip(found, reasons):
                gpu["throttled"] = throttle_reasons(mask)
            break
    return found


def throttle_reasons(mask: str) -> str:
    """The reasons in a bit mask such as 0x0000000000000004; "" for none, "unknown" for what is no mask."""
    try:
        bits = int(mask, 16) & ~_NOT_THROTTLING
    except ValueError:
        return "unknown"
    names = [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]
    return ", ".join(names) or ("unknown" if bits else "")


def versions() -> dict[str, str]:
    """Version of each of PACKAGES that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_hash(root: Path) -> str | None:
    """The commit of a checkout, with "+changes" when files differ from it; None outside a checkout."""
    if not (root / ".git").exists():
        return None
    commit = _output(["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"])
    if not commit:
        return None
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return commit.strip()[:12] + ("+changes" if changed else "")


def _query_gpus(fields: tuple[str, ...]) -> list[list[str]]:
    text = _output(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    return [[cell.strip() for cell in line.split(",")] for line in (text or "").splitlines() if line.strip()]


def _load_average() -> list[float]:
    return [round(value, 2) for value in psutil.getloadavg()]


def _read(path: str | Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """A whole number from a file; None where there is none."""
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _output(arguments: list[str]) -> str | None:
    """The stdout of a program; None where it is missing, fails or takes more than 10 s."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
