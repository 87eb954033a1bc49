"""The launches as the layer makes them, run by the kernels' own source under emulation: every argument in its place."""

import shutil

import numpy as np
import pytest
from cuda_emulation.driver import KERNELS, Emulated, Launch
from golden_cases import assert_golden, read_case

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime import native
from qanet.runtime.cuda.crop import crop_people
from qanet.runtime.cuda.gpu_context import Tensor, shared_context
from qanet.runtime.cuda.tail import pixel_score, score_people
from qanet.runtime.kernels import choose_kernels

_SCALARS = {"i": np.int32, "q": np.int64, "f": np.float32}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The kernels' files, compiled on first use."""
    if not shutil.which("g++"):
        pytest.skip("needs g++ to compile the emulated kernels")
    names = sorted(path.stem for path in KERNELS.glob("*.cu"))
    return {name: Emulated(name, tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture
def emulated(kernels, programs):
    """The machine, whose kernels are the project's own."""
    files = {"pixel_score_finish": "pixel_score", "crop_people": "crop"}
    for name in kernels.kernels:
        program = programs[files.get(name, name.rpartition("_")[0])]
        kernels.kernels[name] = lambda machine, *arguments, name=name, program=program: run(
            machine, program, next(record for record in machine.launches if record.arguments == arguments)
        )
    return kernels


def run(machine, program, record):
    """One launch; every pointer becomes a buffer to the end of its allocation, and only what it changed goes back."""
    before, buffers, arguments = [], [], []
    for kind, value in zip(record.types, record.arguments):
        if kind != "P":
            arguments.append(_SCALARS[kind](value))
        elif value == 0:
            arguments.append(None)
        else:
            memory = machine.memory[value >> 32 << 32][value % (1 << 32) :]
            before.append(memory)
            buffers.append(memory.copy())
            arguments.append(buffers[-1])
    program.run(Launch(record.name, record.grid, record.block, tuple(arguments), record.shared))
    for memory, old, new in zip(before, [memory.copy() for memory in before], buffers):
        changed = old != new
        memory[changed] = new[changed]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["p01_single_inside", "p05_two_classes", "p09_flip_cihp", "p13_outside"])
def test_golden_cases_through_the_kernels_source(emulated, golden, name, dtype):
    arguments, case = read_case(golden, name)
    for key in ("logits", "flipped_logits"):
        if key in arguments:
            arguments[key] = arguments[key].astype(dtype)
    for _ in range(2):  # the sums are left as they were found
        found = pixel_score(**arguments)
        expected = quality.pixel_score(**arguments)
        if dtype == "float32":
            assert_golden(found, case)
        np.testing.assert_allclose(found.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-5)
        for mine, reference in zip(found.labels, expected.labels):
            assert mine.shape == reference.shape and np.mean(mine != reference) < 1e-3 if reference.size else True


def test_crops_through_the_kernels_source(emulated):
    size, rng = (61, 83), np.random.default_rng(8)
    boxes = np.array([[3, 4, 40, 57], [-90, -90, -50, -50], [30, -5, 99, 50]], np.float32)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    got, reference = crop_people(image, boxes, (37, 29)), choose_kernels().crop_people(image, boxes, (37, 29))
    off = np.abs(got.astype(int) - reference)
    assert off.max() <= (1 if native.available() else 8) and off.mean() < 1  # OpenCV's weights are 1/32 of a pixel


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_logits_on_the_gpu_that_are_not_finite_are_seen_by_the_kernels_source(emulated, dtype):
    size, boxes = (40, 30), [[0, 0, 28, 36], [-400, 0, -300, 90]]
    logits = np.random.default_rng(5).normal(0, 3, (2, 4, 9, 7)).astype(dtype)
    gpu = shared_context()
    with gpu.active("testing"), Tensor(gpu, "test.logits", logits.shape, logits.dtype) as tensor:
        for person, value in ((0, -np.inf), (1, np.nan), (None, 0)):  # the second lies outside the image
            values = logits.copy()
            if person is not None:
                values[person, 3, 8, 6] = value
            tensor.upload(values)
            with score_people(gpu, tensor.first(2), boxes, size) as scored:
                if person is None:
                    assert scored.download().pixel_scores[0] > 0
                    continue
                with pytest.raises(QanetError, match=r"^logits are not finite .*got 1 nan or infinite"):
                    scored.download()
