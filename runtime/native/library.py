"""The library of C++ kernels, and what of it this machine can run.

It is built beside this file when the package is installed with a compiler at hand; it has a plain C interface, and the
interpreter's lock is released while it runs. Sources in cpp/: a folder for each job, simd.h for what differs between
instruction sets, kernels_*.cpp for what is built once for each of them; which one runs is chosen when it runs.
"""

import ctypes
import functools
import os
from pathlib import Path

from qanet.errors import QanetError

_ABI = 3  # the same number as kAbiVersion in library.cpp
PATH = Path(__file__).with_name("libqanet_native.so.1")  # setup.py builds it under this name


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library beside this file; None where it was not built, or was built from other sources."""
    try:
        library = ctypes.CDLL(str(PATH))
        return library if library.qanet_abi() == _ABI else None
    except (OSError, AttributeError):  # not there, for another platform, or not ours
        return None


def available() -> bool:
    """Whether the library was built for this installation."""
    return load() is not None


def required() -> ctypes.CDLL:
    """The library; QanetError where there is none."""
    library = load()
    if library is None:
        raise QanetError(
            "the native back-end is not built",
            expected=f"{PATH.name} in {PATH.parent}",
            got="no such library, or one built from other sources",
            next_command="install a C++17 compiler and run `pip install --force-reinstall --no-deps` on qanet-edge",
        )
    return library


def lanes() -> tuple[int, ...]:
    """Floats a vector of each kernel that this machine can run, widest first; the first is the one taken."""
    out = (ctypes.c_int32 * 3)()
    return tuple(out[: required().qanet_lanes(out)])


def check_status(status: int, vector_lanes: int) -> None:
    """Raise what every entry point's status says: 1 for lanes that are not there, 2 for memory that ran out."""
    if status == 1:
        raise QanetError("vector_lanes does not fit this machine", expected=f"0 or one of {lanes()}", got=vector_lanes)
    if status == 2:
        raise MemoryError("no memory for the kernel's rows")


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
