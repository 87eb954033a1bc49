"""Which back-end of the kernel tail answers, what each says when it cannot, and the sources under sanitizers."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_once import compiled_once

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime import native
from qanet.runtime.kernels import choose_kernels

LOGITS = np.random.default_rng(0).normal(0, 2, (1, 4, 8, 6)).astype(np.float32)
CALL = {"logits": LOGITS, "boxes": [[1, 2, 30, 40]], "image_size": (48, 32)}
built = pytest.mark.skipif(not native.available(), reason="the native library is not built: it needs a C++17 compiler")


@pytest.fixture
def without_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "PATH", tmp_path / "libqanet_native.so.1")
    native.load.cache_clear()
    yield
    native.load.cache_clear()


def test_without_the_library_auto_is_numpy(without_library, monkeypatch):
    called = []
    monkeypatch.setattr(quality, "pixel_score", lambda *arguments: called.append(arguments) or "numpy")
    assert choose_kernels().pixel_score(**CALL) == "numpy" and len(called) == 1


def test_without_the_library_native_says_what_to_do(without_library):
    with pytest.raises(QanetError, match=r"native back-end is not built .*libqanet_native.so.1 .*; next: install"):
        choose_kernels("native")


def test_a_file_that_is_no_library_is_as_good_as_none(without_library):
    native.PATH.write_bytes(b"not a library")
    assert not native.available()


@built
def test_with_the_library_auto_is_native(monkeypatch):
    monkeypatch.setattr(native, "pixel_score", lambda *arguments: "native")
    assert choose_kernels().pixel_score(**CALL) == "native" == choose_kernels("native").pixel_score(**CALL)


def test_an_unknown_back_end_is_refused():
    with pytest.raises(QanetError, match="unknown back-end .*one of numpy, native, cuda, got opencl"):
        choose_kernels("opencl")


def test_cuda_that_cannot_be_imported_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(QanetError, match="PyCUDA or the NVIDIA driver is missing .*; next: pip install 'qanet-edge"):
        choose_kernels("cuda")


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=built)])
@pytest.mark.parametrize("pairs", [[(1, 4)], [(-1, 2)], [(1, 2, 3)], [(0.5, 1)], [3]])
def test_flip_pairs_that_are_not_pairs_of_classes_are_refused(backend, pairs):
    with pytest.raises(QanetError, match="flip_pairs do not fit .*pairs of classes below 4"):
        choose_kernels(backend).pixel_score(**CALL, flipped_logits=LOGITS, flip_pairs=pairs)


@built
def test_other_threads_run_meanwhile():
    """The interpreter's lock is free while the library works: a counting thread gets on."""
    logits = np.random.default_rng(0).normal(0, 2, (1, 20, 64, 48)).astype(np.float32)
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    native.pixel_score(logits, [[0, 0, 6000, 6000]], (6000, 6000), threads=1)
    during = counted[0] - before
    done.set()
    counter.join()
    assert during > 10


SANITIZED = """
import sys
import numpy as np
from pathlib import Path
from qanet.runtime import native
native.PATH = Path(sys.argv[1])
assert native.available()
rng = np.random.default_rng(0)
for lanes in native.lanes():
    for classes, h, w, size, box in [
        (2, 1, 1, (5, 7), [-1, -1, 9, 9]), (20, 8, 6, (130, 90), [3.5, 2.25, 80, 120]),
        (5, 32, 24, (40, 40), [8, 8, 14, 13]), (256, 3, 5, (70, 200), [-30, -20, 260, 90]),
        (7, 16, 12, (300, 9), [0, 0, 500, 300]), (3, 4, 4, (9, 9), [50, 50, 60, 60]),
        (4, 9, 9, (33, 17), [-1e6, -1e6, 1e6, 1e6]), (3, 40, 40, (50, 50), [10, 10, 10.25, 40]),
    ]:
        for kind in (np.float16, np.float32):
            logits = rng.normal(0, 2, (2, classes, h, w)).astype(kind)
            for flipped in (None, logits[:, :, ::-1]):
                native.pixel_score(logits, [box, box], size, 0.0, flipped, threads=2, vector_lanes=lanes)
    native.exp(np.linspace(-90, 0, 999).astype(np.float32), lanes)
    for size in ((1, 1), (3, 2), (9, 300), (200, 31)):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        boxes = np.array([[0, 0, size[1], size[0]], [-5, -7, 4, 3], [-1e6, -1e6, 1e6, 1e6], [0.5, 0.5, 0.75, 0.6],
                          [900, 900, 950, 999], [-50, 1, 400, 1.5], [size[1] - 1, 0, size[1] + 1, 99]], np.float32)
        for hw in ((1, 1), (8, 6), (300, 500)):
            native.crop_people(image, boxes, hw, threads=3, vector_lanes=lanes)
try:
    native.pixel_score(np.full((1, 2, 3, 3), np.nan, np.float32), [[0, 0, 9, 9]], (9, 9))
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_the_sources_are_clean_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine")
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(runtime.stdout.strip()).is_file():
        pytest.skip("this g++ has no address sanitizer")
    built_here = tmp_path / "libqanet_native.so.1"
    cpp = Path(native.__file__).parent / "cpp"
    flags = [
        "-std=c++17",
        "-O1",
        "-g",
        "-ffp-contract=off",
        "-fPIC",
        "-shared",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    command = [compiler, *flags, f"-I{cpp}", *cpp.rglob("*.cpp")]
    compiled_once(command, cpp.rglob("*.*"), built_here)
    environment = {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, str(built_here)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "logits are not finite" in done.stdout
