"""Parsing where the tags are known: what is not among them wins nowhere, and the numbers say so."""

import json

import numpy as np
import pytest
from official_sets import write_ccp

from qanet.__main__ import main
from qanet.datasets import open_dataset
from qanet.datasets.annotations import read_tags, tags_of
from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59, CIHP20
from qanet.metrics import Truth
from qanet.runtime.evaluate import TaggedEngine, choose_tags, evaluate


class Fixed:
    """An engine of the same logits always."""

    runtime, precision, outputs = "fixed", "fp32", ("logits", "iou_scores")

    def __init__(self, logits):
        self.logits = logits

    def run(self, crops, box_scores):
        return {"logits": self.logits, "iou_scores": box_scores}


def test_absent_classes_cannot_win_and_the_rest_is_left_alone():
    logits = np.random.default_rng(0).normal(size=(2, 13, 4, 4)).astype(np.float32)
    before = logits.copy()
    tagged = TaggedEngine(Fixed(logits), CCP13)
    tagged.allow(np.array([0, 3, 7]))
    got = tagged.run(None, np.ones(2))["logits"]
    assert set(got.argmax(1).ravel()) <= {0, 3, 7}
    assert np.array_equal(got[:, [0, 3, 7]], before[:, [0, 3, 7]]) and np.array_equal(logits, before)
    tagged.allow(np.arange(13))
    assert np.array_equal(tagged.run(None, np.ones(2))["logits"], before)


def test_left_and_right_are_allowed_together():
    left, right = CIHP20.flip_pairs[0]
    tagged = TaggedEngine(Fixed(np.zeros((1, 20, 2, 2), np.float32)), CIHP20)
    tagged.allow(np.array([0, left]))
    allowed = tagged.run(None, np.ones(1))["logits"][0, :, 0, 0] == 0
    assert set(np.flatnonzero(allowed)) == {0, left, right}


def test_tags_of_an_annotation_leave_void_out():
    category = np.array([[5, 255], [12, 13]], np.uint8)
    assert tags_of(Truth(category, np.ones((2, 2), np.uint8)), 13).tolist() == [0, 5, 12]


@pytest.mark.parametrize("text", ["[", "[1]", '{"a": 3}', '{"a": ["x"]}', '{"a": [59]}', '{"a": [-1]}'])
def test_bad_tags(tmp_path, text):
    path = tmp_path / "tags.json"
    path.write_text(text)
    with pytest.raises(QanetError, match=r"tags\.json cannot be read as tags .*class ids by photograph"):
        read_tags(path, CCP59)


def test_tags_never_hurt_what_they_allow(tmp_path, tiny_parser):
    data = open_dataset(write_ccp(tmp_path / "ccp"), "ccp", CCP13)
    plain = evaluate(tiny_parser, data, "strict")
    tagged = evaluate(tiny_parser, data, "strict", tags=choose_tags("annotation", CCP13))
    truth = np.concatenate([scene.truth.category.ravel() for scene in data.images()])
    absent = np.setdiff1d(np.arange(13), np.unique(truth))
    assert np.nansum(np.asarray(tagged["f_measure"])[absent]) == 0  # what is nowhere annotated is nowhere predicted
    assert tagged["pixel_accuracy"] >= plain["pixel_accuracy"]


def test_the_command_says_what_was_given(shared_tiny_bundle, tmp_path, capsys):
    root = write_ccp(tmp_path / "ccp")
    arguments = ["val", str(shared_tiny_bundle), "--data", str(root), "--device", "cpu", "--threads", "1"]
    assert main([*arguments, "--tags", "annotation"]) == 0
    assert "TAGS OF THE ANNOTATION GIVEN" in capsys.readouterr().out.splitlines()[0]
    names = open_dataset(root, "ccp", CCP13, "val").image_names
    (tmp_path / "tags.json").write_text(json.dumps({name: [1] for name in names}))
    assert main([*arguments, "--tags", str(tmp_path / "tags.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tags"].endswith("tags.json") and document["accuracy"][2] in (0, None)
    (tmp_path / "tags.json").write_text(json.dumps({name: [1] for name in names[1:]}))
    for wrong, message in (
        (["--tags", str(tmp_path / "tags.json")], f"no tags of {names[0]}"),
        (["--tags", "annotation", "--tail", "graph"], "--tags needs the kernel tail"),
        (["--tags", "annotation", "--save"], "an accuracy card holds numbers of the plain parser"),
    ):
        assert main([*arguments, *wrong]) == 2 and message in capsys.readouterr().err
