"""What the machine is and how busy it was, as far as it can be read; nothing that names its owner."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ISA_FLAGS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimddp", "asimdhp", "i8mm", "bf16", "sve",
)  # fmt: skip
PACKAGES = (
    "numpy", "opencv-python-headless", "opencv-python", "openvino", "onnxruntime", "onnxruntime-gpu", "onnx",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt_rtx", "pycuda", "cuda-python",
)  # fmt: skip
_BUSY_SHARE = 0.3  # of the CPUs occupied by others before the first measurement
_GPU_FIELDS = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "power.limit", "compute_cap")


def describe() -> dict[str, Any]:
    """Everything at once; call it before the measuring starts, so that the load is the others'."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "cpu": {**parse_cpuinfo(_read("/proc/cpuinfo")), "usable_cpus": cpus, **_clocks()},
        "memory": parse_meminfo(_read("/proc/meminfo")),
        "load_average": load,
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_hash(Path(__file__).resolve().parents[1]),
    }


def busy_warning(machine: dict[str, Any]) -> str | None:
    """A sentence when others were using the machine before the measurement began."""
    load, cpus = machine["load_average"], machine["cpu"]["usable_cpus"]
    if not load or load[0] < _BUSY_SHARE * cpus:
        return None
    return (
        f"the machine was busy before the measurement: load average {load[0]} on {cpus} CPUs; "
        "the latencies are those of a shared machine"
    )


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
        "model": model or _read("/proc/device-tree/model").strip("\0\n ") or None,
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


def _clocks() -> dict[str, Any]:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq/"

    def mhz(name: str) -> float | None:
        text = _read(folder + name).strip()
        return round(int(text) / 1000, 1) if text.isdigit() else None

    return {
        "governor": _read(folder + "scaling_governor").strip() or None,
        "clock_mhz": mhz("scaling_cur_freq"),
        "max_clock_mhz": mhz("cpuinfo_max_freq"),
    }


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as nvidia-smi lists them; empty where there is none. Jetsons answer [N/A] in places."""
    text = _command(["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"])
    rows = [[cell.strip() for cell in line.split(",")] for line in (text or "").splitlines()]
    return [dict(zip(_GPU_FIELDS, row)) for row in rows if len(row) == len(_GPU_FIELDS)]


def versions() -> dict[str, str]:
    """Versions of the packages that decide about speed, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_hash(root: Path) -> str | None:
    """The checkout's commit, with "+changes" when files differ from it; None outside a checkout."""
    if not (root / ".git").exists():
        return None
    commit = _command(["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"])
    if not commit:
        return None
    changed = _command(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return commit.strip()[:12] + ("+changes" if changed else "")


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _command(arguments: list[str]) -> str | None:
    """A tool's stdout; None where it is missing, fails or does not answer."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
