"""Who is who: the best assignment, a Kalman filter's motion, and identities that outlive hiding and crossing."""

import itertools
import time

import numpy as np
import pytest

from qanet.labels import CCP13
from qanet.results import People, Person
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.track.carry import CarriedPeople
from qanet.runtime.track.tracker import MAX_EVERY, MEMORY_FRAMES, Cadence, Motion, Tracker, assign


@pytest.mark.parametrize("seed", range(40))
def test_no_other_assignment_is_better(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 6, 2)
    similarity = np.where(rng.random((rows, columns)) < 0.6, rng.random((rows, columns)), 0).round(2)
    pairs = assign(similarity, 0.3)
    assert all(similarity[pair] >= 0.3 for pair in pairs)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    worth = np.where(similarity >= 0.3, similarity, 0)
    wide = worth if rows <= columns else worth.T
    best = max(wide[range(len(wide)), list(p)].sum() for p in itertools.permutations(range(wide.shape[1]), len(wide)))
    assert sum(similarity[pair] for pair in pairs) == pytest.approx(best)


def test_the_best_pair_is_left_where_it_robs_another():
    assert assign(np.array([[0.8, 0.7], [0.7, 0.0]]), 0.2) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_nothing_to_assign_is_no_pair(shape):
    assert assign(np.zeros(shape), 0.2) == []


def test_the_filter_is_the_textbook_one():
    """Against the 8x8 matrices of a Kalman filter with the same noise."""
    rng = np.random.default_rng(0)
    box = np.array([10, 20, 50, 120], np.float32)
    motion = Motion(box)
    state = np.concatenate([[30, 70, 40, 100], np.zeros(4)])
    covariance = np.diag([10.0**2] * 4 + [6.25**2] * 4)
    step, see = np.eye(8) + np.eye(8, k=4), np.eye(4, 8)
    for _ in range(12):
        height = state[3]
        noise = np.diag([(height / 20) ** 2] * 4 + [(height / 160) ** 2] * 4)
        state, covariance = step @ state, step @ covariance @ step.T + noise
        motion.predict(keep_size=False)
        box = box + np.array([3, 1, 3, 2], np.float32) + rng.normal(0, 1, 4).astype(np.float32)
        measured = np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
        total = see @ covariance @ see.T + np.eye(4) * (state[3] / 20) ** 2
        gain = covariance @ see.T @ np.linalg.inv(total)
        state, covariance = state + gain @ (measured - see @ state), (np.eye(8) - gain @ see) @ covariance
        motion.correct(box)
        assert np.allclose(motion.position, state[:4]) and np.allclose(motion.velocity, state[4:])
    assert abs(motion.velocity[0] - 3) < 0.7


def walker(x, y=40, width=40, height=120):
    """A box by its left edge."""
    return [x, y, x + width, y + height]


def play(scene, frames, detect_every=1, carry=True):
    """Identity of each person by frame, through the tracker and a parser that sees what the detector's box holds.

    Args:
        scene: frame -> {name: (box, score)} of the people that a detector sees.
    """
    carried, seen = CarriedPeople(carry), {}
    image = np.zeros((240, 640, 3), np.uint8)
    for frame in range(frames):
        visible = scene(frame)
        found = None
        if frame % detect_every == 0:
            boxes = np.array([box for box, _ in visible.values()], np.float32).reshape(-1, 4)
            found = Detections(boxes, np.array([score for _, score in visible.values()], np.float32))
        proposed = carried.propose(found, image.shape[:2])
        people = []
        for box, score, track in zip(proposed.boxes, proposed.scores, proposed.track_ids):
            name, truth = max(visible.items(), key=lambda item: _iou(item[1][0], box), default=(None, None))
            overlap = _iou(truth[0], box) if truth else 0
            x0, y0, x1, y1 = (int(v) for v in (truth[0] if overlap > 0.3 else box))
            labels = np.full((y1 - y0, x1 - x0), 4 if overlap > 0.3 else 0, np.uint8)
            trust, scores = (0.9 if overlap > 0.3 else 0.2), np.zeros(12, np.float32)
            people.append(
                Person(box, float(score), trust, trust, trust, scores, scores, labels, (x0, y0, x1, y1), int(track))
            )
            if overlap > 0.3:
                seen.setdefault(name, {})[frame] = int(track)
        carried.update(People(image, CCP13, people))
    return seen


