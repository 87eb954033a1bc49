"""What is hidden: the face of every label set, with its holes and no ring, heads without a face, people just lost."""

from dataclasses import replace

import numpy as np
import pytest

from qanet.labels import LABEL_SETS, label_set
from qanet.results import People, Person
from qanet.runtime.video.privacy import HOLD_FRAMES, Privacy

HEIGHT, WIDTH = 240, 200
BOX = (60, 30, 130, 230)  # of an upright person
FACE = (slice(45, 61), slice(88, 102))  # rows, columns: a face of 16 x 14 in it
HAIR = (slice(34, 45), slice(86, 104))
NAMES = {  # what the face and the hair are in each set
    "ccp13": ("skin", "hair"),
    "ccp59": ("skin", "hair"),
    "cihp20": ("face", "hair"),
    "lip20": ("face", "hair"),
    "atr18": ("face", "hair"),
    "mhp59": ("face", "hair"),
    "ppp7": ("head", "head"),
    "ppp7-arms-first": ("head", "head"),
    "celebamask19": ("skin", "hair"),
}


@pytest.fixture
def noise():
    """A picture that no two pixels of are alike: what is unchanged in it is not hidden."""
    return np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def person(labels, box=BOX, track_id=None, **fields):
    """A person whose region is the whole picture."""
    scores = np.full(58, 0.5, np.float32)
    values = {"box": np.array(box, np.float32), "box_score": 0.9, "iou_score": 0.8, "pixel_score": 0.7, "quality": 0.8}
    return Person(
        **values
        | {
            "part_scores": scores,
            "part_quality": scores,
            "labels": labels,
            "roi": (0, 0, WIDTH, HEIGHT),
            "track_id": track_id,
        }
        | fields
    )


def upright(name, face=True, hair=True):
    """(H, W) labels of somebody upright: clothes, hair, a face with an unlabelled hole for an eye."""
    labels, classes = np.zeros((HEIGHT, WIDTH), np.uint8), label_set(name).classes
    for cloth in ("upper-clothes", "sweater", "jacket", "torso", "cloth"):
        if cloth in classes:
            labels[66:220, 68:122] = classes.index(cloth)
            break
    if hair:
        labels[HAIR] = classes.index(NAMES[name][1])
    if face:
        labels[FACE] = classes.index(NAMES[name][0])
        labels[50:53, 91:94] = 0
    return labels


def hidden(before, after):
    """(H, W) where the picture was changed."""
    return (before.image != after.image).any(2)


def result_of(name, image, *people):
    return People(image, label_set(name), list(people))


def test_every_set_of_parts_is_tested():
    assert NAMES.keys() == {name for name, labels in LABEL_SETS.items() if labels.num_classes > 2}


@pytest.mark.parametrize("name", NAMES)
def test_a_face_is_hidden_with_its_holes_and_a_margin_and_little_else(noise, name):
    before = result_of(name, noise, person(upright(name)))
    copy = noise.copy()
    after = Privacy("face")(before)
    changed = hidden(before, after)
    margin = (slice(FACE[0].start - 4, FACE[0].stop + 4), slice(FACE[1].start - 4, FACE[1].stop + 4))
    assert changed[margin].mean() > 0.99  # by chance a pixel may keep its colour
    assert not changed[90:].any() and not changed[:, :60].any() and not changed[:, 130:].any()
    assert np.array_equal(before.image, copy)  # the caller's picture
    assert after.to_json() == before.to_json() and after.labels is not None


