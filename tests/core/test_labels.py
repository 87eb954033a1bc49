"""Label sets: the classes of the data sets, their mirrors, CCP's 59 labels in 13 classes, and sets of one's own."""

import json

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59, IGNORE, LABEL_SETS, LabelSet, label_set, read_label_set


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("ccp13", 13, "scarf"),
        ("ccp59", 59, "wedges"),
        ("cihp20", 20, "right-shoe"),
        ("lip20", 20, "right-shoe"),
        ("atr18", 18, "scarf"),
        ("mhp59", 59, "other-lower"),
        ("ppp7", 7, "lower-legs"),
        ("celebamask19", 19, "cloth"),
        ("ppp7-arms-first", 7, "upper-arms"),
        ("person1", 2, "person"),
    ],
)
def test_the_classes_of_a_set(name, count, last):
    labels = label_set(name)
    assert labels.num_classes == count == len(set(labels.classes))
    assert (labels.classes[0], labels.classes[-1]) == ("background", last)


def test_every_set_is_tested_by_name():
    assert sorted(LABEL_SETS) == sorted(s.name for s in LABEL_SETS.values()) and len(LABEL_SETS) == 11


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_a_mirror_swaps_left_and_right_and_is_its_own_inverse(labels):
    mirror = labels.flip_map
    assert np.array_equal(mirror[mirror], np.arange(256))
    sided = {name for name in labels.classes if name.startswith(("left-", "right-"))}
    swapped = {labels.classes[i] for i in range(labels.num_classes) if mirror[i] != i}
    assert swapped == sided
    for left, right in labels.flip_pairs:
        assert labels.classes[left].removeprefix("left-") == labels.classes[right].removeprefix("right-")
        assert labels.classes[left].startswith("left-")


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_colours_are_distinct_and_background_is_black(labels):
    colours = labels.colours_rgb
    assert colours.shape == (labels.num_classes, 3) and colours.dtype == np.uint8
    assert not colours[0].any()
    assert len(np.unique(colours, axis=0)) == labels.num_classes


@pytest.mark.parametrize(
    ("fine", "coarse"),
    [
        ("background", 0),
        ("hat", 1),
        ("hair", 2),
        ("sunglasses", 3),
        ("glasses", 3),
        ("t-shirt", 4),
        ("coat", 4),
        ("skirt", 5),
        ("jeans", 6),
        ("dress", 7),
        ("belt", 8),
        ("wedges", 9),
        ("skin", 10),
        ("purse", 11),
        ("scarf", 12),
        ("suit", IGNORE),
        ("romper", IGNORE),
        ("tights", IGNORE),
        ("ring", IGNORE),
    ],
)
def test_where_a_label_of_ccp_goes(fine, coarse):
    assert CCP13.lookup[CCP59.classes.index(fine)] == coarse


def test_ids_outside_a_set_are_void():
    assert CCP13.lookup[59] == IGNORE and CCP13.lookup[255] == IGNORE
    assert label_set("ppp7").lookup[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, IGNORE]


def test_the_two_orders_of_pascal_person_part_have_the_same_classes():
    one, other = label_set("ppp7"), label_set("ppp7-arms-first")
    assert sorted(one.classes) == sorted(other.classes) and one.classes != other.classes
    assert one.flip_pairs == other.flip_pairs == ()


@pytest.mark.parametrize(("name", "count"), [("ccp13", 59), ("ccp59", 59), ("cihp20", 20), ("celebamask19", 19)])
def test_how_many_ids_a_label_file_may_hold(name, count):
    labels = label_set(name)
    assert labels.num_raw == count and (labels.lookup[count:] == IGNORE).all()


def test_an_unknown_set_lists_the_known():
    with pytest.raises(QanetError, match="unknown label set 'coco' .expected one of ccp13, .*personbox1, got coco"):
        label_set("coco")


OWN = {"name": "hats", "classes": ["background", "hair", "skin", "left-shoe", "right-shoe"]}


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_a_set_of_ones_own_is_a_file(tmp_path, suffix):
    document = {
        **OWN,
        "colours": ["#000000", "#ff0000", "#00ff00", "#0000ff", "#102030"],
        "flip_pairs": [["left-shoe", "right-shoe"]],
        "void": [200],
        "ids": ["background", "hair", "face", "arm", "ring", "left-shoe", "right-shoe"],
        "groups": {"skin": ["face", "arm"]},
    }
    path = tmp_path / f"hats.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(document))
    else:
        path.write_text(pytest.importorskip("yaml").safe_dump(document))
    labels = label_set(path)
    assert labels.classes == tuple(OWN["classes"]) and labels.flip_pairs == ((3, 4),)
    assert labels.colours_rgb.tolist()[-1] == [16, 32, 48]
    assert labels.lookup[:8].tolist() == [0, 1, 2, 2, IGNORE, 3, 4, IGNORE]
    assert np.flatnonzero(labels.known).tolist() == [0, 1, 2, 3, 4, 5, 6, 200, 255]
    assert labels.lookup[200] == IGNORE


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_a_set_survives_the_trip_through_json(labels):
    assert LabelSet.of_document(json.loads(json.dumps(labels.to_document()))) == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../hats"}, "bad name"),
        ({"name": None}, "bad name"),
        ({"classes": ["hair", "skin"]}, '"background" first'),
        ({"classes": ["background"]}, "bad classes"),
        ({"classes": ["background", "hair", "hair"]}, "'hair' twice"),
        ({"classes": ["background", "a,b"]}, "without commas"),
        ({"classes": "background hair"}, "without commas"),
        ({"classes": ["background", *map(str, range(250))]}, "bad classes"),
        ({"colours": ["#000000"]}, "one for each of 5"),
        ({"colours": ["red"] * 5}, "#rrggbb"),
        ({"flip_pairs": [["left-shoe", "hat"]]}, "two different classes of the set"),
        ({"flip_pairs": [["hair", "hair"]]}, "two different classes of the set"),
        ({"flip_pairs": [["hair", "skin"], ["skin", "left-shoe"]]}, "each class in one"),
        ({"flip_pairs": 3}, "a list"),
        ({"void": [256]}, "ids below 256"),
        ({"void": [True]}, "ids below 256"),
        ({"source_map": [0, 7]}, "bad source_map"),
        ({"ids": ["background", "arm"], "groups": {"skin": ["leg"]}}, "bad member of group skin"),
        ({"ids": ["background", "arm"], "groups": {"skin": ["arm"], "hair": ["arm"]}}, "each in one group"),
        ({"ids": ["background", "arm"], "groups": {"legs": ["arm"]}}, "bad groups"),
        ({"ids": "no-such-set"}, "unknown label set"),
        ({"colors": []}, "unknown key .*got colors"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "hats.json"
    path.write_text(json.dumps({**OWN, **change}))
    with pytest.raises(QanetError, match=message):
        read_label_set(path)


def test_a_file_with_the_name_of_a_built_in_set_must_be_that_set(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(CCP13.to_document()))
    assert read_label_set(path) == CCP13
    path.write_text(json.dumps({**OWN, "name": "ccp13"}))
    with pytest.raises(QanetError, match="name of a built-in label set"):
        read_label_set(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"name": 1}', "\x00"])
def test_a_file_that_is_no_label_set_is_one_line(tmp_path, text):
    path = tmp_path / "hats.json"
    path.write_text(text)
    with pytest.raises(QanetError, match="hats.json"):
        read_label_set(path)
