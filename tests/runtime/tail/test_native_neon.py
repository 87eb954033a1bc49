"""The C++ kernel tail for AArch64, where its vectors are NEON: cross-compiled and run by QEMU."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from foreign_native import ForeignLibrary, build
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case
from tail_backends import assert_same, dense

from qanet import geometry, quality
from qanet.errors import QanetError
from qanet.runtime import native

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """(emulator, program); skips with the package that is missing."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not compiler or not emulator:
        missing = "g++-aarch64-linux-gnu" if not compiler else "qemu-user"
        pytest.skip(f"no AArch64 here: install the Debian package {missing}")
    return emulator, build(compiler, tmp_path_factory.mktemp("aarch64"))


@pytest.fixture
def neon(program, monkeypatch):
    """`native` over the foreign program."""
    foreign = ForeignLibrary(*program)
    monkeypatch.setattr(native, "load", lambda: foreign)
    return foreign


def test_the_program_is_for_aarch64_and_its_vectors_are_neon(neon, program):
    assert native.lanes() == (4,)
    assert program[1].read_bytes()[18:20] == b"\xb7\x00"  # e_machine of an ELF file: 183
    dump = shutil.which("aarch64-linux-gnu-objdump")
    listing = subprocess.run([dump, "-d", "-C", str(program[1])], capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", listing)) > 20


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_golden_cases(neon, golden, name):
    arguments, case = read_case(golden, name)
    assert_golden(native.pixel_score(**arguments), case)
    assert neon.calls == 1


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("scale", [0.3, 2, 40])
@pytest.mark.parametrize(
    "shape, image_hw, box",
    [
        ((2, 1, 1), (5, 7), [-1, -1, 9, 9]),
        ((20, 8, 6), (130, 90), [3.5, 2.25, 80, 120]),
        ((5, 32, 24), (40, 40), [8, 8, 14, 13]),
        ((256, 3, 5), (70, 100), [-30, -20, 160, 90]),
        ((7, 16, 12), (150, 9), [0, 0, 300, 150]),
    ],
)
def test_odd_shapes(neon, shape, image_hw, box, scale, half):
    logits = np.random.default_rng(3).normal(0, scale, (1, *shape)).astype(np.float16 if half else np.float32)
    expected = quality.pixel_score(logits, [box], image_hw)
    assert_same(native.pixel_score(logits, [box], image_hw), expected, [dense(logits[0], box, image_hw)], 0.2)


def test_exp_is_as_exact_as_elsewhere(neon):
    x = -np.geomspace(1e-8, 80, 50_000).astype(np.float32)
    assert abs(native.exp(x) / np.exp(x.astype(np.float64)) - 1).max() < 1.5e-7


def test_logits_that_are_not_finite_are_refused(neon):
    logits = np.zeros((1, 3, 8, 6), np.float16)
    logits[0, 2, 7, 5] = np.inf
    with pytest.raises(QanetError, match="logits are not finite .*got 1 nan or infinite"):
        native.pixel_score(logits, [[0, 0, 24, 32]], (32, 24))


@pytest.mark.parametrize("box", [[3.5, 2.25, 44, 50], [-20, -9, 300, 400], [10.2, 11.3, 16, 18], [90, 90, 99, 99]])
def test_crops(neon, box):
    image = np.random.default_rng(5).integers(0, 256, (60, 47, 3), np.uint8)
    got, expected = (
        f(image, np.array([box], np.float32), (40, 31)) for f in (native.crop_people, geometry.crop_people)
    )
    assert np.abs(got.astype(int) - expected).max() <= 9  # OpenCV's coordinates are whole 1/32 pixels
