"""Label sets: the classes of the data sets, their mirrors, and CCP's 59 labels in 13 classes."""

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.labels import CCP13, CCP13_GROUPS, CCP59, IGNORE, LABEL_SETS, label_set


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


def test_every_grouped_name_is_a_label_of_ccp_and_in_one_group_only():
    members = [member for group in CCP13_GROUPS.values() for member in group]
    assert set(members) <= set(CCP59.classes)
    assert len(members) == len(set(members))


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
