"""Kernels compile for every target without spills, images are cached by content, and NVRTC serves without nvcc."""

import re
import shutil
import subprocess

import pytest

from qanet.errors import QanetError
from qanet.runtime.cuda import build

needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc: the CUDA toolkit is not installed")

# What build.py calls of NVRTC; its "cubin" tells how it was called.
_NVRTC_STUB = r"""
#include <cstdio>
#include <cstring>
#include <string>
static std::string result;
extern "C" {
int nvrtcVersion(int* major, int* minor) { *major = 13, *minor = 5; return 0; }
int nvrtcGetNumSupportedArchs(int* count) { *count = 3; return 0; }
int nvrtcGetSupportedArchs(int* out) { out[0] = 75, out[1] = 86, out[2] = 87; return 0; }
const char* nvrtcGetErrorString(int) { return "stubbed error"; }
int nvrtcCreateProgram(void** program, const char* source, const char* name, int count, const char* const* texts,
                       const char* const* names) {
    *program = &result;
    result = std::string(name) + (std::strstr(source, "__global__") ? " source" : "");
    for (int i = 0; i < count; ++i)
        result += std::string(" ") + names[i] + (std::strstr(texts[i], "#pragma") ? "+" : "");
    return std::strcmp(name, "pixel_score.cu") == 0 ? 5 : 0;
}
int nvrtcCompileProgram(void*, int count, const char* const* options) {
    for (int i = 0; i < count; ++i) result += std::string(" ") + options[i];
    return result.find("sm_75") == std::string::npos ? 0 : 6;
}
int nvrtcGetProgramLogSize(void*, size_t* size) { *size = 9; return 0; }
int nvrtcGetProgramLog(void*, char* out) { std::memcpy(out, "line 1: x", 9); return 0; }
int nvrtcGetCUBINSize(void*, size_t* size) { *size = result.size(); return 0; }
int nvrtcGetCUBIN(void*, char* out) { std::memcpy(out, result.data(), result.size()); return 0; }
int nvrtcDestroyProgram(void** program) { *program = nullptr; return 0; }
}
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and a compiler looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.find_compiler.cache_clear()
    yield tmp_path / "cache" / "qanet" / "kernels"
    build.find_compiler.cache_clear()


@pytest.fixture
def nvrtc(cache, monkeypatch, tmp_path):
    """A machine with the NVRTC package and no toolkit: the library is a stub."""
    if not shutil.which("g++"):
        pytest.skip("the stub of NVRTC needs g++")
    (tmp_path / "stub.cpp").write_text(_NVRTC_STUB)
    library = tmp_path / "libnvrtc.so.13"
    subprocess.run(["g++", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "stub.cpp")], check=True)
    monkeypatch.setattr(build.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(build, "_nvrtc_library", lambda: library)
    return cache


@needs_nvcc
@pytest.mark.parametrize("name", build.kernel_names())
def test_kernels_compile_for_every_target_and_do_not_spill(cache, name, tmp_path):
    targets = build.find_compiler().targets
    command = ["nvcc", *build._OPTIONS, *build.fat_binary_options(targets), "-Xptxas", "-v", "-Werror", "all-warnings"]
    command += ["-o", str(tmp_path / "image"), str(build.KERNELS / f"{name}.cu")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"for '{target}'" in done.stderr for target in targets)
    assert set(re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)) == {"0"}, done.stderr
    # Two blocks of 256 threads on a multiprocessor, at the least; 48 KiB of shared memory with the default pool.
    assert max(int(count) for count in re.findall(r"Used (\d+) registers", done.stderr)) <= 128
    assert max([0, *map(int, re.findall(r"(\d+) bytes smem", done.stderr))]) <= 8192


@needs_nvcc
def test_an_image_is_compiled_once_and_again_when_the_source_changes(cache, monkeypatch, tmp_path):
    kernels = tmp_path / "kernels"
    shutil.copytree(build.KERNELS, kernels)
    monkeypatch.setattr(build, "KERNELS", kernels)
    image = build.kernel_image("crop", "sm_87")
    assert image[:4] == b"\x7fELF" and [path.read_bytes() for path in cache.iterdir()] == [image]
    with monkeypatch.context() as no_compiler:
        no_compiler.setattr(build, "_run", lambda command: pytest.fail(f"compiled again: {command}"))
        assert build.kernel_image("crop", "sm_87") == image
    (kernels / "tile.cuh").write_text((kernels / "tile.cuh").read_text() + "// changed\n")
    build.kernel_image("crop", "sm_87")
    assert len(list(cache.iterdir())) == 2


@needs_nvcc
def test_a_fat_binary_holds_every_target_and_ptx(cache):
    image = build.kernel_image("crop")
    compiler = build.find_compiler()
    assert {"sm_75", "sm_86", "sm_90"} <= set(compiler.targets) and len(image) > 10_000
    assert build.kernel_image("crop", "sm_999") == image  # a GPU yet to come runs the PTX
    dump = shutil.which("cuobjdump")
    if dump:
        (cache / "image").write_bytes(image)
        listed = subprocess.run([dump, "-lelf", "-lptx", str(cache / "image")], capture_output=True, text=True).stdout
        assert all(f"{target}." in listed for target in compiler.targets) and ".ptx" in listed


@needs_nvcc
def test_a_source_that_does_not_compile_is_told(cache, monkeypatch, tmp_path):
    (tmp_path / "wrong.cu").write_text("int f() { return nothing; }\n")
    monkeypatch.setattr(build, "KERNELS", tmp_path)
    with pytest.raises(QanetError, match="nvcc failed.*nothing.*undefined"):
        build.kernel_image("wrong", "sm_86")
    assert not list(cache.glob("*"))


def test_bad_names_and_targets_are_named(nvrtc):
    with pytest.raises(QanetError, match="no such kernel file.*crop or pixel_score.*got nonsense"):
        build.kernel_image("nonsense", "sm_86")
    with pytest.raises(QanetError, match="bad target.*got 8.6"):
        build.kernel_image("crop", "8.6")
    with pytest.raises(QanetError, match="too old.*sm_75 or newer, got sm_61"):
        build.kernel_image("crop", "sm_61")


def test_nvrtc_compiles_with_the_headers_and_its_image_is_cached(nvrtc):
    image = build.kernel_image("crop", "sm_87")
    assert image == b"crop.cu source tile.cuh+ --std=c++17 --fmad=true --gpu-architecture=sm_87"
    assert [path.read_bytes() for path in nvrtc.iterdir()] == [image]


def test_what_nvrtc_cannot_do_is_told(nvrtc):
    with pytest.raises(QanetError, match="one target that it knows.*sm_75 sm_86 sm_87, got sm_120.*next: install"):
        build.kernel_image("crop", "sm_120")
    with pytest.raises(QanetError, match="cannot compile crop.cu .got line 1: x"):
        build.kernel_image("crop", "sm_75")
    with pytest.raises(QanetError, match="failed to read the source .got stubbed error"):
        build.kernel_image("pixel_score", "sm_86")


def test_without_a_compiler_the_next_command_is_told(cache, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(build.importlib.metadata, "files", _not_installed)
    with pytest.raises(QanetError, match="no CUDA compiler.*next: pip install nvidia-cuda-nvrtc"):
        build.kernel_image("crop", "sm_86")


def _not_installed(package):
    raise build.importlib.metadata.PackageNotFoundError(package)
