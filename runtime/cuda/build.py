"""Compiles the kernels: nvcc where the CUDA toolkit is, else NVRTC from its package; results are cached by content.

An image is a cubin for one target, or a fat binary for all targets, with PTX for GPUs yet to come. The cache is
$XDG_CACHE_HOME/qanet/kernels (~/.cache without it): a file's name holds the hash of all that decides its content, so a
changed source or compiler never meets an old image.
"""

import ctypes
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.scratch import scratch_folder

KERNELS = Path(__file__).resolve().parent / "kernels"
TARGETS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121")
_OPTIONS = ("--std=c++17", "--fmad=true")
_NVRTC_PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


@dataclass(frozen=True)
class Compiler:
    """A compiler of kernels: its version, the targets it knows, and source name -> image."""

    version: str
    targets: tuple[str, ...]
    compile: Callable[[Path, str | None], bytes]
    makes_fat_binaries: bool


def kernel_names() -> tuple[str, ...]:
    """The names that `kernel_image` takes."""
    return tuple(sorted(path.stem for path in KERNELS.glob("*.cu")))


def kernel_image(name: str, target: str | None = None) -> bytes:
    """The compiled kernel file `name`, from the cache or compiled now.

    Args:
        name: one of `kernel_names`.
        target: "sm_87", say, for a cubin of that GPU alone; None, or a GPU that the compiler does not know, for a
            fat binary that runs on every target.
    Returns:
        what the driver's cuModuleLoadData takes.
    Raises:
        QanetError: an unknown name, a target that is too old or malformed, no compiler, or one that fails.
    """
    source = KERNELS / f"{name}.cu"
    if name not in kernel_names():
        raise QanetError("no such kernel file", expected=" or ".join(kernel_names()), got=name)
    compiler = find_compiler()
    if target is not None and not re.fullmatch(r"sm_\d{2,3}", target):
        raise QanetError("bad target", expected="sm_ and a number, such as sm_87", got=target)
    if target is not None and _number(target) < _number(compiler.targets[0]):
        raise QanetError("this GPU is too old", expected=f"{compiler.targets[0]} or newer", got=target)
    if target not in compiler.targets:
        if not compiler.makes_fat_binaries:
            raise QanetError(
                "NVRTC compiles for one target that it knows",
                expected=" ".join(compiler.targets),
                got=target,
                next_command="install the CUDA toolkit",
            )
        target = None  # a GPU between or beyond them runs the nearest older cubin, or the PTX
    kind = "cubin" if target else "fatbin"
    cached = _cache_folder() / f"{name}-{target or 'all'}-{_content_hash(source, target, compiler)}.{kind}"
    try:
        return cached.read_bytes()
    except OSError:
        image = compiler.compile(source, target)
        write_bytes(cached, image)
        return image


@cache
def find_compiler() -> Compiler:
    """nvcc ($CUDA_HOME/bin, PATH, /usr/local/cuda/bin), else NVRTC; looked for once a process.

    Raises:
        QanetError: neither is installed.
    """
    folders = [os.path.join(os.environ[v], "bin") for v in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(v)]
    for folder in (*folders, None, "/usr/local/cuda/bin"):
        nvcc = shutil.which("nvcc", path=folder)
        if nvcc:
            return _nvcc(nvcc)
    library = _nvrtc_library()
    if library is None:
        raise QanetError(
            "no CUDA compiler to compile the kernels",
            expected="nvcc, or NVRTC from its package",
            got="neither",
            next_command="pip install nvidia-cuda-nvrtc",
        )
    return _nvrtc(library)


def _number(target: str) -> int:
    return int(target.removeprefix("sm_"))


def fat_binary_options(targets: tuple[str, ...]) -> tuple[str, ...]:
    """nvcc's options for cubins of all targets, oldest first, and PTX.

    All come from the oldest target's PTX, which any newer GPU runs too: the front end, most of the time, runs once.
    """
    oldest = f"compute_{_number(targets[0])}"
    return ("-fatbin", "--threads=0", "-gencode", f"arch={oldest},code=[{','.join((oldest, *targets))}]")


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qanet" / "kernels"


