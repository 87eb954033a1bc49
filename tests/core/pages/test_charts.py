"""The charts: round ticks, labels that neither overlap nor leave the chart, escapes."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from markupsafe import Markup

from qanet.pages.charts import Bar, Curve, Opposed, Point, bars, curves, opposed_bars, reliability_diagram, scatter
from qanet.pages.svg import element, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 50, [0, 10, 20, 30, 40, 50]), (0, 0.3, [0, 0.1, 0.2, 0.3]), (0.49, 0.53, [0.49, 0.5, 0.51, 0.52, 0.53])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "points",
    [
        [("fp32", 40, 0.6), ("fp16", 20, 0.6), ("int8", 19, 0.599)],
        [("fp32", 5, 0.5), ("fp16", 5, 0.5), ("int8", 5, 0.5)],
        [("fp32", 0.001, 1.0)],
        [("fp32", 1000, 0.0), ("int8", 1, 1.0)],
    ],
)
def test_scatter_labels_neither_overlap_nor_leave_the_chart(points):
    svg = scatter("t", [Point(*p) for p in points], "x", "y")
    labels = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)"[^>]*font-weight="600"[^>]*>([^<]*)', svg)
    boxes = [(float(x), float(y) - 13, float(x) + 8.1 * len(words), float(y) + 4) for x, y, words in labels]
    assert len(boxes) == len(points)
    assert all(box[0] >= 0 and box[2] <= 400 and box[1] >= 0 for box in boxes)
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


def test_numbers_of_a_crowded_scatter_do_not_overlap():
    points = [Point("int8", 40 + i, 0.6 + 0.002 * i, f"int8 ({i})") for i in range(4)]
    svg = scatter("t", points, "x", "y")
    labels = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)"[^>]*font-weight="600"[^>]*>([^<]*)', svg)
    assert [words for _, _, words in labels] == ["1", "2", "3", "4"] and "4  int8 (3) 43.0 ms, 60.6%" in svg
    boxes = [(float(x), float(y) - 13, float(x) + 8.1, float(y) + 4) for x, y, _ in labels]
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


HOSTILE = "<script>alert('x')</script>\"&"


@pytest.mark.parametrize(
    "svg",
    [
        bars(HOSTILE, [(HOSTILE, [Bar(HOSTILE, HOSTILE, 1, 2, 3)])]),
        scatter(HOSTILE, [Point(HOSTILE, 1, 0.5, HOSTILE)], HOSTILE, HOSTILE),
        curves(HOSTILE, [Curve("#000000", [(0, 1), (1, float("nan"))], HOSTILE)], HOSTILE, HOSTILE),
        opposed_bars(HOSTILE, [Opposed(HOSTILE, "#000000", (1, -1), (HOSTILE, HOSTILE))], (HOSTILE, HOSTILE)),
        reliability_diagram(HOSTILE, [[2, 0.5, 0.6], [0, 0, 0], [1, 2.0, -1.0]], "#000000"),
    ],
)
def test_every_chart_is_whole_xml_that_escapes_its_words(svg):
    tree = ElementTree.fromstring(svg)
    assert tree.tag.endswith("svg") and tree.get("aria-label") == HOSTILE
    assert not [node for node in tree.iter() if node.tag.endswith("script")] and "nan" not in svg


def test_elements_escape_all_but_markup():
    made = element("g", "<b>", Markup("<rect/>"), class_='"', stroke_width=1.004, fill=None)
    assert made == '<g class="&#34;" stroke-width="1">&lt;b&gt;<rect/></g>'


def test_a_bar_without_its_p99_stays_in_the_chart():
    chart = ElementTree.fromstring(bars("t", [("stage", [Bar("fp32", "fp32", 10.0, 60.0, 0.0)])]))
    ends = [float(rect.get("x")) + float(rect.get("width")) for rect in chart.iter() if rect.tag.endswith("rect")]
    assert len(ends) == 2 and max(ends) <= 400 - 62
