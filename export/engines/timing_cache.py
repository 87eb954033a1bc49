"""Measured kernel times, kept between builds: a second build times only what the first did not.

The shared file is keyed by the library's version, the GPU and the options that change what is timed, so builds of
other kinds never meet in one. Two builds may share one file at the same time: each adds what it measured.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from qanet.export.engines.builder_log import BuilderLog
from qanet.export.engines.tensorrt_options import SHARED_CACHE, Options
from qanet.export.engines.this_gpu import gpu_name
from qanet.files import locked, write_bytes

_TIMEOUT_S = 30.0


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
    """Give the builder what `file` holds; one of another GPU or version is not used, and said so."""
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        log.warn(f"{file.name} was measured on another GPU or TensorRT and starts anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def write_cache(config: Any, file: Path) -> None:
    """Write the builder's measurements, with those that another build wrote meanwhile."""
    cache = config.get_timing_cache()
    lock = file.with_name(f".{file.name}.lock")
    with locked(lock, timeout_s=_TIMEOUT_S, doing=f"writing {file}"):
        if file.is_file():
            meanwhile = config.create_timing_cache(file.read_bytes())
            if meanwhile is not None:
                cache.combine(meanwhile, ignore_mismatch=False)  # False for one of another GPU: then ours replaces it
        write_bytes(file, bytes(cache.serialize()))
