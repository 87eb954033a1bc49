"""The C++ kernel tail against the NumPy reference: every instruction set of this machine, any threads, odd shapes."""

import tracemalloc

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case
from hypothesis import given, settings
from hypothesis import strategies as st
from tail_backends import assert_same, dense

from qanet import quality
from qanet.errors import QanetError
from qanet.runtime import native

if not native.available():
    pytest.skip("the native library is not built: it needs a C++17 compiler", allow_module_level=True)

LANES = native.lanes()


def random_logits(seed, *shape):
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def assert_close(got, expected, differing=0.0):
    """Equal regions and labels, scores within 1e-5; a share of the labels may differ where noise makes near ties."""
    assert np.array_equal(got.rois, expected.rois)
    for mine, theirs in zip(got.labels, expected.labels):
        assert mine.dtype == np.uint8 and mine.shape == theirs.shape
        assert np.count_nonzero(mine != theirs) <= differing * mine.size
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.part_scores, expected.part_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_golden_cases(golden, name, lanes):
    arguments, case = read_case(golden, name)
    assert_golden(native.pixel_score(**arguments, vector_lanes=lanes), case)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_classes=st.integers(2, 9),
    map_hw=st.tuples(*[st.integers(1, 9)] * 2),
    image_hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corner=st.tuples(*[st.floats(-40, 80, width=32)] * 2),
    size=st.tuples(*[st.floats(0.03125, 200, width=32)] * 2),
    threshold=st.sampled_from([0.0, 0.2, 0.6]),
    half=st.booleans(),
    lanes=st.sampled_from(LANES),
    threads=st.integers(1, 3),
)
def test_any_shape(seed, num_classes, map_hw, image_hw, corner, size, threshold, half, lanes, threads):
    logits = random_logits(seed, 1, num_classes, *map_hw)
    logits = logits.astype(np.float16) if half else logits
    box = [*corner, corner[0] + size[0], corner[1] + size[1]]
    expected = quality.pixel_score(logits, [box], image_hw, threshold)
    got = native.pixel_score(logits, [box], image_hw, threshold, vector_lanes=lanes, threads=threads)
    assert_same(got, expected, [dense(logits[0], box, image_hw)], threshold)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("num_classes", [2, 3, 59, 256])
@pytest.mark.parametrize("box", [[3.5, -4, 150, 170], [10, 12, 22, 25], [0, 0, 400, 8], [50, 20, 51, 130]])
def test_classes_and_scales(lanes, num_classes, box):
    """Enlarged, reduced, and each along one axis only; with a flipped view."""
    logits, flipped = (random_logits(seed, 1, num_classes, 17, 13) for seed in (1, 2))
    views = {"flipped_logits": flipped, "flip_pairs": [(1, num_classes - 1)]}
    pasted = [
        sum(dense(view[0], box, (140, 160)) for view in (logits, quality.unflip(flipped, views["flip_pairs"]))) / 2
    ]
    expected = quality.pixel_score(logits, [box], (140, 160), **views)
    assert_same(native.pixel_score(logits, [box], (140, 160), **views, vector_lanes=lanes), expected, pasted, 0.2)


def test_a_region_of_many_tiles_is_the_same_for_any_number_of_threads():
    logits, flipped = random_logits(0, 3, 20, 40, 30), random_logits(1, 3, 20, 40, 30)
    boxes = [[-20.5, 10, 900, 700], [300, 200, 420, 900], [1000.25, 1, 1030, 64]]
    scored = [
        native.pixel_score(logits, boxes, (800, 1100), flipped_logits=flipped, flip_pairs=[(1, 2)], threads=threads)
        for threads in (1, 2, 3, 8)
    ]
    expected = quality.pixel_score(logits, boxes, (800, 1100), flipped_logits=flipped, flip_pairs=[(1, 2)])
    assert_close(scored[0], expected, 1e-5)
    for other in scored[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(scored[0].labels, other.labels))
        assert scored[0].pixel_scores.tobytes() == other.pixel_scores.tobytes()
        assert scored[0].part_scores.tobytes() == other.part_scores.tobytes()


def test_tiles_do_not_show():
    """A column of the image on its own gives the labels that it has in the whole."""
    logits = random_logits(3, 1, 6, 8, 8)
    whole = native.pixel_score(logits, [[0, 0, 640, 640]], (640, 6000)).full(0)[:, :640]
    columns = [native.pixel_score(logits, [[-x, 0, 640 - x, 640]], (640, 8)).full(0) for x in range(0, 640, 8)]
    assert np.array_equal(whole, np.concatenate(columns, 1))


