"""People carried from frame to frame keep their identity, and are let go when they are no longer there."""

import numpy as np
import pytest

from qanet.labels import CCP13
from qanet.results import People, Person
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.track.carry import CarriedPeople, labelled_box


def found(*boxes, scores=None):
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array, np.array(scores or [0.9] * len(array), np.float32))


def parsed(proposed, trust=0.9):
    """What a parser would make of the proposals: every box is filled with class 4."""
    people = []
    for box, score, track in zip(proposed.boxes, proposed.scores, proposed.track_ids):
        x0, y0, x1, y1 = (int(v) for v in box)
        labels, scores = np.full((y1 - y0, x1 - x0), 4, np.uint8), np.zeros(12, np.float32)
        people.append(
            Person(box, float(score), trust, trust, trust, scores, scores, labels, (x0, y0, x1, y1), int(track))
        )
    return People(np.zeros((200, 200, 3), np.uint8), CCP13, people)


def test_a_walker_keeps_the_identity():
    carried = CarriedPeople()
    for frame in range(5):
        proposed = carried.propose(found([10 + 4 * frame, 10, 50 + 4 * frame, 100], [120, 10, 160, 100]))
        assert sorted(proposed.track_ids.tolist()) == [1, 2]
        assert dict(zip(proposed.track_ids.tolist(), proposed.boxes[:, 0].tolist())) == {1: 10 + 4 * frame, 2: 120}
        carried.update(parsed(proposed))


def test_a_newcomer_gets_a_new_identity():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    assert sorted(carried.propose(found([10, 10, 50, 100], [120, 10, 160, 100])).track_ids.tolist()) == [1, 2]


@pytest.mark.parametrize("detector_ran", [True, False])
def test_a_person_the_detector_misses_is_looked_for_where_they_were(detector_ran):
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    proposed = carried.propose(NOBODY if detector_ran else None)
    assert proposed.track_ids.tolist() == [1] and proposed.boxes.tolist() == [[10, 10, 50, 100]]
    assert proposed.scores[0] == pytest.approx(0.9 * 0.97)


def test_an_unconfirmed_person_is_let_go_after_a_while():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    frames = 0
    while len(proposed := carried.propose(None)):
        carried.update(parsed(proposed))
        frames += 1
        assert frames < 100
    assert frames == 49  # 0.9 * 0.97^49 >= 0.2 > 0.9 * 0.97^50


def test_a_person_whose_parsing_is_not_trusted_is_not_carried():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100])), trust=0.5))
    assert len(carried.propose(None)) == 0


def test_a_detection_takes_over_the_box():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    proposed = carried.propose(found([14, 12, 60, 110], scores=[0.4]))
    assert proposed.track_ids.tolist() == [1] and proposed.boxes.tolist() == [[14, 12, 60, 110]]


def test_two_detections_on_one_spot_are_one_person():
    proposed = CarriedPeople().propose(found([11, 10, 51, 100], [12, 10, 52, 100], scores=[0.9, 0.7]))
    assert proposed.track_ids.tolist() == [1]


def test_a_carried_person_behind_another_is_hidden_and_not_parsed_twice():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100], [12, 10, 66, 100], scores=[0.9, 0.8]))))
    assert carried.propose(found([10, 10, 50, 100])).track_ids.tolist() == [1]


def test_a_carried_person_who_walks_out_of_the_image_is_let_go():
    carried = CarriedPeople()
    for frame in range(8):
        carried.update(parsed(carried.propose(found([60 + 16 * frame, 10, 100 + 16 * frame, 100]), (200, 200))))
    for _ in range(6):
        proposed = carried.propose(None, (200, 200))
        assert (proposed.boxes[:, 2] <= 200).all() and (proposed.boxes[:, 2] - proposed.boxes[:, 0] >= 12).all()
        carried.update(parsed(proposed))
    assert len(proposed) == 0


def test_frames_that_change_size_take_the_people_with_them():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]), (200, 200))))
    proposed = carried.propose(None, (100, 400))
    assert proposed.track_ids.tolist() == [1] and proposed.boxes.tolist() == [[20, 5, 100, 50]]
    assert carried.propose(found([20, 5, 100, 50]), (100, 400)).track_ids.tolist() == [1]


def test_numbers_alone_add_nobody():
    carried = CarriedPeople(carry=False)
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    assert len(carried.propose(NOBODY)) == 0
    assert carried.propose(found([12, 10, 52, 100])).track_ids.tolist() == [1]


def test_what_is_new_is_a_surprise():
    carried = CarriedPeople()

    def surprise(detections):
        carried.update(parsed(carried.propose(detections)))
        return carried.surprised

    still = [10, 10, 50, 100]
    assert surprise(found(still)) and not surprise(found(still)) and surprise(found(still, [120, 10, 160, 100]))
    assert not surprise(found(still, [120, 10, 160, 100])) and surprise(found(still))  # somebody is missed
    assert surprise(found([30, 10, 70, 100], [120, 10, 160, 100]))  # somebody jumped


def test_lost_trust_in_a_carried_person_is_told():
    carried = CarriedPeople()
    carried.update(parsed(carried.propose(found([10, 10, 50, 100]))))
    carried.update(parsed(carried.propose(None)))
    assert not carried.uneasy
    carried.update(parsed(carried.propose(None), trust=0.3))
    assert carried.uneasy


def test_an_empty_scene_starts_and_stays_empty():
    carried = CarriedPeople()
    assert len(carried.propose(None)) == 0 and carried.propose(NOBODY).track_ids.shape == (0,)


def person_with(labels, roi):
    scores = np.zeros(12, np.float32)
    return Person(np.zeros(4, np.float32), 1, 1, 1, 1, scores, scores, labels, roi)


def test_the_labelled_box_leaves_specks_out():
    labels = np.zeros((60, 60), np.uint8)
    labels[10:40, 20:50] = 3
    labels[58, 1] = 3
    assert labelled_box(person_with(labels, (100, 200, 160, 260))).tolist() == [120, 210, 150, 240]


@pytest.mark.parametrize("hw", [(60, 60), (0, 0), (0, 5)])
def test_too_little_has_no_box(hw):
    labels = np.zeros(hw, np.uint8)
    labels[:8, :8] = 3
    assert labelled_box(person_with(labels, (0, 0, hw[1], hw[0]))) is None


def test_a_box_that_nobody_measures_keeps_its_size():
    """Detections shrink and then fail; the person is still parsed whole."""
    carried = CarriedPeople()
    for frame in range(6):
        carried.update(parsed(carried.propose(found([10 + frame, 10 + 4 * frame, 110 - frame, 190 - 4 * frame]))))
    sizes = []
    for _ in range(12):
        proposed = carried.propose(None)
        sizes.append((proposed.boxes[0, 2:] - proposed.boxes[0, :2]).tolist())
        carried.update(parsed(proposed))
    assert min(height for _, height in sizes) > 0.9 * 140 and min(width for width, _ in sizes) > 0.9 * 90
