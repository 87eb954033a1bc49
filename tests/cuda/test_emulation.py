"""The emulation itself: what it runs, and that kernels broken on purpose are caught."""

import numpy as np
import pytest
from cuda_emulation.calls import score
from cuda_emulation.driver import Emulated, EmulationError, Launch

_PIECES = r"""
__device__ inline float half(float value) { return value / 2; }

extern "C" __global__ void __launch_bounds__(64)
reduce(const int* values, int* sums, int* votes) {
    __shared__ int warps[2];
    extern __shared__ int copy[];
    copy[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    int value = copy[blockDim.x - 1 - threadIdx.x];
    for (int by = 16; by; by /= 2) value += __shfl_down_sync(0xffffffffu, value, by);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    const unsigned odd = __ballot_sync(0xffffffffu, copy[threadIdx.x] % 2);
    if (threadIdx.x % 32 == 0) atomicAdd(votes, __popc(odd));
    const int all = __syncthreads_count(copy[threadIdx.x] >= 0);
    if (threadIdx.x == 0) sums[blockIdx.x] = warps[0] + warps[1] + 1000000 * all;
}

extern "C" __global__ void uneven(int* out, int who) {
    if (static_cast<int>(threadIdx.x) == who) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(int* out) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void uneven_warp(int* out) {
    if (threadIdx.x < 31) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    __syncthreads();
}

extern "C" __global__ void touch(int* out, int index, int read) {
    if (read) out[0] = out[index];
    else out[index] = 5;
}

extern "C" __global__ void past_shared(int* out, int index) {
    __shared__ int few[4];
    extern __shared__ int many[];
    few[threadIdx.x] = 1;
    if (index < 4) out[0] = few[index + 4];
    many[index] = out[0];
}

extern "C" __global__ void unset_shared(int* out) {
    __shared__ int value;
    out[blockIdx.x] = value;
    __syncthreads();
    if (threadIdx.x == 0) value = 3;
}
"""


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Small kernels that each use or break one rule."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "pieces.cu").write_text(_PIECES)
    (folder / "built").mkdir()
    return Emulated(folder / "pieces.cu", folder / "built")


@pytest.mark.parametrize("schedule", [0, 1, 2, 3])
def test_barriers_shuffles_votes_and_shared_memory(emulated, pieces, schedule):
    values = np.arange(192, dtype=np.int32)
    sums, votes = np.zeros(3, np.int32), np.zeros(1, np.int32)
    pieces.run(Launch("reduce", (3, 1, 1), (64, 1, 1), (values, sums, votes), 64 * 4), schedule=schedule)
    assert sums.tolist() == (values.reshape(3, 64).sum(1) + 64_000_000).tolist() and votes[0] == 96


@pytest.mark.parametrize("who", [0, 5, 63])
def test_a_barrier_that_a_thread_does_not_reach_is_named(emulated, pieces, who):
    launch = Launch("uneven", (1, 1, 1), (64, 1, 1), (np.zeros(64, np.int32), np.int32(who)))
    with pytest.raises(EmulationError, match=r"uneven: block \(0, 0, 0\).*barrier that not all threads.*line"):
        pieces.run(launch)


@pytest.mark.parametrize(
    ("kernel", "message"), [("two_barriers", "different barriers"), ("uneven_warp", "warp operation that not all")]
)
def test_divergence_is_named(emulated, pieces, kernel, message):
    with pytest.raises(EmulationError, match=message):
        pieces.run(Launch(kernel, (1, 1, 1), (32, 1, 1), (np.zeros(32, np.int32),)))


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize(("index", "before"), [(10, False), (-1, True), (1000, False)])
def test_memory_outside_a_buffer_is_named(emulated, pieces, index, before, read):
    arguments = (np.zeros(10, np.int32), np.int32(index), np.int32(read))
    with pytest.raises(EmulationError, match=rf"byte {4 * index} of buffer 0, which has 40 bytes"):
        pieces.run(Launch("touch", (1, 1, 1), (1, 1, 1), arguments), guard_before=before)


