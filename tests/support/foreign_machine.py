"""Machines that are not here: other CPUs by QEMU's user mode, and this CPU with fewer of its instructions.

A machine runs the project's own Python code with NumPy, OpenVINO and ONNX Runtime:

    machine.require()                                   # skips with the reason where it cannot be had
    text = machine.python(script, "argument", folder=tmp_path)
    answers = ask(machine, "openvino", {"int8": graph}, crops, tmp_path)

x86-64 machines run this very interpreter. ARM machines run an interpreter and wheels for ARM that `arm_root.py` has
laid into the user's cache. The emulator has neither AVX-512 nor AVX-VNNI; for those, `FEWER` limits OpenVINO on this
CPU, which answers with the same bits as the emulated CPU where both can be had, and takes a second.
"""

import functools
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import arm_root
import numpy as np
import pytest

import qanet

_GUEST = Path(__file__).with_name("foreign_guest.py")
_STAGES = ("train", "export", "runtime", "calib", "benchmarks")
_LIBRARY = Path("runtime", "native", "libqanet_native.so.1")


@dataclass(frozen=True)
class Machine:
    """One kind of machine.

    Args:
        processor: x86_64 or aarch64.
        flags: what its /proc/cpuinfo lists.
        cpu: QEMU's name for it; empty: this CPU, with `environment`.
        model: for ARM the part number; for x86-64 the name.
        needs: flags that this CPU must have where it is not emulated.
        environment: variables with which its programs start.
    """

    name: str
    processor: str
    flags: str
    cpu: str = ""
    model: str = ""
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    def missing(self) -> str:
        """What keeps this machine from being had here; empty where nothing does."""
        if self.processor == "x86_64" and platform.machine() != "x86_64":
            return f"{self.name} needs an x86-64 host"
        if not self.cpu:
            lacks = sorted(set(self.needs) - set(_flags_here()))
            return f"{self.name}: this CPU has no {', '.join(lacks)}" if lacks else ""
        emulator = self._emulator()
        if not emulator:
            return f"no qemu-{self.processor}: install the Debian package qemu-user"
        if _version(emulator) < (7, 2):
            return f"{emulator} has no AVX: 7.2 is the first that does"
        if self.processor == "aarch64" and not arm_root.ready():
            return "no programs for ARM: make arm"
        return ""

    def require(self) -> "Machine":
        """This machine; skips the test where it cannot be had."""
        if self.missing():
            pytest.skip(self.missing())
        return self

    def python(self, *arguments: object, folder: Path, library: Path | None = None, timeout_s: float = 1200) -> str:
        """Run Python there and return what it prints; an AssertionError quotes its errors.

        Args:
            arguments: of the interpreter: a script and its arguments, or "-c" and a text.
            folder: empty at first, and the machine's own: its home and what the emulator shows it.
            library: the native kernels for this machine; None: it has none.
        """
        machine = folder / self.name
        packages = machine / "packages"
        if not packages.is_dir():
            _link_package(packages / "qanet", library)
        home = machine / "home"  # also where it starts: Python looks for packages there first
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [*self._command(machine), *map(str, arguments)],
            env=self._environment(home, packages),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        told = "\n".join(line for line in done.stderr.splitlines() if "TCG doesn't support" not in line)
        assert done.returncode == 0, f"{self.name}: the program ended with {done.returncode}: {told[-4000:]}"
        return done.stdout

    def _emulator(self) -> str | None:
        return shutil.which(f"qemu-{self.processor}") or shutil.which(f"qemu-{self.processor}-static")

    def _command(self, machine: Path) -> list[str]:
        if not self.cpu:
            return [sys.executable]
        seen = machine / "seen"  # the emulator looks here first for what is opened by a path from the root
        if not seen.is_dir():
            (seen / "proc").mkdir(parents=True)
            (seen / "proc" / "cpuinfo").write_text("".join(self._cpuinfo(core) for core in range(2)))
            for entry in arm_root.folder().glob("root/*") if self.processor == "aarch64" else ():
                (seen / entry.name).symlink_to(entry)
        python = str(seen / "usr/bin/python3") if self.processor == "aarch64" else sys.executable
        return [str(self._emulator()), "-cpu", self.cpu, "-L", str(seen), python]

    def _cpuinfo(self, core: int) -> str:
        if self.processor == "x86_64":
            words = {"processor": core, "vendor_id": "GenuineIntel", "model name": self.model, "flags": self.flags}
        else:
            words = {
                "processor": core,
                "Features": self.flags,
                "CPU implementer": "0x41",
                "CPU architecture": 8,
                "CPU variant": "0x0",
                "CPU part": self.model,
                "CPU revision": 4,
            }
        return "".join(f"{word}\t: {value}\n" for word, value in words.items()) + "\n"

    def _environment(self, home: Path, packages: Path) -> dict[str, str]:
        """A clean one: variables such as OPENBLAS_CORETYPE choose instructions that the machine may lack."""
        paths = [packages, *([arm_root.folder() / "site"] if self.processor == "aarch64" else [])]
        kept = ("PATH", *(["LD_LIBRARY_PATH"] if self.processor == "x86_64" else []))
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            **dict(self.environment),
        }


