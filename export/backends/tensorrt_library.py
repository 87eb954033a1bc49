"""TensorRT or TensorRT-RTX as installed here, the GPUs it can build for, and its cache of measured kernel times.

With the timing cache a second build times only what the first did not. The shared file is named after the library's
version, the GPU and the options that change what is timed, so builds of other kinds never share one. Two builds may use
one file at the same time: each adds what it measured.
"""

import ctypes
import hashlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.export.backends.builder_log import BuilderLog
from qanet.export.backends.tensorrt_options import SHARED_CACHE, Options
from qanet.files import locked, write_bytes

RTX_TARGETS = ("sm_86", "sm_120")  # GeForce 30 and 50; for others give --target
_MODULES = {
    "tensorrt": ("tensorrt", "pip install 'qanet-edge[tensorrt]'"),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'qanet-edge[rtx]'"),
}
_OLDEST_TENSORRT = (10, 3)
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute, cuda.h
_NAME_BYTES = 256
_LOCK_TIMEOUT_S = 30.0


def load_library(runtime: str) -> Any:
    """Import the module of `runtime`, "tensorrt" or "tensorrt-rtx".

    Raises:
        QanetError: another name, not installed, or older than strong typing works in.
    """
    if runtime not in _MODULES:
        raise QanetError(f"unknown TensorRT runtime {runtime!r}; choose from {', '.join(_MODULES)}")
    name, install = _MODULES[runtime]
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the wheel is there, a library it loads is not
        raise QanetError(f"{runtime} is not installed", got=str(error), next_command=install) from error
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if runtime == "tensorrt" and version < _OLDEST_TENSORRT:
        raise QanetError("TensorRT is too old", expected="10.3 or newer", got=trt.__version__, next_command=install)
    return trt


def check_targets(trt: Any, runtime: str, targets: Sequence[str] | None) -> tuple[str, ...]:
    """The targets to build for, each once; None means RTX_TARGETS for TensorRT-RTX and this GPU for TensorRT.

    Raises:
        QanetError: a target the library cannot build for, or none; for TensorRT, no driver or another GPU.
    """
    if runtime == "tensorrt":
        here = this_gpu()
        if targets is not None and tuple(targets) != (here,):
            raise QanetError(
                "TensorRT builds on the GPU that will run the engine", expected=here, got=", ".join(targets) or "none"
            )
        return (here,)
    known = [f"sm_{name[2:]}" for name in trt.ComputeCapability.__members__ if name[2:].isdigit()]
    chosen = tuple(dict.fromkeys(RTX_TARGETS if targets is None else targets))
    unknown = [target for target in chosen if target not in known]
    if unknown or not chosen:
        raise QanetError(
            f"TensorRT-RTX {trt.__version__} cannot build for {', '.join(unknown) or 'no target'}",
            expected=f"some of {', '.join(known)}",
            got=", ".join(chosen) or "none",
            next_command="build on that GPU itself with --runtime tensorrt" if unknown else None,
        )
    return chosen


def this_gpu(index: int = 0) -> str:
    """Return the target name, such as "sm_87", of GPU `index`.

    Raises:
        QanetError: no NVIDIA driver, or no such GPU.
    """
    driver, device = _device(index)
    major, minor = ctypes.c_int(), ctypes.c_int()
    for attribute, value in ((_COMPUTE_CAPABILITY_MAJOR, major), (_COMPUTE_CAPABILITY_MINOR, minor)):
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return f"sm_{major.value}{minor.value}"


def gpu_name(index: int = 0) -> str:
    """Return the model's name, such as "Orin"; errors as `this_gpu`."""
    driver, device = _device(index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(driver.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    return name.value.decode(errors="replace")


def _device(index: int) -> tuple[ctypes.CDLL, ctypes.c_int]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise QanetError(
            "no NVIDIA driver on this machine",
            expected="libcuda.so.1",
            got=str(error),
            next_command="build on the machine that will run the engine, or ahead of time with --runtime tensorrt-rtx",
        ) from error
    device = ctypes.c_int()
    _check(driver.cuInit(0), "cuInit")
    _check(driver.cuDeviceGet(ctypes.byref(device), index), f"cuDeviceGet({index})")
    return driver, device


def _check(code: int, call: str) -> None:
    if code != 0:
        raise QanetError(f"the NVIDIA driver refused {call}", expected=0, got=code, next_command="nvidia-smi")


def cache_file(trt: Any, runtime: str, target: str, options: Options, log: BuilderLog) -> Path | None:
    """The file that `options` name, None for none."""
    if options.timing_cache is None:
        return None
    if runtime == "tensorrt-rtx":
        if options.timing_cache != SHARED_CACHE:
            log.warn("TensorRT-RTX has no timing cache: it chooses kernels where the engine runs")
        return None
    if options.timing_cache != SHARED_CACHE:
        return Path(options.timing_cache)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    facts = (gpu_name(), options.optimization_level, options.few_tactics, options.tf32, options.dla)
    key = hashlib.sha256(repr((runtime, trt.__version__, target, *facts)).encode()).hexdigest()[:12]
    return base / "qanet" / "timing" / f"{runtime}-{trt.__version__}-{target}-{key}.cache"


def read_cache(config: Any, file: Path, log: BuilderLog) -> None:
    """Give the builder the contents of `file`; a cache of another GPU or version is not used, with a warning."""
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        log.warn(f"{file.name} was measured on another GPU or TensorRT and is not used")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def write_cache(config: Any, file: Path) -> None:
    """Write the builder's measurements, with those that another build wrote meanwhile."""
    cache = config.get_timing_cache()
    lock = file.with_name(f".{file.name}.lock")
    with locked(lock, timeout_s=_LOCK_TIMEOUT_S, doing=f"writing {file}"):
        if file.is_file():
            meanwhile = config.create_timing_cache(file.read_bytes())
            if meanwhile is not None:
                cache.combine(meanwhile, ignore_mismatch=False)  # False for one of another GPU: then ours replaces it
        write_bytes(file, bytes(cache.serialize()))
