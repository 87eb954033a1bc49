"""`qanet doctor`: what this machine can run, and the command that installs what is missing. Imports nothing heavy."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from qanet._version import __version__
from qanet.bundle import NO_VNNI
from qanet.commandline import command_parser, emit, table
from qanet.cpu import cpu_features, has_dot_products, sums_saturate

# module, distributions that may provide it, what it is for, the command that installs it
_PACKAGES = (
    ("numpy", ("numpy",), "everything", "pip install numpy"),
    (
        "cv2",
        ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
        "images and video",
        "pip install 'opencv-python-headless<5'",
    ),
    ("openvino", ("openvino",), "engines on CPUs", "pip install openvino"),
    ("onnx", ("onnx",), "typed graphs", "pip install onnx"),
    (
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        "calibration, numerical oracle",
        "pip install 'qanet-edge[calib]'",
    ),
    ("torch", ("torch",), "training and export", "pip install 'qanet-edge[train,export]'"),
    (
        "tensorrt",
        ("tensorrt",),
        "engines on NVIDIA GPUs",
        "pip install 'qanet-edge[tensorrt]' (JetPack brings its own)",
    ),
    ("pycuda", ("pycuda",), "the CUDA driver layer", "pip install 'qanet-edge[tensorrt]'"),
    ("tensorrt_rtx", ("tensorrt_rtx",), "engines for RTX GPUs, built without one", "pip install 'qanet-edge[rtx]'"),
)


def package_versions() -> dict[str, str | None]:
    """Module name -> installed version, None where it is missing."""
    found: dict[str, str | None] = {}
    for module, distributions, _, _ in _PACKAGES:
        found[module] = None
        if importlib.util.find_spec(module) is None:
            continue
        found[module] = "unknown version"
        for name in distributions:
            try:
                found[module] = importlib.metadata.version(name)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that nvidia-smi or a Jetson's device tree lists."""
    if smi := shutil.which("nvidia-smi"):
        asked = [smi, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
            if answer.returncode == 0 and answer.stdout.strip():
                return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
        except (OSError, subprocess.SubprocessError):
            pass  # a driver that hangs or a broken nvidia-smi counts as no GPU
    try:
        with open("/proc/device-tree/model", encoding="utf-8", errors="replace") as file:
            model = file.read().strip("\0 \n")
        return [model] if "jetson" in model.lower() or "orin" in model.lower() else []
    except OSError:
        return []


def has_driver() -> bool:
    """Whether the CUDA driver library loads and starts."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def examine() -> dict[str, Any]:
    """Everything the command prints, as plain data."""
    packages = package_versions()
    driver = has_driver()
    return {
        "qanet_edge": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "cpu_features": list(cpu_features()),
        "int8_graph": NO_VNNI if sums_saturate() else "int8",
        "gpus": gpus(),
        "cuda_driver": driver,
        "packages": packages,
        "can": {
            "parse on the CPU": bool(packages["openvino"] and packages["cv2"]),
            "parse on a GPU": bool(driver and packages["tensorrt"] and packages["pycuda"]),
            "train and export": bool(packages["torch"]),
            "calibrate INT8": bool(packages["onnxruntime"]),
            "build TensorRT engines": bool(driver and packages["tensorrt"]),
            "build TensorRT-RTX engines ahead of time": bool(packages["tensorrt_rtx"]),
        },
    }


def main(argv: Sequence[str]) -> int:
    """Entry point; 0 when this machine can parse people, 1 otherwise or when an engine fails its known answers."""
    parser = command_parser("doctor", "What this machine can run, and what is missing.")
    parser.add_argument(
        "--prove",
        nargs="?",
        const="ccp13-lite0",
        metavar="NAME",
        help="run every engine of a bundle that fits this machine on its known answers, and time it (ccp13-lite0)",
    )
    args = parser.parse_args(argv)
    if args.prove:
        return _prove(args.prove, args.json)
    facts = examine()
    emit(args.json, facts, _text(facts))
    return 0 if facts["can"]["parse on the CPU"] or facts["can"]["parse on a GPU"] else 1


def _prove(name: str, as_json: bool) -> int:
    from qanet.export.building.answers import prove

    proof = prove(name)
    header = ["runtime", "precision", "computes in", "largest difference", "limit", "labels as fp32", "ms", "answer"]
    text = table([tuple(row.values()) for row in proof["engines"]], header)
    emit(as_json, proof, f"{text}\n\n{proof['auto']}")
    return 0 if proof["auto_is_right"] else 1


def _text(facts: dict[str, Any]) -> str:
    """The document of `examine` for a person."""
    rows = []
    for module, _, purpose, command in _PACKAGES:
        version = facts["packages"][module]
        rows.append((module, version or "missing", purpose, "" if version else command))
    if sums_saturate():
        int8 = "has no dot products (VNNI), so INT8 uses its own graph"
    elif has_dot_products():
        int8 = "has dot products, so INT8 is fast"
    else:
        int8 = "has no dot products, so INT8 is exact and may not be faster"
    machine = [
        f"qanet-edge {__version__}, Python {facts['python']} on {facts['system']}",
        f"CPU: {facts['cpu_cores']} cores, {', '.join(facts['cpu_features']) or 'no known extensions'}; it {int8}",
        f"GPU: {'; '.join(facts['gpus']) or 'none'} (CUDA driver: {'yes' if facts['cuda_driver'] else 'no'})",
    ]
    can = [("yes" if able else "no", task) for task, able in facts["can"].items()]
    hint = "next: qanet doctor --prove runs every engine that fits this machine on its known answers, and times it"
    packages = table(rows, ("package", "version", "for", "next"))
    return "\n\n".join(["\n".join(machine), packages, table(can, ("can", "what")), hint])
