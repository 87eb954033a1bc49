"""The part colours as people see them: CIEDE2000 between any two, for normal sight and three dichromacies."""

import numpy as np
import pytest

from qanet.labels import LABEL_SETS, SAFE_COLOURS

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