def _content_hash(source: Path, target: str | None, compiler: Compiler) -> str:
    """Of the source, every header beside it, the compiler and the options."""
    options = (_OPTIONS, target or fat_binary_options(compiler.targets))
    digest = hashlib.sha256(f"{compiler.version} {options}".encode())
    for path in (source, *sorted(KERNELS.glob("*.cuh"))):
        text = path.read_bytes()
        digest.update(f"{path.name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:32]


def _nvcc(program: str) -> Compiler:
    """The toolkit's compiler."""
    known = set(_run([program, "--list-gpu-code"]).split())
    targets = tuple(target for target in TARGETS if target in known)
    version = re.search(r"V([\d.]+)", _run([program, "--version"]))

    def compile_source(source: Path, target: str | None) -> bytes:
        options = (f"-arch={target}", "-cubin") if target else fat_binary_options(targets)
        with scratch_folder() as folder:
            image = folder / "image"
            _run([program, *_OPTIONS, *options, "-o", str(image), str(source)])
            return image.read_bytes()

    return Compiler(f"nvcc {version.group(1) if version else 'of unknown version'}", targets, compile_source, True)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise QanetError("the CUDA compiler does not start", got=error) from error
    if done.returncode:
        raise QanetError(f"{Path(command[0]).name} failed", got=(done.stderr or done.stdout)[-2000:])
    return done.stdout


def _nvrtc_library() -> Path | None:
    """libnvrtc of whichever package is installed."""
    for package in _NVRTC_PACKAGES:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if re.fullmatch(r"libnvrtc\.so(\.\d+)*|nvrtc64_\w+\.dll", file.name) and ".alt" not in file.name:
                return Path(str(file.locate()))
    return None


def _nvrtc(path: Path) -> Compiler:
    """The run-time compiler: one target at a time, no toolkit."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise QanetError("NVRTC does not load", got=error, next_command="pip install nvidia-cuda-nvrtc") from error

    def check(status: int, doing: str) -> None:
        if status:
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise QanetError(f"NVRTC failed to {doing}", got=library.nvrtcGetErrorString(status).decode())

    major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "report its version")
    check(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "count its targets")
    numbers = (ctypes.c_int * count.value)()
    check(library.nvrtcGetSupportedArchs(numbers), "list its targets")
    targets = tuple(target for target in TARGETS if _number(target) in set(numbers))

    def compile_source(source: Path, target: str | None) -> bytes:
        headers = sorted(KERNELS.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*[header.read_bytes() for header in headers])
        names = (ctypes.c_char_p * len(headers))(*[header.name.encode() for header in headers])
        options = [option.encode() for option in (*_OPTIONS, f"--gpu-architecture={target}")]
        program = ctypes.c_void_p()
        create = library.nvrtcCreateProgram
        check(
            create(ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), texts, names),
            "read the source",
        )
        try:
            status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            if status:
                log = _nvrtc_output(library, program, "ProgramLog", check).rstrip(b"\0").decode(errors="replace")
                raise QanetError(f"NVRTC cannot compile {source.name}", got=log[-2000:])
            return _nvrtc_output(library, program, "CUBIN", check)
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    return Compiler(f"NVRTC {major.value}.{minor.value}", targets, compile_source, False)


def _nvrtc_output(
    library: ctypes.CDLL, program: ctypes.c_void_p, what: str, check: Callable[[int, str], None]
) -> bytes:
    """The program's `what` ("CUBIN" or "ProgramLog"), whole."""
    size = ctypes.c_size_t()
    check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"size its {what}")
    buffer = ctypes.create_string_buffer(size.value)
    check(getattr(library, f"nvrtcGet{what}")(program, buffer), f"return its {what}")
    return buffer.raw