def test_no_ring_between_the_face_and_its_surroundings_is_left(noise):
    before = result_of("cihp20", noise, person(upright("cihp20")))
    rows, columns = np.nonzero(hidden(before, Privacy("face")(before)))
    inside = hidden(before, Privacy("face")(before))[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert inside.mean() > 0.99  # one piece without gaps


@pytest.mark.parametrize("size", [12, 40, 120])
def test_few_colours_of_a_face_are_left_whatever_its_size(size):
    """Two faces that differ in all but the means of a few cells look the same afterwards."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[40 : 40 + size, 40 : 40 + size] = label_set("cihp20").classes.index("face")
    box = (30, 30, 50 + size, min(HEIGHT, 45 + 2 * size))
    checks = (np.indices((HEIGHT, WIDTH)).sum(0) % 2 * 255).astype(np.uint8)
    one, other = (np.repeat(image[..., None], 3, 2) for image in (checks, 255 - checks))
    pictures = [Privacy("face")(result_of("cihp20", image, person(labels, box))).image for image in (one, other)]
    face = (slice(40, 40 + size), slice(40, 40 + size))
    difference = np.abs(pictures[0][face].astype(int) - pictures[1][face])
    assert difference.max() <= 32 and pictures[0][face].std() < 20  # it was 255 at every pixel


@pytest.mark.parametrize(
    ("name", "hair"), [("ccp13", True), ("ccp13", False), ("cihp20", True), ("cihp20", False), ("ppp7", False)]
)
def test_where_no_face_is_seen_the_place_of_the_head_is_hidden(noise, name, hair):
    before = result_of(name, noise, person(upright(name, face=False, hair=hair)))
    changed = hidden(before, Privacy("face")(before))
    assert changed[FACE].mean() > 0.99 and changed[HAIR].mean() > 0.99 and not changed[130:].any()


@pytest.mark.parametrize("name", ["ccp13", "cihp20", "mhp59"])
def test_of_somebody_turned_away_the_head_is_hidden_and_not_all_around_it(noise, name):
    before = result_of(name, noise, person(upright(name, face=False)))
    changed = hidden(before, Privacy("face")(before))
    assert changed[HAIR].mean() > 0.99 and not changed[:, :70].any() and not changed[:, 120:].any()


def test_a_speck_that_is_called_a_face_does_not_stand_for_one(noise):
    labels = upright("cihp20", face=False, hair=False)
    labels[150:154, 66:70] = label_set("cihp20").classes.index("face")  # on a hand
    before = result_of("cihp20", noise, person(labels))
    assert hidden(before, Privacy("face")(before))[FACE].mean() > 0.99


def test_sunglasses_alone_are_no_face(noise):
    labels = upright("cihp20", face=False)
    labels[48:52, 88:102] = label_set("cihp20").classes.index("sunglasses")
    before = result_of("cihp20", noise, person(labels))
    assert hidden(before, Privacy("face")(before))[FACE].mean() > 0.99


def test_of_somebody_who_lies_all_of_the_box_is_hidden_where_no_face_is_seen(noise):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[120:150, 20:180] = label_set("cihp20").classes.index("pants")
    before = result_of("cihp20", noise, person(labels, (10, 110, 190, 160)))
    assert hidden(before, Privacy("face")(before))[110:160, 10:190].mean() > 0.99


def test_a_small_face_before_a_large_one_does_not_uncover_it(noise):
    far = upright("cihp20")[::4, ::4]  # a quarter as large, in the middle of the large one's face
    small = np.zeros((HEIGHT, WIDTH), np.uint8)
    small[40 : 40 + far.shape[0], 70 : 70 + far.shape[1]] = far
    near = np.zeros((HEIGHT, WIDTH), np.uint8)
    near[20:180, 20:180] = label_set("cihp20").classes.index("face")
    large = person(near, (0, 0, 200, 240))
    alone = Privacy("face")(result_of("cihp20", noise, large)).image
    for people in ([large, person(small, (85, 48, 103, 98))], [person(small, (85, 48, 103, 98)), large]):
        both = Privacy("face")(result_of("cihp20", noise, *people)).image
        assert np.array_equal(both[25:175, 25:175], alone[25:175, 25:175])


def test_of_a_person_all_pixels_are_hidden_with_a_margin(noise):
    labels = upright("cihp20")
    labels[120:130, 90:100] = 0  # a hole
    before = result_of("cihp20", noise, person(labels, (40, 30, 150, 230)))
    changed = hidden(before, Privacy("person")(before))
    assert changed[labels > 0].mean() > 0.99 and changed[120:130, 90:100].mean() > 0.99
    assert changed[66:220, 64:126].mean() > 0.99 and changed[FACE].mean() > 0.99
    assert not changed[:, :56].any() and not changed[:, 134:].any() and not changed[:10].any()  # nor all of the box


def test_of_a_person_without_a_pixel_all_of_the_box_is_hidden(noise):
    before = result_of("cihp20", noise, person(np.zeros((HEIGHT, WIDTH), np.uint8)))
    changed = hidden(before, Privacy("person")(before))
    assert changed[BOX[1] : BOX[3], BOX[0] : BOX[2]].mean() > 0.99


@pytest.mark.parametrize("blur", ["face", "person"])
@pytest.mark.parametrize("box", [(-50, -40, 20, 60), (150, 200, 500, 900), (0, 0, 1, 1), (-9, -9, -5, -5)])
def test_people_at_the_border_and_beyond_it(noise, blur, box):
    empty = person(np.zeros((0, 0), np.uint8), box, roi=(0, 0, 0, 0))
    assert Privacy(blur)(result_of("ccp13", noise, empty)).image.shape == noise.shape
    some = np.zeros((HEIGHT, WIDTH), np.uint8)
    some[:20, :20] = 10
    assert Privacy(blur)(result_of("ccp13", noise, person(some, box))).image.shape == noise.shape


def test_nobody_leaves_the_picture_as_it_is(noise):
    assert np.array_equal(Privacy("face")(result_of("ccp13", noise)).image, noise)


@pytest.mark.parametrize("track_id", [None, 7])
def test_who_is_lost_stays_hidden_for_a_moment_and_no_longer(noise, track_id):
    privacy = Privacy("face", moving=True)
    seen = result_of("cihp20", noise, person(upright("cihp20"), track_id=track_id))
    nobody = result_of("cihp20", noise)
    privacy(seen)
    for _ in range(HOLD_FRAMES):
        changed = hidden(nobody, privacy(nobody))
        assert changed[FACE].mean() > 0.99
    assert changed.sum() < 4 * hidden(seen, Privacy("face")(seen)).sum()  # it does not grow from frame to frame
    assert not hidden(nobody, privacy(nobody)).any()


def test_who_is_seen_again_elsewhere_is_hidden_there_alone(noise):
    privacy = Privacy("face", moving=True)
    first = result_of("cihp20", noise, person(upright("cihp20"), track_id=1))
    moved = person(np.roll(upright("cihp20"), 60, 1), (120, 30, 190, 230), track_id=1)
    privacy(first)
    changed = hidden(first, privacy(replace(first, people=[moved])))
    assert changed[FACE[0], FACE[1].start + 60 : FACE[1].stop + 60].mean() > 0.99 and not changed[:, 80:105].any()


def test_still_images_remember_nobody(noise):
    privacy = Privacy("face", moving=False)
    privacy(result_of("cihp20", noise, person(upright("cihp20"))))
    assert not hidden(result_of("cihp20", noise), privacy(result_of("cihp20", noise))).any()