def test_a_write_into_the_margin_is_named(emulated, pieces):
    arguments = (np.zeros(10, np.int32), np.int32(-3), np.int32(0))
    with pytest.raises(EmulationError, match="byte -12 of buffer 0.*was written"):
        pieces.run(Launch("touch", (1, 1, 1), (1, 1, 1), arguments))


@pytest.mark.parametrize(("index", "message"), [(0, "signal"), (16, "byte 64 of buffer 1")])
def test_shared_memory_has_bounds(emulated, pieces, index, message):
    launch = Launch("past_shared", (1, 1, 1), (1, 1, 1), (np.zeros(1, np.int32), np.int32(index)), 64)
    with pytest.raises(EmulationError, match=message):
        pieces.run(launch)


def test_shared_memory_starts_as_rubbish_in_every_block(emulated, pieces):
    out = np.zeros(3, np.int32)
    pieces.run(Launch("unset_shared", (3, 1, 1), (4, 1, 1), (out,)))
    assert out.tolist() == [-1, -1, -1]


def _scores(kernels, **how):
    logits = np.random.default_rng(0).normal(0, 3, (1, 20, 9, 7)).astype(np.float32)
    return score(kernels, logits, [[-5.0, 3.0, 44.0, 50.0]], (47, 51), **how)


def _all_runs(kernels):
    """The runs that every kernel's tests compare: forward, backward, shuffled; pages before and behind."""
    return [_scores(kernels, schedule=s, guard_before=s > 0) for s in (0, 1, 7)]


_BARRIER = "__syncthreads();\n"
_CLEAR = "clear(shared.statistics, thread);\n"
_FILL = "fill(in, place.person, chunk, shared, pool, thread);\n        "
_SAMPLE = "        for (int k = 0; k < chunk.classes; ++k) {\n            const float* plane"
_INSIDE = "if (place.inside()) {\n        const long long pixel"

# The pixel score without one of its barriers, or with an index one too far: text -> text.
BREAKS = {
    "no_barrier_after_taps": (_CLEAR + "    " + _BARRIER, _CLEAR),
    "no_barrier_after_fill": (_FILL + _BARRIER, _FILL),
    "no_barrier_before_sampling": ("        " + _BARRIER + _SAMPLE, _SAMPLE),
    "no_barrier_before_sums": (_BARRIER + "    unsigned long long* sums", "unsigned long long* sums"),
    "a_thread_leaves_early": (
        "if (!find_place(in.rois, place)) return;",
        "if (!find_place(in.rois, place) || !place.inside()) return;",
    ),
    "labels_beyond_the_region": (_INSIDE, _INSIDE.removeprefix("if (place.inside()) ")),
    "a_cell_too_far": ("cells.high = min(cells.low + 1, size - 1)", "cells.high = cells.low + 1"),
    "too_many_classes_in_the_pool": ("min(pool_floats / (views * pixels), in.num_classes)", "in.num_classes"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_pixel_score_is_caught(emulated, tmp_path, name):
    broken = Emulated("pixel_score", tmp_path, edit=BREAKS[name])
    how = {"pool_floats": 1024} if name == "too_many_classes_in_the_pool" else {}
    sound = _scores(emulated("pixel_score"))
    try:
        runs = [_scores(broken, schedule=s, guard_before=s > 0, **how) for s in (0, 1, 7)]
    except (EmulationError, AssertionError):
        return
    assert any(
        run.pixel_scores.tobytes() != sound.pixel_scores.tobytes()
        or run.part_scores.tobytes() != sound.part_scores.tobytes()
        or not np.array_equal(run.labels[0], sound.labels[0])
        for run in runs
    ), f"{name} went unnoticed"


def test_the_sound_pixel_score_passes_the_same_runs(emulated):
    first, *others = _all_runs(emulated("pixel_score"))
    for other in others:
        assert first.part_scores.tobytes() == other.part_scores.tobytes()
