"""What teachers agree on is learnt, what else they see is left out; labels stay, with the teachers' doubts beside."""

import json

import numpy as np
import pytest
from person_cases import write_people

from qanet.errors import QanetError
from qanet.train.detection.photographs import IGNORED, UNLABELLED, read_photographs
from qanet.train.detection.teachers import fuse, taught, with_doubts

A, B, FAR, HIDDEN = [10, 10, 50, 110], [12, 10, 52, 110], [200, 10, 240, 110], [500, 10, 540, 110]


def fused(*looks):
    """Rows of (box, score, look), two decimals."""
    seen = np.array([[*box, score, look] for box, score, look in looks], np.float32).reshape(-1, 6)
    return fuse(seen, 3).round(2).tolist()


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(A, 0.6, 0), (B, 0.6, 1)], [[11, 10, 51, 110, 0.4]]),  # the third look saw nobody
        ([(A, 0.6, 0), (B, 0.3, 1)], [[10.67, 10, 50.67, 110, IGNORED]]),  # the second is not sure enough
        ([(A, 0.9, 0)], [[*A, IGNORED]]),
        ([(A, 0.2, 0)], []),  # too faint to be a doubt
        ([(A, 0.2, 0), (B, 0.2, 2)], [[11, 10, 51, 110, IGNORED]]),
        ([(A, 0.6, 0), (A, 0.9, 1), (FAR, 0.5, 2)], [[*A, 0.5], [*FAR, IGNORED]]),
        ([(A, 0.9, 0), (B, 0.8, 0)], [[*A, IGNORED], [*B, IGNORED]]),  # one look does not agree with itself
        ([], []),
    ],
)
def test_looks_are_fused(looks, expected):
    assert fused(*looks) == [pytest.approx(row, abs=0.02) for row in expected]


def test_doubts_stand_beside_labels_and_lower_theirs():
    labels = np.array([[*A, 1], [*HIDDEN, 1], [600, 0, 700, 99, IGNORED]], np.float32)
    small, large = [300, 10, 310, 30], [400, 10, 440, 90]
    seen = np.array([[*B, 0.8], [*FAR, 0.7], [*small, IGNORED], [*large, IGNORED]], np.float32)
    expected = [[*A, 0.9], [*HIDDEN, 0.5], labels[2].tolist(), [*FAR, IGNORED], [*small, IGNORED]]
    assert with_doubts(labels, seen).tolist() == [pytest.approx(row) for row in expected]
    assert with_doubts(labels[:0], seen[:1]).tolist() == [[*B, IGNORED]]
    assert with_doubts(labels[:1], seen[:0]).tolist() == [[*A, 0.5]]


def test_looks_teach_the_unlabelled_and_stand_beside_the_labelled(tmp_path):
    photographs = read_photographs(write_people(tmp_path / "people"))
    file = tmp_path / "looks.json"
    seen = {p.name: [[*A, 0.75, 0], [*A, 0.75, 2]] for p in photographs}
    file.write_text(json.dumps({"looks": 3, "seen": seen}))
    done = taught(photographs, file)
    assert [p.name for p in done] == [p.name for p in photographs]
    for photograph, before in zip(done, photographs):
        if photograph.kind == UNLABELLED:
            assert photograph.rows.tolist() == [[*A, 0.75]]
        else:
            assert (photograph.rows[: len(before.rows), :4] == before.rows[:, :4]).all()


def test_files_that_are_no_looks_are_named(tmp_path):
    photographs = read_photographs(write_people(tmp_path / "people"))
    file = tmp_path / "looks.json"
    with pytest.raises(QanetError, match="no looks at"):
        taught(photographs, file)
    for text, message in (
        ("{", "is not a file of looks"),
        ('{"seen": {}}', "is not a file of looks"),
        ('{"looks": 3, "seen": {}}', "no looks at unlabelled/drawn"),
    ):
        file.write_text(text)
        with pytest.raises(QanetError, match=message):
            taught(photographs, file)