def _iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.clip(np.subtract(high, low), 0, None).prod()
    return both / (np.subtract(a[2:], a[:2]).prod() + np.subtract(b[2:], b[:2]).prod() - both)


@pytest.mark.parametrize("hidden", [4, 12, 20])
def test_a_walker_behind_a_pillar_comes_out_as_the_same(hidden):
    def scene(frame):
        return {} if 15 <= frame < 15 + hidden else {"a": (walker(20 + 6 * frame), 0.8)}

    ids = set(play(scene, 30 + hidden)["a"].values())
    assert ids == {1}


def test_who_is_away_too_long_is_somebody_new():
    gap = MEMORY_FRAMES + 5
    ids = play(lambda frame: {} if 10 <= frame < 10 + gap else {"a": (walker(100), 0.8)}, 20 + gap)["a"]
    assert ids[9] == 1 and ids[15 + gap] == 2


@pytest.mark.parametrize(("speed", "every"), [(3, 1), (5, 1), (8, 1), (5, 2), (4, 3)])
def test_two_who_cross_keep_their_numbers(speed, every):
    """The one behind is not seen while more than half hidden."""

    def scene(frame):
        front, back = walker(60 + speed * frame), walker(420 - speed * frame, 46)
        people = {"front": (front, 0.8)}
        if abs(front[0] - back[0]) > 20:
            people["back"] = (back, 0.8)
        return people

    seen = play(scene, 360 // speed - 5, every)
    last = max(seen["front"])
    assert seen["front"][0] == seen["front"][last] and seen["back"][0] == seen["back"][max(seen["back"])]
    assert len({*seen["front"].values(), *seen["back"].values()}) == 2


def test_doubtful_detections_hold_a_track_and_begin_none():
    tracker = Tracker()
    box = np.array([walker(100)], np.float32)
    numbers = []
    for score in (0.2, 0.8, 0.2, 0.15, 0.05, 0.8):
        tracker.predict()
        numbers.append(tracker.match(Detections(box, np.array([score], np.float32)))[0].tolist())
    assert numbers == [[0], [1], [1], [1], [0], [1]]


def test_the_doubtful_get_what_the_sure_leave():
    tracker = Tracker()
    boxes = np.array([walker(100), walker(120)], np.float32)
    tracker.match(Detections(boxes, np.array([0.9, 0.9], np.float32)))
    tracker.predict()
    ids, least = tracker.match(Detections(boxes[::-1] + 1, np.array([0.2, 0.9], np.float32)))
    assert ids.tolist() == [2, 1] and 0.9 < least < 1


@pytest.mark.parametrize("jitter", [0.0, 2.0])
def test_a_crowd_of_two_hundred_is_numbered_in_bounded_time(jitter):
    rng = np.random.default_rng(0)
    origin = rng.uniform(0, 1800, (200, 2))
    tracker, kept = Tracker(), []
    start = time.perf_counter()
    for frame in range(5):
        moved = origin + 2 * frame + rng.normal(0, jitter, (200, 2))
        boxes = np.concatenate([moved, moved + [40, 120]], 1).astype(np.float32)
        tracker.predict()
        kept.append(tracker.match(Detections(boxes, rng.uniform(0.5, 1, 200).astype(np.float32)))[0])
    assert (time.perf_counter() - start) / 5 < 1.0
    assert np.mean(kept[0] == kept[-1]) > 0.95


def test_nobody_for_an_hour_leaves_nothing():
    tracker = Tracker()
    for _ in range(3600):
        tracker.predict()
        assert tracker.match(NOBODY)[0].shape == (0,)
    assert tracker.tracks == []


@pytest.mark.parametrize("every", [1, 3])
def test_a_fixed_cadence_detects_on_every_kth_frame(every):
    cadence = Cadence(every)
    asked = [index for index in range(10) if cadence.wants(index)]
    cadence.learn(True), cadence.hurry()
    assert asked == list(range(0, 10, every)) and cadence.every == every


def test_an_adaptive_cadence_slows_down_and_wakes_up():
    cadence = Cadence(None)
    asked = []
    for index in range(40):
        if cadence.wants(index):
            asked.append(index)
            cadence.learn(surprised=index == 0)
    assert asked[:6] == [0, 1, 3, 6, 9, 12] and np.diff(asked).max() == MAX_EVERY
    cadence.hurry()
    assert cadence.wants(40) and not cadence.wants(41)
    cadence.learn(surprised=True)
    assert cadence.wants(42)