def _fewer(name: str, isa: str, needs: str) -> Machine:
    return Machine(name, "x86_64", "", needs=(needs,), environment=(("ONEDNN_MAX_CPU_ISA", isa),))


_SSE42 = "fpu cx16 sse sse2 ssse3 sse4_1 sse4_2 popcnt"
_ARMV8 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
SSE42 = Machine("sse42", "x86_64", _SSE42, "Westmere", "Intel Xeon X5650")
AVX2 = Machine("avx2", "x86_64", f"{_SSE42} avx fma f16c movbe bmi1 bmi2 avx2", "Haswell-v4", "Intel Core i7-4770")
ARM = Machine("arm", "aarch64", _ARMV8, "cortex-a53", "0xd03")
ARM_DOT_PRODUCTS = Machine(
    "arm_dot_products", "aarch64", f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp", "neoverse-n1", "0xd0c"
)
EMULATED = (SSE42, AVX2, ARM, ARM_DOT_PRODUCTS)
# What OpenVINO is held to on this CPU; ONNX Runtime heeds no such variable.
FEWER_AVX2 = _fewer("fewer_avx2", "AVX2", "avx2")
FEWER_AVX2_VNNI = _fewer("fewer_avx2_vnni", "AVX2_VNNI", "avx_vnni")
FEWER_AVX512 = _fewer("fewer_avx512", "AVX512_CORE", "avx512bw")
FEWER_AVX512_VNNI = _fewer("fewer_avx512_vnni", "AVX512_CORE_VNNI", "avx512_vnni")
FEWER = (FEWER_AVX2, FEWER_AVX2_VNNI, FEWER_AVX512, FEWER_AVX512_VNNI)


@dataclass(frozen=True)
class Answers:
    """What a runtime answered on a machine.

    Args:
        outputs: graph -> logits.
        kinds: graph -> what the products are computed by, in OpenVINO's words; empty for ONNX Runtime.
        capabilities: OpenVINO's OPTIMIZATION_CAPABILITIES.
        floating_point: OpenVINO's name for what the layers that are not INT8 compute in.
        device: the CPU's name, as OpenVINO tells it.
        seconds: graph -> to compile and run it.
    """

    outputs: dict[str, np.ndarray]
    kinds: dict[str, dict[str, int]]
    capabilities: list[str]
    floating_point: str
    device: str
    seconds: dict[str, float]


def ask(machine: Machine, runtime: str, graphs: Mapping[str, bytes], crops: np.ndarray, folder: Path) -> Answers:
    """The logits of ONNX graphs, by the project's own engine of a runtime on a machine, with one thread.

    Args:
        runtime: openvino or onnxruntime.
        graphs: name -> ONNX file; the name's first part up to "-" is the precision.
        crops: (N, H, W, 3) uint8.
        folder: the machine's, as for `Machine.python`.
    """
    asked = folder / machine.name / runtime
    asked.mkdir(parents=True)
    np.save(asked / "crops.npy", crops)
    for name, graph in graphs.items():
        (asked / f"{name}.onnx").write_bytes(graph)
    # OpenVINO still believes that this CPU has BF16 when it may not use it, and then crashes.
    machine.python(_GUEST, runtime, "any" if machine.cpu else "f32", asked, *graphs, folder=folder)
    with np.load(asked / "answers.npz") as outputs:
        return Answers(dict(outputs), **json.loads((asked / "told.json").read_text()))


@functools.cache
def _version(emulator: str) -> tuple[int, ...]:
    told = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", told)
    return tuple(map(int, found.groups())) if found else ()


def _flags_here() -> list[str]:
    if not Path("/proc/cpuinfo").is_file():
        return []
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "").split()


def _link_package(target: Path, library: Path | None) -> None:
    """Lay the package that is under test out in one folder, by links, with the native library of another machine."""
    folders = {Path(): Path(qanet.__file__).parent}
    for stage in _STAGES:
        spec = importlib.util.find_spec(f"qanet.{stage}")
        assert spec is not None and spec.submodule_search_locations, f"qanet.{stage} is not installed"
        folders[Path(stage)] = Path(next(iter(spec.submodule_search_locations)))
    folders[_LIBRARY.parent] = folders[Path("runtime")] / "native"
    for inner, source in folders.items():
        (target / inner).mkdir(parents=True, exist_ok=True)
        for entry in source.iterdir():
            apart = entry.name == "__pycache__" or inner / entry.name in folders or inner / entry.name == _LIBRARY
            if not apart:
                (target / inner / entry.name).symlink_to(entry)
    if library is not None:
        (target / _LIBRARY).symlink_to(library)
