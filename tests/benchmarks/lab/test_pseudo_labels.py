"""Labels from teachers: groups by the coarse one, classes within by the fine one, tags above both."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qanet.benchmarks.lab import pseudo_labels as pseudo
from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59, IGNORE
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import save_weights

HAIR, JEANS, PANTS, SUIT = (CCP59.classes.index(name) for name in ("hair", "jeans", "pants", "suit"))


class Colours:
    """A network that knows classes by their colour: (class, BGR, logit) triples; 20 is certain."""

    def __init__(self, num_classes, *known):
        self.num_classes, self.known = num_classes, known

    def normalise(self, crops):
        return crops.permute(0, 3, 1, 2).float()

    def __call__(self, x):
        small = F.avg_pool2d(x, 4)
        logits = torch.zeros(len(x), self.num_classes, *small.shape[2:])
        logits[:, 0] = 10.0
        for index, colour, logit in self.known:
            near = (small - torch.tensor(colour)[None, :, None, None]).abs().amax(1) < 30
            logits[:, index] = torch.where(near, logit, logits[:, index])
        return logits, torch.ones(len(x))


RED, BLUE, GREY = (0.0, 0.0, 255.0), (255.0, 0.0, 0.0), (90.0, 90.0, 90.0)
FINE = pseudo.Teacher(
    Colours(59, (HAIR, RED, 20.0), (PANTS, BLUE, 20.0), (JEANS, BLUE, 19.0), (SUIT, GREY, 20.0)), (96, 72), CCP59
)
_HAIR, _SKIRT, _PANTS = (CCP13.classes.index(name) for name in ("hair", "skirt", "pants"))
COARSE = pseudo.Teacher(Colours(13, (_HAIR, RED, 20.0), (_SKIRT, BLUE, 20.0), (_PANTS, BLUE, 15.0)), (96, 72), CCP13)
EVERY = np.arange(59)


@pytest.fixture
def photo(small_ccp):
    return cv2.imread(str(small_ccp / "photos" / "p0.png"))


def inner(labels):
    """Class ids a few pixels inside the hair, the suit and the trousers."""
    return [int(labels[row, 40]) for row in (20, 42, 70)]


@pytest.mark.parametrize(
    ("teachers", "ids", "expected"),
    [
        ([FINE], EVERY, [HAIR, SUIT, PANTS]),
        ([FINE], np.array([0, HAIR, JEANS, SUIT]), [HAIR, SUIT, JEANS]),  # the tags know better
        ([FINE, COARSE], EVERY, [HAIR, SUIT, CCP59.classes.index("skirt")]),  # the group is the coarse one's to choose
        ([FINE, COARSE], np.array([0, HAIR, JEANS, SUIT]), [HAIR, SUIT, JEANS]),
    ],
)
def test_who_decides(photo, teachers, ids, expected):
    labels = pseudo.label_photo(teachers, photo, ids)
    assert labels.shape == photo.shape[:2] and inner(labels) == expected
    assert (labels[:5] == 0).all()
    assert set(np.unique(labels)) <= {*ids.tolist(), IGNORE}


def test_a_pixel_of_which_nothing_is_certain_is_void(photo):
    doubtful = pseudo.Teacher(Colours(59, (HAIR, RED, 20.0), (PANTS, BLUE, 20.0), (JEANS, BLUE, 20.0)), (96, 72), CCP59)
    labels = pseudo.label_photo([doubtful], photo, np.array([0, HAIR, PANTS, JEANS]))
    assert inner(labels)[0] == HAIR and inner(labels)[2] == IGNORE


def test_nobody(photo):
    assert pseudo.label_photo([FINE], np.full_like(photo, 200), EVERY) is None


def test_combine_shares_a_group_by_the_fine_teacher():
    group_of, groups = pseudo.groups_among(CCP13, np.array([0, JEANS, PANTS, SUIT]))
    assert group_of[3] == IGNORE and groups.tolist() == [0, CCP13.classes.index("pants")]
    fine = torch.tensor([0.2, 0.3, 0.1, 0.4])[:, None, None]
    got = pseudo.combine(fine, torch.tensor([0.25, 0.75])[:, None, None], group_of)
    torch.testing.assert_close(got[:, 0, 0], torch.tensor([0.25 * 0.6, 0.75 * 0.6 * 0.75, 0.75 * 0.6 * 0.25, 0.4]))
    blind = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None, None]
    got = pseudo.combine(blind, torch.tensor([0.0, 1.0])[:, None, None], group_of)
    torch.testing.assert_close(got[:, 0, 0], torch.tensor([0.0, 0.5, 0.5, 0.0]))


@pytest.fixture
def checkpoint(tmp_path):
    def make(name):
        settings = recipe(name, {"width": "16", "iou_hidden": "16", "pretrained": "false", "input_hw": "64x64"})
        save_weights(tmp_path / f"{name}.safetensors", build(settings), settings)
        return str(tmp_path / f"{name}.safetensors")

    return make


def test_the_command_makes_a_data_set_of_both_and_goes_on_where_it_stopped(small_ccp, tmp_path, checkpoint, capsys):
    more, output = tmp_path / "more", tmp_path / "out"
    more.mkdir()
    for number in (0, 1):
        cv2.imwrite(str(more / f"q{number}.png"), cv2.imread(str(small_ccp / "photos" / "p0.png")))
    (tmp_path / "tags.json").write_text(json.dumps({"q0": [HAIR, PANTS]}))
    arguments = [checkpoint("ccp59-lite0"), "--photos", str(more), "--tags", str(tmp_path / "tags.json")]
    arguments += ["--join", str(small_ccp), "--output", str(output)]
    (output / "labels").mkdir(parents=True)
    cv2.imwrite(str(output / "labels" / "q1.png"), np.full((100, 80), PANTS, np.uint8))
    assert pseudo.main(arguments) == 0
    train = (output / "train.txt").read_text().split()
    assert train[:4] == ["p0", "p1", "p2", "p3"] and "q1" in train
    assert (output / "val.txt").read_text().split() == ["p4", "p5"]
    assert (cv2.imread(str(output / "labels" / "q1.png"), 0) == PANTS).all()  # was there, is kept
    seen = int(re.search(r"(\d) without a person", capsys.readouterr().out)[1])
    assert len(train) == 6 - seen
    if not seen:
        assert set(np.unique(cv2.imread(str(output / "labels" / "q0.png"), 0))) <= {0, HAIR, PANTS, IGNORE}


def test_teachers_whose_classes_are_no_groups_are_refused(checkpoint, tmp_path):
    with pytest.raises(QanetError, match="are no groups of ccp13"):
        pseudo.main([checkpoint("ccp13-lite0"), checkpoint("ccp59-lite0"), "--photos", ".", "--output", str(tmp_path)])


def test_no_photographs(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(QanetError, match="no photographs in"):
        pseudo.main([checkpoint("ccp59-lite0"), "--photos", str(tmp_path / "empty"), "--output", str(tmp_path / "o")])


def test_tags_of_finer_classes_are_grouped(tmp_path):
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps({"1005": [0, HAIR, JEANS, PANTS, SUIT]}))
    assert pseudo._tags(tags, CCP59, CCP13)["1005"].tolist() == [0, _HAIR, _PANTS]
    assert pseudo._tags(tags, CCP59, CCP59)["1005"].tolist() == sorted([0, HAIR, JEANS, PANTS, SUIT])
    assert pseudo._tags(None, CCP13, CCP13) == {}
