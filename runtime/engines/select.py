"""Which engine runs a bundle on this machine."""

import importlib.util
import sys
import warnings
from typing import Any

from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS, Bundle
from qanet.errors import QanetError
from qanet.runtime.engines.base import Engine
from qanet.runtime.engines.tensorrt_choice import MODULES as TENSORRT_MODULES

DEVICES = ("auto", "cpu", "cuda", "onnxruntime")
_FASTEST_FIRST = ("int8", "fp16", "fp32")


def open_engine(
    bundle: Bundle, device: str, precision: str, outputs: tuple[str, ...], threads: int | None = None
) -> Engine:
    """Open or compile the engine for a device and a precision; see `qanet.runtime.parser.load`."""
    if device not in DEVICES:
        raise QanetError("unknown device", expected=f"one of {', '.join(DEVICES)}", got=device)
    if precision not in ("auto", *PRECISIONS, *OPTIONAL_PRECISIONS):
        raise QanetError("unknown precision", expected=f"auto or one of {', '.join(PRECISIONS)}", got=precision)
    if device == "auto":
        device = "cuda" if has_cuda() else "cpu"
        if device == "cuda" and not any(e["runtime"] in TENSORRT_MODULES for e in bundle.engines):
            warnings.warn(
                f"{bundle.name} has no engine for this GPU and runs on the CPU; "
                f"next: qanet build {bundle.name} --runtime tensorrt", stacklevel=3,
            )  # fmt: skip
            device = "cpu"
    if precision == "auto":
        built = {e["precision"] for e in bundle.engines if device == "cuda" and e["runtime"] in TENSORRT_MODULES}
        precision = next((p for p in _FASTEST_FIRST if p in (built or bundle.manifest["graphs"])), "fp32")
    if device == "cuda":
        if not has_cuda():
            raise QanetError(
                "no GPU to run on", expected="an NVIDIA driver, TensorRT and PyCUDA", next_command="qanet doctor"
            )
        from qanet.runtime.engines.tensorrt import engine_from_bundle

        return engine_from_bundle(bundle, precision, outputs)
    if device == "onnxruntime":
        from qanet.runtime.engines import onnxruntime

        return onnxruntime.engine_from_graph(bundle.graph(precision), precision, outputs, threads)
    from qanet.runtime.engines import openvino

    return openvino.engine_from_bundle(bundle, precision, outputs, threads)


def built_entry(bundle: Bundle, runtime: str, precision: str) -> dict[str, Any] | None:
    """The manifest's entry of a built engine, None where there is none."""
    return next((e for e in bundle.engines if e["runtime"] == runtime and e["precision"] == precision), None)


def has_cuda() -> bool:
    """Whether TensorRT (or TensorRT-RTX) and PyCUDA are installed and the NVIDIA driver answers."""
    if not sys.platform.startswith("linux"):
        return False
    installed = [name for name in ("pycuda", *TENSORRT_MODULES.values()) if importlib.util.find_spec(name) is not None]
    if "pycuda" not in installed or len(installed) < 2:
        return False
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
