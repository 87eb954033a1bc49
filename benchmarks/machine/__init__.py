"""What the machine is and how busy it was, as far as it can be read; nothing that names its owner."""

import os
import platform
from pathlib import Path
from typing import Any

from qanet.benchmarks.machine.cpu import (
    clocks,
    jetson_power_mode,
    parse_cpuinfo,
    parse_meminfo,
    temperatures_c,
    throttle_counts,
)
from qanet.benchmarks.machine.gpu import gpus
from qanet.benchmarks.machine.reading import read
from qanet.benchmarks.machine.software import git_hash, versions

__all__ = ["busy_warning", "describe", "finish", "git_hash", "gpus", "parse_cpuinfo", "parse_meminfo", "warnings_of"]

_BUSY_SHARE = 0.3  # of the CPUs occupied by others before the first measurement
_SLOW_GOVERNORS = ("powersave", "conservative")


def describe() -> dict[str, Any]:
    """Everything at once; call it before the measuring starts, so that the load is the others'."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": {**parse_cpuinfo(read("/proc/cpuinfo")), "usable_cpus": cpus, **clocks()},
        "memory": parse_meminfo(read("/proc/meminfo")),
        "load_average": _load(),
        "power_mode": jetson_power_mode(),
        "temperatures_c": temperatures_c(),
        "throttle_counts": throttle_counts(),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_hash(Path(__file__).resolve().parents[2]),
    }


def finish(before: dict[str, Any]) -> dict[str, Any]:
    """What changed since `describe`, to be called after the measuring: clocks, temperatures, throttling, GPUs.

    Returns:
        Plain data: load_average, clock_mhz, temperatures_c, throttled: name -> events since then (0 is told, a
        processor that does not count has no entry), gpus.
    """
    counts = throttle_counts()
    return {
        "load_average": _load(),
        "clock_mhz": clocks()["clock_mhz"],
        "temperatures_c": temperatures_c(),
        "throttled": {
            kind: value - before.get("throttle_counts", {}).get(kind, value) for kind, value in counts.items()
        },
        "gpus": gpus() if before.get("gpus") else [],
    }


def warnings_of(machine: dict[str, Any]) -> list[str]:
    """What a reader has to know of the machine before believing the numbers."""
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
    """A sentence when others were using the machine before the measurement began."""
    load, cpus = machine["load_average"], machine["cpu"]["usable_cpus"]
    if not load or load[0] < _BUSY_SHARE * cpus:
        return None
    return (
        f"the machine was busy before the measurement: load average {load[0]} on {cpus} CPUs; "
        "the latencies are those of a shared machine"
    )


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
