"""What the tail costs in memory, and what this machine's memory allows at best."""

import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.tail.cases import Case
from qanet.benchmarks.tail.forms import Form

_MIB = 1 << 20
_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")


def copy_bandwidth(threads: int, mib: int = 256, repeats: int = 5) -> float:
    """Bytes a second that memory moves in a large copy, read and written bytes counted; the best of `repeats`."""
    source = np.ones(mib * _MIB, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))

    def copy(pair: tuple[Any, Any]) -> None:
        np.copyto(pair[1], pair[0])

    with ThreadPoolExecutor(threads) as pool:
        best = min(_seconds(lambda: list(pool.map(copy, parts))) for _ in range(repeats))
    return 2 * source.nbytes / best


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def floor_ms(case: Case, bandwidth: float) -> float:
    """Milliseconds to read the logits and write the labels once at `bandwidth` bytes a second."""
    return case.floor_bytes() / bandwidth * 1e3


def peak_mib(form: Form, case: Case) -> tuple[float | None, str]:
    """The most extra memory one call takes, and how that was measured; None where this system does not tell.

    NumPy tells Python's allocator what it takes. Libraries do not, so their call is made in a process of its own,
    and the peak of its resident memory taken.
    """
    if form.name == "numpy":
        return _traced_mib(form, case), "tracemalloc"
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(resident_mib, form, case).result(timeout=300), "resident memory"
    except Exception:  # the process died or does not answer; the latency stands without it
        return None, "resident memory"


def _traced_mib(form: Form, case: Case) -> float:
    arguments = case.arguments()
    tracemalloc.start()
    try:
        form(arguments)
        return tracemalloc.get_traced_memory()[1] / _MIB
    finally:
        tracemalloc.stop()


def resident_mib(form: Form, case: Case) -> float | None:
    """Growth of this process's resident memory, at its peak, over one call; the libraries are loaded before."""
    arguments = case.arguments()
    small = Case("small", "", case.num_classes, (2, 2), (8, 8), ((0, 0, 8, 8),))
    form(small.arguments())
    try:
        _PEAK_RESET.write_text("5")  # the kernel forgets the peak so far
        before = _status_kib("VmRSS")
        form(arguments)
        return max(_status_kib("VmHWM") - before, 0) / 1024
    except (OSError, KeyError):
        return None


def _status_kib(key: str) -> int:
    return int(dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())[key].split()[0])
