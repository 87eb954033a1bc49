"""Parts within silhouettes: a certain class, one of two garments, or somebody's still."""

import cv2
import numpy as np
import torch

from qanet.benchmarks.lab import people_parts as parts
from qanet.labels import CCP13, IGNORE
from qanet.train.data.people import ANY_CLASS, TOP, PeopleFolder
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import save_weights

UPPER, DRESS, SKIN = (CCP13.classes.index(name) for name in ("upper-clothes", "dress", "skin"))


def probabilities(**rows):
    """(13, 4, 10): row k holds the k-th of the given {class: probability}; the rest is background."""
    maps = torch.zeros(13, 4, 10)
    for row, classes in enumerate(rows.values()):
        for index, value in classes.items():
            maps[index, row] = value
    maps[0] = 1 - maps[1:].sum(0)
    return maps


def test_a_teacher_is_believed_where_it_is_certain_and_within_the_silhouette():
    silhouette = np.full((4, 10), ANY_CLASS, np.uint8)
    silhouette[:, 8], silhouette[:, 9] = 0, IGNORE
    seen = probabilities(a={SKIN: 0.9}, b={UPPER: 0.4, DRESS: 0.4}, c={SKIN: 0.3, DRESS: 0.4}, d={SKIN: 0.2})
    found = parts.add_parts(silhouette, seen, CCP13)
    assert found[:, 0].tolist() == [SKIN, TOP, ANY_CLASS, ANY_CLASS]  # the last is hardly seen at all
    assert (found[:, 8] == 0).all() and (found[:, 9] == IGNORE).all()


def test_a_teacher_that_does_not_see_the_person_says_nothing():
    silhouette = np.full((4, 10), ANY_CLASS, np.uint8)
    seen = probabilities(a={SKIN: 0.9})
    assert (parts.add_parts(silhouette, seen, CCP13) == ANY_CLASS).all()


def test_the_command_labels_every_person_and_goes_on(silhouettes, tmp_path, capsys):
    torch.manual_seed(0)
    settings = recipe("ccp13-lite0", {"input_hw": "96x64", "pretrained": "false"})
    teacher = tmp_path / "teacher.safetensors"
    save_weights(teacher, build(settings), settings)
    command = [str(teacher), "--people", str(silhouettes), "--scales", "1", "--output", str(tmp_path / "out")]
    for _ in range(2):
        assert parts.main(command) == 0
    people = PeopleFolder(tmp_path / "out", CCP13)
    before = cv2.imread(str(silhouettes / "labels" / "p0.png"), cv2.IMREAD_UNCHANGED)
    after = people.labels(0)
    assert ((after == 0) == (before == 0)).all() and ((after == IGNORE) == (before == IGNORE)).all()
    assert "2 people" in capsys.readouterr().out