@pytest.mark.parametrize("layout", ["class last", "mirrored", "every other", "one person of many", "odd bytes"])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_logits_are_read_where_they_lie(layout, kind):
    logits = random_logits(2, 2, 5, 8, 6).astype(kind)
    other = {
        "class last": lambda: np.ascontiguousarray(logits.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "mirrored": lambda: logits[..., ::-1].copy()[..., ::-1],
        "every other": lambda: np.repeat(logits, 2, 3)[..., ::2],
        "one person of many": lambda: np.broadcast_to(logits[:1], logits.shape),
        "odd bytes": lambda: np.frombuffer(b"x" + logits.tobytes(), np.uint8)[1:].view(kind).reshape(logits.shape),
    }[layout]()
    boxes = [[3, 4, 40, 60], [-5, 10, 20, 44]]
    expected = native.pixel_score(np.ascontiguousarray(other, np.float32), boxes, (64, 48))
    got = native.pixel_score(other, boxes, (64, 48))
    assert all(np.array_equal(a, b) for a, b in zip(expected.labels, got.labels))
    assert np.array_equal(expected.part_scores, got.part_scores)


def test_every_finite_half_is_read_exactly():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = np.resize(halves[np.isfinite(halves)], 63488).reshape(1, 2, 124, 256)
    box = [[0, 0, 1024, 496]]
    single, half = (native.pixel_score(halves.astype(kind), box, (496, 1024)) for kind in (np.float32, np.float16))
    assert np.array_equal(single.labels[0], half.labels[0]) and single.pixel_scores == half.pixel_scores


@pytest.mark.parametrize("lanes", LANES)
def test_huge_logits_do_not_overflow(lanes):
    logits = np.full((1, 3, 8, 6), -3e38, np.float32)
    logits[0, 2] = 3e38
    scored = native.pixel_score(logits, [[0, 0, 24, 32]], (32, 24), vector_lanes=lanes)
    assert (scored.full(0) == 2).all() and scored.part_scores[0].tolist() == [0, 1]


@pytest.mark.parametrize("lanes", LANES)
def test_the_first_class_wins_a_tie(lanes):
    logits = np.zeros((1, 7, 8, 6), np.float32)
    logits[0, [3, 5]] = 4  # equal, and greater than the others
    assert (native.pixel_score(logits, [[0, 0, 50, 70]], (70, 50), vector_lanes=lanes).full(0) == 3).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("view", ["logits", "flipped_logits"])
def test_logits_that_are_not_finite_are_refused_in_the_words_of_the_reference(value, kind, view):
    """Even where no pixel of the image samples them."""
    arguments = {"logits": np.zeros((1, 3, 8, 6), kind), "boxes": [[-200, 0, 24, 32]], "image_size": (32, 24)}
    arguments["flipped_logits"] = arguments["logits"]
    arguments[view] = arguments[view].copy()
    arguments[view][0, 1, 5, :2] = value
    with pytest.raises(QanetError, match=f"^{view} are not finite.*got 2 nan or infinite") as mine:
        native.pixel_score(**arguments)
    with pytest.raises(QanetError) as theirs:
        quality.pixel_score(**arguments)
    assert mine.value.line() == theirs.value.line()


@pytest.mark.parametrize("lanes", LANES)
def test_exp_is_exact_to_1_5e_7(lanes):
    x = -np.geomspace(1e-8, 80, 500_000).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert abs(native.exp(x, lanes) / exact - 1).max() < 1.5e-7
    edges = native.exp(np.array([0, -0.0, -88, -3e38, -np.inf], np.float32), lanes)
    assert edges[:2].tolist() == [1, 1]
    assert (edges[2:] >= 0).all() and (edges[2:] < 2e-35).all()  # below -80 it stays at e^-80


def test_lanes_that_are_not_there_are_refused():
    with pytest.raises(QanetError, match="vector_lanes does not fit this machine .*got 7"):
        native.pixel_score(random_logits(0, 1, 3, 4, 4), [[0, 0, 9, 9]], (9, 9), vector_lanes=7)


def test_memory_is_of_a_few_rows():
    """Python's side: no copy of the logits, nothing of the image's size but the labels."""
    logits = random_logits(0, 2, 20, 32, 24)
    boxes = [[0, 0, 2000, 1500], [100, 100, 1900, 1400]]
    tracemalloc.start()
    scored = native.pixel_score(logits, boxes, (1500, 2000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < sum(region.nbytes for region in scored.labels) + 1e5


def test_arguments_are_not_changed():
    logits, flipped = random_logits(3, 1, 3, 8, 6), random_logits(4, 1, 3, 8, 6)
    before = logits.copy(), flipped.copy()
    native.pixel_score(logits, [[0, 0, 10, 20]], (32, 24), flipped_logits=flipped)
    assert np.array_equal(logits, before[0]) and np.array_equal(flipped, before[1])


def parts_of(seed, num_classes, height, width, spread=8.0):
    """(1, C, h, w) logits as a network gives them: blobs of one class each, with a margin over the others."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.3, (1, num_classes, height, width)).astype(np.float32)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(6):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, max(height, width) / 2)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        logits[0, rng.integers(num_classes)][inside] += np.float32(rng.uniform(1, spread))
    return logits


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_classes=st.sampled_from([2, 3, 7, 20, 64, 65]),
    map_hw=st.tuples(st.integers(2, 40), st.integers(2, 60)),
    image_hw=st.tuples(st.integers(1, 120), st.integers(1, 160)),
    corner=st.tuples(*[st.floats(-60, 60, width=32)] * 2),
    size=st.tuples(*[st.floats(4, 400, width=32)] * 2),
    threshold=st.sampled_from([0.0, 0.2, 0.6]),
    lanes=st.sampled_from(LANES),
    spread=st.sampled_from([4.0, 19.0, 60.0]),
)
def test_classes_that_cannot_win_are_left_out_and_nothing_shows(
    seed, num_classes, map_hw, image_hw, corner, size, threshold, lanes, spread
):
    """Parts as networks draw them, where most places have one candidate, up to steps that leave the fast softmax."""
    logits = parts_of(seed, num_classes, *map_hw, spread)
    box = [*corner, corner[0] + size[0], corner[1] + size[1]]
    expected = quality.pixel_score(logits, [box], image_hw, threshold)
    got = native.pixel_score(logits, [box], image_hw, threshold, vector_lanes=lanes, threads=1)
    assert_same(got, expected, [dense(logits[0], box, image_hw)], threshold)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("step", [19.9, 20.1, 79.0, 200.0, 1e4, 3e38])
@pytest.mark.parametrize("axis", [2, 3])
def test_steps_between_map_cells_of_any_height(lanes, step, axis):
    """Around the bound of the geometric series, and far beyond: up and down, along rows and columns."""
    logits = np.zeros((1, 3, 6, 6), np.float32)
    index = [slice(None)] * 4
    index[axis] = slice(1, None, 2)
    logits[0, 1][tuple(index[2:])] = step
    logits[0, 2][tuple(index[2:])] = -step
    logits[0, 2] += np.float32(0.5)
    box, image_hw = [-3, 2, 60, 47], (52, 61)
    expected = quality.pixel_score(logits, [box], image_hw)
    got = native.pixel_score(logits, [box], image_hw, vector_lanes=lanes)
    with np.errstate(over="ignore"):
        assert_same(got, expected, [dense(logits[0], box, image_hw)], 0.2)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("num_classes", [2, 20, 256])
def test_one_class_alone_over_a_region_larger_than_its_counters(lanes, num_classes):
    """Whole vectors are added to lanes of 32 bits, which are emptied in time."""
    logits = np.full((1, num_classes, 2, 2), -30, np.float32)
    logits[0, 1] = 30
    scored = native.pixel_score(logits, [[-500, -500, 2500, 4500]], (4000, 1200), vector_lanes=lanes, threads=2)
    assert (scored.labels[0] == 1).all() and scored.labels[0].shape == (4000, 1200)
    assert scored.pixel_scores.tolist() == [1] and scored.part_scores[0].tolist() == [1] + [0] * (num_classes - 2)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("above_mean", [-0.6, -0.01, 0.01, 0.6])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_class_between_two_others_is_left_out_only_below_their_mean(lanes, above_mean, axis):
    """At a border of two classes a third wins a strip if it is far enough above their mean."""
    position = np.mgrid[:24, :24][axis] - 11.5  # no cell lies on the border
    logits = np.zeros((1, 3, 24, 24), np.float32)
    logits[0, 0], logits[0, 2] = np.clip(-3 * position, -9, 9), np.clip(3 * position, -9, 9)
    logits[0, 1] = above_mean
    box, image_hw = [2.5, -1, 131, 140], (144, 136)
    expected = quality.pixel_score(logits, [box], image_hw)
    got = native.pixel_score(logits, [box], image_hw, vector_lanes=lanes)
    assert_same(got, expected, [dense(logits[0], box, image_hw)], 0.2)
    assert (1 in expected.labels[0]) == (above_mean > 0.5)  # 0.375 at the crop's pixels next to the border


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.6, 0.99])
def test_one_candidate_that_is_not_certain_everywhere(lanes, threshold):
    """A class alone, from hardly shown to certain: each pixel is held against the thresholds by itself."""
    logits = np.zeros((1, 4, 20, 20), np.float32)
    logits[0, 2] = np.linspace(0.05, 8, 20)[:, None] + np.linspace(0, 0.3, 20)
    box, image_hw = [-7, 3, 150, 158], (160, 141)
    expected = quality.pixel_score(logits, [box], image_hw, threshold)
    got = native.pixel_score(logits, [box], image_hw, threshold, vector_lanes=lanes)
    assert_same(got, expected, [dense(logits[0], box, image_hw)], threshold)
    assert np.array_equal(got.labels[0], expected.labels[0])
