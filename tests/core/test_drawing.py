"""The overlay can be read: scores apart, a legend that fits, numbers where colours do not suffice, distinct colours."""

from dataclasses import replace

import numpy as np
import pytest

from qanet.drawing import draw_people
from qanet.labels import CCP13, LABEL_SETS, MHP59, SAFE_COLOURS
from qanet.results import People, Person

PAPER = 250


def person(box, quality=0.8, class_id=4, track_id=None):
    x0, y0, x1, y1 = (int(v) for v in box)
    labels = np.full((y1 - y0, x1 - x0), class_id, np.uint8)
    scores = np.full(58, 0.5, np.float32)
    return Person(np.array(box, np.float32), 0.9, 0.8, 0.7, quality, scores, scores, labels, (x0, y0, x1, y1), track_id)


def plates(before, after):
    """How many pixels became paper."""
    return int(((after == PAPER).all(2) & ~(before == PAPER).all(2)).sum())


def draw(image, people, label_set=CCP13, **options):
    result = People(image, label_set, people)
    given = {"alpha": 0.5, "boxes": True, "legend": True} | options
    return draw_people(image, result.labels, label_set, result.people, **given)


@pytest.mark.parametrize("hw", [(240, 320), (720, 1280), (1080, 1920)])
def test_scores_of_neighbours_do_not_cover_each_other(hw):
    image = np.full((*hw, 3), 90, np.uint8)
    height, width = hw
    side = width // 30
    left = [width // 2 + i * (side + 2) for i in range(3)]
    boxes = [(x, height // 2, x + side, height // 2 + 3 * side) for x in left]
    alone = [plates(image, draw(image, [person(box)], alpha=0.0, legend=False)) for box in boxes]
    together = plates(image, draw(image, [person(box) for box in boxes], alpha=0.0, legend=False))
    assert together > 0.9 * sum(alone)  # the boxes touch the plates at their edges only


def test_the_best_person_has_the_first_choice_of_a_place():
    image = np.full((400, 600, 3), 90, np.uint8)
    near = (305, 200, 335, 300)
    best_alone = draw(image, [person((300, 200, 330, 300), 0.9)], alpha=0.0, legend=False)
    both = draw(image, [person(near, 0.4), person((300, 200, 330, 300), 0.9)], alpha=0.0, legend=False)
    above = (slice(178, 196), slice(302, 360))
    assert np.array_equal(both[above], best_alone[above])


@pytest.mark.parametrize("box", [(0, 0, 600, 400), (0, 0, 30, 30), (560, 370, 600, 400), (-300, -200, 900, 800)])
def test_scores_are_inside_the_picture(box):
    image = np.full((400, 600, 3), 90, np.uint8)
    one = replace(person((0, 0, 2, 2)), box=np.array(box, np.float32))
    bare = draw(image, [replace(one, quality=0.0)], alpha=0.0, legend=False)
    middle = draw(image, [person((300, 200, 330, 300))], alpha=0.0, legend=False)
    assert plates(image, bare) > 0.5 * plates(image, middle)


def test_scores_keep_clear_of_the_legend():
    image = np.full((400, 600, 3), 90, np.uint8)
    people = [person((5, 40, 45, 140), 0.8)]
    legend_alone = draw(image, people, boxes=False)
    with_scores = draw(image, people)
    legend = (slice(2, 28), slice(2, 120))
    box_edge = np.abs(with_scores[legend].astype(int) - legend_alone[legend]).max(2) > 0
    assert not box_edge[:, 50:].any()


@pytest.mark.parametrize("shape", [(30, 200), (60, 500), (2000, 60), (720, 1280)])
def test_a_legend_of_many_classes_is_whole_or_not_there(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[-1, :58] = np.arange(1, 59)[: shape[1]]
    drawn = draw_people(image, labels, MHP59, [], alpha=0.0, boxes=False, legend=True)
    colours = {tuple(c) for c in drawn.reshape(-1, 3).tolist()}
    shown = [c for c in range(1, 59) if tuple(MHP59.colours_rgb[c, ::-1].tolist()) in colours]
    assert len(shown) in (0, 58)
    assert len(shown) == (58 if shape == (720, 1280) else 0)


def test_parts_of_large_sets_bear_the_numbers_of_the_legend():
    image = np.full((400, 600, 3), 90, np.uint8)
    one = person((300, 100, 400, 300), class_id=40)
    large = draw(image, [one], MHP59, boxes=False, alpha=1.0)
    inside = large[100:300, 300:400]
    colour = MHP59.colours_rgb[40, ::-1]
    rows, columns = np.nonzero((inside != colour).any(2))
    assert len(rows) > 30 and 30 < rows.min() < rows.max() < 170 and abs(columns.mean() - 50) < 6
    assert (draw(image, [one], MHP59, boxes=False, legend=False, alpha=1.0)[100:300, 300:400] == colour).all()
    small = draw(image, [person((300, 100, 400, 300), class_id=4)], boxes=False, alpha=1.0)
    assert (small[100:300, 300:400] == CCP13.colours_rgb[4, ::-1]).all()


def test_a_part_too_narrow_for_its_number_has_none():
    image = np.full((400, 600, 3), 90, np.uint8)
    drawn = draw(image, [person((300, 100, 304, 300), class_id=40)], MHP59, boxes=False, alpha=1.0)
    assert (drawn[100:300, 300:304] == MHP59.colours_rgb[40, ::-1]).all()


# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = [0.95047, 1.0, 1.08883]  # D65


def lab(rgb, sight):
    """(N, 3) 8-bit sRGB -> (N, 3) CIELAB as that sight has it."""
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.transpose(SIGHT[sight]), 0, 1) @ np.transpose(TO_XYZ) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def ciede2000(one, other):
    """(..., 3) CIELAB each -> (...) difference; Sharma, Wu, Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    grey = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(grey / (grey + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    coloured = c1 * c2 > 0
    dh = np.where(coloured, (h2 - h1 + 180) % 360 - 180, 0)
    hue = np.where(coloured, (h1 + dh / 2) % 360, h1 + h2)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2

    def cos(degrees):
        return np.cos(np.radians(degrees))

    t = 1 - 0.17 * cos(hue - 30) + 0.24 * cos(2 * hue) + 0.32 * cos(3 * hue + 6) - 0.2 * cos(4 * hue - 63)
    turn = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    dl = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2)) / (1 + 0.015 * chroma * t)
    return np.sqrt(dl**2 + dc**2 + dh**2 + turn * dc * dh)


def least_difference(colours, sight):
    """Between any two of them."""
    seen = lab(colours, sight)
    differences = ciede2000(seen[:, None], seen[None])
    return differences[np.triu_indices(len(colours), 1)].min()


@pytest.mark.parametrize(
    ("one", "other", "expected"),  # of the test data published with the formula
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
        ((50, 0, 0), (50, -1, 2), 2.3669),
    ],
)
def test_the_measure_is_the_published_one(one, other, expected):
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ccp13", 16),
        ("ppp7", 18),
        ("ppp7-arms-first", 18),
        ("cihp20", 10),
        ("lip20", 10),
        ("atr18", 10),
        ("celebamask19", 10),
    ],
)
def test_everybody_tells_any_two_parts_apart(name, least, sight):
    labels = LABEL_SETS[name]
    assert labels.num_classes <= SAFE_COLOURS
    assert least_difference(labels.colours_rgb, sight) >= least


def test_sets_that_are_too_large_for_it_are_known():
    large = {name for name, labels in LABEL_SETS.items() if labels.num_classes > SAFE_COLOURS}
    assert large == {"ccp59", "mhp59"}
    assert all(least_difference(LABEL_SETS[name].colours_rgb, "deuteranopia") < 10 for name in large)


def test_a_set_has_the_first_colours_of_a_larger_one():
    assert np.array_equal(LABEL_SETS["ppp7"].colours_rgb, LABEL_SETS["cihp20"].colours_rgb[:7])
    assert np.array_equal(LABEL_SETS["mhp59"].colours_rgb[:20], LABEL_SETS["cihp20"].colours_rgb)
