"""Compiles a .cu file with g++ against the emulation header and runs its kernels in a process of their own."""

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / "runtime" / "cuda" / "kernels"
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(\w[^)]*\)+\s+)?(\w+)\(', re.DOTALL)
_DYNAMIC_SHARED = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")
# Traps, not messages: the process needs no run-time library. `bounds` is for arrays in shared memory.
_FLAGS = (
    "-std=c++17",
    "-O1",
    "-g1",
    "-w",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-fsanitize=bounds,shift",
    "-fsanitize-undefined-trap-on-error",
)
_MAIN = """
#include "cuda_emulation.h"
#include "SOURCE"
#include "emulated_process.h"

int main() {
    return emulation::serve([](const std::string& name, const emulation::Launch& how) {
CASES
        return false;
    });
}
"""


class EmulationError(Exception):
    """A kernel broke a rule; the text says which, and where."""


@dataclass(frozen=True)
class Launch:
    """One launch: arguments are NumPy scalars of the C types, arrays (buffers, in and out), or None for a null."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple
    shared_bytes: int = 0


class Emulated:
    """The kernels of one .cu file, by g++.

    Args:
        source: the .cu file, or a name in the kernels' folder.
        folder: where to put the program.
        edit: (pattern, replacement) to break the source with on purpose; the pattern must occur.
    """

    def __init__(self, source: str | Path, folder: Path, edit: tuple[str, str] | None = None):
        self.source = source if isinstance(source, Path) else KERNELS / f"{source}.cu"
        self.folder = folder
        self.edit = edit

    @cached_property
    def program(self) -> Path:
        """The compiled program."""
        compiler = shutil.which("g++")
        assert compiler, "the emulation needs g++"
        copies = {self.source.name: self.source.read_text()}
        copies |= {path.name: path.read_text() for path in self.source.parent.glob("*.cuh")}
        if self.edit:
            old, new = self.edit
            assert any(old in text for text in copies.values()), f"nothing to break: {old}"
            copies = {name: text.replace(old, new, 1) for name, text in copies.items()}
        for name, text in copies.items():
            text = _DYNAMIC_SHARED.sub(r"\1* const \2 = reinterpret_cast<\1*>(emulation::block->dynamic_shared);", text)
            (self.folder / name).write_text(text)
        kernels = _KERNEL.findall(copies[self.source.name])
        cases = [f'        if (name == "{kernel}") return emulation::run({kernel}, how), true;' for kernel in kernels]
        main = _MAIN.replace("SOURCE", self.source.name).replace("CASES", "\n".join(cases))
        path = self.folder / f"{self.source.stem}.cpp"
        path.write_text(main)
        program = self.folder / self.source.stem
        command = [compiler, *_FLAGS, "-I", str(HERE), "-I", str(self.folder), str(path), "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return program

    def run(self, *launches: Launch, schedule: int = 0, guard_before: bool = False) -> None:
        """Launch in order; arrays among the arguments are changed in place.

        Args:
            schedule: the order of a block's threads: 0 forward, 1 backward, else a seed.
            guard_before: the page that may not be touched lies before each buffer, not behind it.
        Raises:
            EmulationError: a barrier not reached by all, memory outside a buffer, an index outside an array.
        """
        buffers: list[np.ndarray] = []
        body = [struct.pack("<I", len(launches))]
        for launch in launches:
            name = launch.kernel.encode()
            body.append(struct.pack("<I", len(name)) + name)
            body.append(struct.pack("<8I", *launch.grid, *launch.block, launch.shared_bytes, schedule))
            body.append(struct.pack("<I", len(launch.arguments)))
            body += [_packed(argument, buffers) for argument in launch.arguments]
        head = [struct.pack("<2I", guard_before, len(buffers))]
        for buffer in buffers:
            head += [struct.pack("<Q", buffer.nbytes), buffer.tobytes()]
        done = subprocess.run([str(self.program)], input=b"".join(head + body), capture_output=True)
        if done.returncode:
            raise EmulationError(done.stderr.decode() or f"the emulated kernel died of signal {-done.returncode}")
        offset = 0
        for buffer in buffers:
            values = np.frombuffer(done.stdout, buffer.dtype, buffer.size, offset)
            buffer[...] = values.reshape(buffer.shape)
            offset += buffer.nbytes


def _packed(argument, buffers: list[np.ndarray]) -> bytes:
    """An argument's bytes; an array becomes the index of its buffer, the same for the same array."""
    if argument is None:
        return struct.pack("<q", -1)
    if isinstance(argument, np.ndarray):
        for index, buffer in enumerate(buffers):
            if buffer is argument:
                return struct.pack("<q", index)
        assert argument.flags.c_contiguous
        buffers.append(argument)
        return struct.pack("<q", len(buffers) - 1)
    assert isinstance(argument, np.generic), f"give a NumPy scalar of the C type, not {type(argument)}"
    return argument.tobytes()
