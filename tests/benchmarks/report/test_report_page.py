"""The page: what is shown of what was measured, what is missing, escapes; it loads nothing."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_documents import VARIANTS, row_of, text_of

from qanet.benchmarks.report.page import render
from qanet.benchmarks.report.pictures import Pictures, jpeg
from qanet.pages.numbers import milliseconds

HOSTILE = "<script>alert('x')</script>\"&"


def test_what_failed_and_was_refused_is_in_the_table_and_in_the_warnings(document):
    page = render(document, Pictures())
    assert row_of(page, "targets", "fp16 parser")[1] == "failed: RuntimeError: broke"
    assert row_of(page, "targets", "int8, every target")[1] == "refused: not finite"
    assert document["warnings"][0] == "a warning" and any("not finite" in line for line in document["warnings"])


def test_missing_accuracy_says_not_measured(document):
    page = render(document, Pictures())
    fp32, fp16 = (row_of(page, "trade-off", precision) for precision in ("fp32", "fp16"))
    assert fp32[8:] == ["51.23%", "90.00%", "reference"] and fp16[8:] == ["not measured", "not measured", "91.00%"]
    assert fp16[2:5] == ["10.0", "10.0", "2.00\u00d7"]


def test_no_accuracy_at_all_leaves_no_empty_chart(document):
    for entry in document["comparison"]:
        entry["accuracy"] = {}
    page = render(document, Pictures())
    assert "Accuracy of this bundle: not measured" in page and "51.23%" not in page


def test_the_page_of_an_almost_empty_document_says_not_measured():
    words = text_of(render({"bundle": {"name": "empty"}}, Pictures()))
    assert words.count("not measured") > 8 and "None" not in words and "nan" not in words.split()


def test_census_and_files_are_shown(document):
    page = render(document, Pictures())
    engine = row_of(page, "engines", "fp16, openvino 2026.4")
    assert engine[1] == "cpu-x" and engine[-2:] == ["2", "1.0"]
    assert engine[2].endswith("fp16 100%") and engine[3].endswith("fp16 75%, fp32 25%")
    digest = document["bundle"]["files"]["fp32.onnx"]["sha256"]
    assert digest[:16] in page and digest not in page


def test_everything_is_escaped(document):
    document["bundle"] |= {"name": HOSTILE, "made": {HOSTILE: HOSTILE}}
    document["bundle"]["files"][HOSTILE] = {"sha256": HOSTILE, "bytes": 1}
    document["bundle"]["engines"][0] |= {"runtime": HOSTILE, "targets": [HOSTILE]}
    document["bundle"]["engines"][0]["census"]["note"] = HOSTILE
    document["input"] |= {"name": HOSTILE, "detector": HOSTILE}
    document["warnings"].append(HOSTILE)
    document["targets"][1] |= {"name": HOSTILE, "error": HOSTILE}
    document["comparison"][0] |= {"precision": HOSTILE, "label": HOSTILE, "accuracy_note": HOSTILE}
    document["stages"][HOSTILE] = {HOSTILE: {"n": 1, "p50": 1.0, "p90": 1.0, "p99": 1.0}}
    document["machine"]["cpu"]["model"] = HOSTILE
    document["parse"] = {"model": HOSTILE, "stages_ms": {HOSTILE: {"n": 1, "p50": 1.0, "p90": 1.0, "p99": 1.0}}}
    pictures = Pictures([jpeg(np.zeros((4, 4, 3), np.uint8), HOSTILE)], [(HOSTILE, (1, 2, 3))])
    page = render(document, pictures)
    assert "<script" not in page and "x')</script>\"" not in page
    assert text_of(page).count(HOSTILE) >= 15


def test_parse_summary_becomes_a_section(document):
    assert 'id="pipeline"' not in render(document, Pictures())
    stages = {"decode": {"p50": 1.5, "p90": 2.0, "p99": 3.0, "n": 12}}
    document["parse"] = {"frames": 12, "people": 24, "frames_per_second": 7.5, "precision": "int8", "stages_ms": stages}
    page = render(document, Pictures())
    assert "12 frames, 2.00 people per frame, 7.5 frames/s end to end" in text_of(page)
    assert row_of(page, "pipeline", "decode") == ["decode", "int8", "1.50", "2.00", "3.00", "12"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "not measured"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0345, "0.0345"), (3e-5, "<0.0001")],
)
def test_milliseconds(value, words):
    assert milliseconds(value) == words


def test_the_page_asks_the_network_for_nothing(document):
    document["parse"] = {"stages_ms": {}, "model": "https://example.org/model"}
    page = render(document, Pictures([jpeg(np.zeros((4, 4, 3), np.uint8), "a")]))
    loads = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import""", page)
    assert loads and all(source.startswith("data:image/") for source, _ in loads)
    assert "<link" not in page and "<script" not in page and "default-src 'none'" in html.unescape(page)


def test_what_was_measured_beside_the_rounds_is_shown(full_document):
    page = render(full_document, Pictures())
    words = text_of(page)
    assert row_of(page, "accuracy", VARIANTS[0])[2] == "50.00 (45.0 to 55.0)"
    assert row_of(page, "costs", VARIANTS[0])[1:] == ["512", "1.00", "12.5", "812.3", "406.2"]
    assert row_of(page, "costs", VARIANTS[1])[2:] == ["failed: no bundle", "12.5", "unavailable", "unavailable"]
    assert "above 11.5 W idle, which is subtracted" in words and "fp32 (graph tail): RuntimeError: broke." in words
    assert row_of(page, "pieces", "crop")[2:] == ["1.00", "0.500", "bytes", "2.0\u00d7"]
    assert row_of(page, "profiles", "neck.levels.3")[1:] == ["7.10", "12.0%", "3", "int8 7.10"]
    assert "2 smaller blocks" in words and "onnxruntime has no profiler here" in words and "trace.json" in words
    assert row_of(page, "mlperf", VARIANTS[0])[1:] == ["SingleStream", "VALID", "62.7", "not measured", "100"]
    assert row_of(page, "trade-off", VARIANTS[0])[7] == "12.50\u00d7 (11.00 to 13.00)"
    assert "576 ms" not in words and "144 ms at 16" in words and "63.3 ms at 7.03" in words
    assert page.count("Dashed: the Pareto front") == 1  # of whole frames, not of engines


def test_energy_that_cannot_be_read_is_unavailable_never_zero(full_document):
    full_document["energy"] = {"status": "unavailable", "reason": "RAPL: no counter", "source": None, "by_variant": {}}
    page = render(full_document, Pictures())
    assert row_of(page, "costs", VARIANTS[0])[4:] == ["unavailable", "unavailable"]
    assert "Energy is unavailable: RAPL: no counter." in text_of(page)


def test_sections_that_were_not_asked_for_are_left_out(document):
    page = render(document, Pictures())
    assert not [
        name for name in ("accuracy", "sweeps", "pieces", "profiles", "mlperf", "video") if f'id="{name}"' in page
    ]


def test_every_number_of_a_results_json_is_shown_in_its_place():
    """The numbers, and their order, were written down from the page before it had a template."""
    folder = Path(__file__).parent / "data"
    words = text_of(render(json.loads((folder / "results.json").read_text()), Pictures()))
    expected = (folder / "numbers.txt").read_text().split()
    assert len(expected) > 800 and re.findall(r"\d+(?:\.\d+)?", words) == expected
