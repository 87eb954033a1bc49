"""The native kernels built for another processor, behind the interface of its library: a process per call."""

import ctypes
import struct
import subprocess
from pathlib import Path

import numpy as np
from made_once import compiled_once

from qanet.runtime import native

_SOURCES = Path(native.__file__).parent / "cpp"
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Werror")


def build(compiler, folder):
    """The program of native_request.cpp; an AssertionError quotes the compiler."""
    program = Path(__file__).with_name("native_request.cpp")
    return _compile(compiler, folder / "native_request", "-static", program)


def build_library(compiler, folder):
    """The library as `setup.py` makes it, for the compiler's processor; it brings its C++ library with it."""
    flags = ("-shared", "-fPIC", "-fvisibility=hidden", "-static-libstdc++", "-static-libgcc")
    return _compile(compiler, folder / native.PATH.name, *flags)


def _compile(compiler, output, *more):
    """The native sources and what else is given; an AssertionError quotes the compiler."""
    files = sorted(_SOURCES.rglob("*.cpp"))
    depends_on = [*_SOURCES.rglob("*.*"), *(part for part in more if isinstance(part, Path))]
    return compiled_once([compiler, *_FLAGS, f"-I{_SOURCES}", *files, *more], depends_on, output)


class ForeignLibrary:
    """What `native.load` returns, over a program and the emulator that runs it.

    Args:
        command: the emulator, and the program.
    """

    def __init__(self, *command):
        self._command = [str(part) for part in command]
        self.calls = 0

    def _ask(self, *parts):
        self.calls += 1
        done = subprocess.run(self._command, input=b"".join(parts), capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, f"the program ended with {done.returncode}: {done.stderr.decode()}"
        return done.stdout

    def qanet_lanes(self, out):
        lanes = np.frombuffer(self._ask(struct.pack("<i", 0)), np.int32)
        out[: len(lanes)] = lanes.tolist()
        return len(lanes)

    def qanet_tail_exp(self, lanes, x, out, count):
        padded = -(-count.value // 16) * 16
        got = self._ask(struct.pack("<iq", 1, padded), ctypes.string_at(x.value, 4 * padded))
        ctypes.memmove(out.value, got, 4 * count.value)
        return 0

    def qanet_tail_run(self, reference):
        r = reference._obj
        shape = (r.people, r.classes, r.map_h, r.map_w)
        head = struct.pack("<9if", 2, *shape, r.views, r.half, r.threads, r.lanes, r.threshold)
        views = [_strided(r.data[v], shape, r.strides[v], np.float16 if r.half else np.float32) for v in range(r.views)]
        blocks = ((r.class_order, 8 * r.classes), (r.regions, 16 * r.people), (r.boxes, 16 * r.people))
        got = self._ask(head, *views, *(ctypes.string_at(address, size) if size else b"" for address, size in blocks))
        status, at = struct.unpack("<i", got[:4])[0], 4
        regions = np.frombuffer(ctypes.string_at(r.regions, 16 * r.people), np.int32).reshape(-1, 4)
        pointers = (ctypes.c_void_p * r.people).from_address(r.labels) if r.people else ()
        for (x0, y0, x1, y1), pointer in zip(regions.tolist(), pointers):
            size = (x1 - x0) * (y1 - y0)
            ctypes.memmove(pointer, got[at : at + size], size)
            at += size
        ctypes.memmove(r.scores, got[at:], 4 * r.people * r.classes)
        return status

    def qanet_crop_run(self, reference):
        r = reference._obj
        numbers = (r.people, r.crop_h, r.crop_w, r.image_h, r.image_w, r.threads, r.lanes)
        rows = [ctypes.string_at(r.image + y * r.row_bytes, 3 * r.image_w) for y in range(r.image_h)]
        got = self._ask(struct.pack("<8i", 3, *numbers), b"".join(rows), ctypes.string_at(r.boxes, 16 * r.people))
        ctypes.memmove(r.crops, got[4:], len(got) - 4)
        return struct.unpack("<i", got[:4])[0]


def _strided(address, shape, strides, kind):
    """The bytes of an array of any strides, in order."""
    low = sum(min(0, (size - 1) * step) for size, step in zip(shape, strides))
    high = sum(max(0, (size - 1) * step) for size, step in zip(shape, strides)) + np.dtype(kind).itemsize
    memory = np.frombuffer(ctypes.string_at(address + low, high - low), np.uint8)
    return np.ndarray(shape, kind, memory, -low, tuple(strides)).tobytes()
