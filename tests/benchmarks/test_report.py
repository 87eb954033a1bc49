"""The document and the page: round trip, escapes, what is missing, and how a browser takes it."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qanet.benchmarks import document as documents
from qanet.benchmarks import harness, machine, output
from qanet.benchmarks.report.charts import Point, scatter, ticks
from qanet.benchmarks.report.markup import Safe, tag
from qanet.benchmarks.report.page import render, write_report
from qanet.benchmarks.report.pictures import Pictures, jpeg
from qanet.benchmarks.report.values import milliseconds
from qanet.benchmarks.variants import list_variants
from qanet.errors import QanetError

HOSTILE = "<script>alert('x')</script>\"&"


def measurement(name, kind, precision, batch, samples_ms, error=None):
    runtime = "openvino" if precision else ""
    target = harness.Target(name, lambda number: None, kind, precision, runtime, batch, variant=precision)
    return harness.Measurement(target, samples_ms, warmup_calls=8, warmup_stable=True, error=error)


@pytest.fixture
def document(fake_bundle):
    """Two precisions timed, one refused, one target broken; accuracy for FP32 only; one engine with a census."""
    fake_bundle.add_engine(
        "engines/e.blob", b"x" * 2**20,
        {
            "runtime": "openvino", "version": "2026.4", "precision": "fp16", "targets": ["cpu-x"], "seconds": 1.5,
            "census": {
                "layers": {"fp32": 1, "fp16": 3}, "reformats": 2, "requantizations": 0, "note": "a note",
                "layer_shares": {"fp16": 0.75, "fp32": 0.25}, "multiply_add_shares": {"fp16": 1.0, "fp32": 0.0},
                "compute": [{"name": "conv1"}],
            },
        },
    )  # fmt: skip
    session = harness.Session(
        [
            measurement("null", "null", "", 1, [0.001] * 4),
            measurement("fp32 engine", "engine", "fp32", 1, [20.0, 20.0, 20.0, 40.0]),
            measurement("fp16 engine", "engine", "fp16", 1, [10.0] * 4),
            measurement("fp16 engine, batch 2", "engine", "fp16", 2, [17.0] * 4),
            measurement("fp16 parser", "parser", "fp16", 2, [30.0] * 2, error="RuntimeError: broke"),
        ],
        rounds=4, seconds=1.0,
    )  # fmt: skip
    summary = {"n": 4, "p50": 1.0, "p90": 2.0, "p99": 3.0}
    source = {
        "name": "clip.mp4", "kind": "video", "detector": "fake", "frames": 4, "frames_with_people": 3, "people": 6,
        "people_per_frame": 2.0, "image_sizes_hw": [[40, 60]], "decode_ms": summary, "detect_ms": summary,
    }  # fmt: skip
    agreement = {"against": "fp32 on openvino", "crops": 6, "pixels": 0.995, "foreground": 0.97, "miou": 0.91}
    agreement |= {f"{name}_score_difference": {"mean": 0.001, "max": 0.004} for name in ("quality", "iou", "pixel")}
    passed = {"passed": True, "against": "x", "crops": 6, "label_agreement": 1.0, "floor": 0.9, "reason": None}
    parts = {
        "bundle": documents.describe_bundle(fake_bundle), "input": source, "machine": machine.describe(),
        "checks": {"fp32": passed, "fp16": passed, "int8": {**passed, "passed": False, "reason": "not finite"}},
        "agreement": {"fp16": agreement},
        "executions": {"fp32": {"runtime": "openvino", "floating_point": "f32", "multiply_add_shares": None}},
        "open_ms": {"fp32": 812.5},
    }  # fmt: skip
    variants = list_variants([fake_bundle], None, ["kernel"], ["cpu"])
    return documents.build(
        parts, variants, session, {"fp32": {"crop": [1.0, 2.0], "engine": [20.0, 21.0]}}, ["a warning"]
    )


def text_of(page):
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def row_of(page, section, first_cell):
    """The cells of a table's row."""
    part = page[page.index(f'id="{section}"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", part[: part.index("</section>")], flags=re.S)
    cells = [
        [html.unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", r)] for r in rows
    ]
    return next(row for row in cells if row[0] == first_cell)


def test_results_json_round_trip(document, tmp_path):
    output.write_results(tmp_path, document)
    again = documents.read_document(tmp_path / "results.json")
    assert again == json.loads(json.dumps(document)) and again["schema_version"] == 2
    assert again["targets"][1]["samples_ms"] == [20.0, 20.0, 20.0, 40.0]
    assert "compute" not in again["bundle"]["engines"][0]["census"]


def test_results_csv_has_a_row_a_target(document):
    rows = list(csv.DictReader(io.StringIO(output.csv_text(document))))
    assert [row["name"] for row in rows] == [t["name"] for t in document["targets"]]
    assert (rows[1]["p50_ms"], rows[1]["n"], rows[1]["max_ms"]) == ("20.0", "4", "40.0")
    assert rows[-1]["status"] == "refused" and rows[-1]["p50_ms"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "newer"),
        ({"kind": "else"}, "no benchmark result"),
        ({"schema_version": "1"}, "no benc"),
    ],
)
def test_a_foreign_document_is_refused(document, tmp_path, change, message):
    (tmp_path / "r.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(QanetError, match=message):
        documents.read_document(tmp_path / "r.json")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(QanetError):
        documents.read_document(tmp_path / "r.json")


def test_comparison_puts_speed_beside_accuracy(document):
    fp32, fp16, int8 = document["comparison"]
    assert fp16["engine_speed_up"] == 2.0 and fp16["engine_ms"]["p50"] == 10.0  # batch 1, not batch 2
    assert fp32["accuracy"]["miou"] == 0.51234 and fp32["accuracy_note"] == "ccp val, 100 images"
    assert fp16["accuracy"]["miou"] is None and int8["engine_ms"] is None and int8["status"] == "refused"


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


def test_markup_escapes_unless_safe():
    assert tag("p", "<b>", Safe("<i>"), None, class_='"') == '<p class="&quot;">&lt;b&gt;<i></p>'
    assert tag("img", alt="a", width=None) == '<img alt="a">'


def test_parse_summary_becomes_a_section(document):
    assert 'id="pipeline"' not in render(document, Pictures())
    stages = {"decode": {"p50": 1.5, "p90": 2.0, "p99": 3.0, "n": 12}}
    document["parse"] = {"frames": 12, "people": 24, "frames_per_second": 7.5, "precision": "int8", "stages_ms": stages}
    page = render(document, Pictures())
    assert "12 frames, 2.00 people a frame, 7.5 frames/s end to end" in text_of(page)
    assert row_of(page, "pipeline", "decode") == ["decode", "int8", "1.50", "2.00", "3.00", "12"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "not measured"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0345, "0.0345"), (3e-5, "<0.0001")],
)
def test_milliseconds(value, words):
    assert milliseconds(value) == words


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


def test_the_page_asks_the_network_for_nothing(document):
    document["parse"] = {"stages_ms": {}, "model": "https://example.org/model"}
    page = render(document, Pictures([jpeg(np.zeros((4, 4, 3), np.uint8), "a")]))
    loads = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import""", page)
    assert loads and all(source.startswith("data:image/") for source, _ in loads)
    assert "<link" not in page and "<script" not in page and "default-src 'none'" in html.unescape(page)


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_without_complaint_or_overflow(document, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium to render the report in")
    document["bundle"]["name"] = "a-rather-long-bundle-name-" * 3
    document["parse"] = {"frames": 2, "people": 2, "stages_ms": {"decode": {"p50": 1, "p90": 2, "p99": 3, "n": 2}}}
    frame = jpeg(np.full((300, 900, 3), 128, np.uint8), "a frame")
    write_report(tmp_path / "report.html", document, Pictures([frame] * 4, [], [frame] * 6, "note", [("a", (1, 2, 3))]))
    done = _measure(browser, tmp_path, width)
    measured = re.search(r"page (\d+) of (\d+), pictures (\d+), small (\d+)", done.stdout)
    assert measured is not None, done.stderr[-2000:]
    scroll_width, client_width, pictures, small = map(int, measured.groups())
    assert client_width == width and scroll_width <= width
    assert pictures == 10 and small == 0  # every picture was decoded, and no text is below 10 px on the screen
    assert "CONSOLE" not in done.stderr


def _measure(browser: str, folder: Path, width: int) -> subprocess.CompletedProcess:
    """Show the page in a frame of a width (windows have a least one) and print what its layout came to."""
    page = html.escape((folder / "report.html").read_text(), quote=True)
    script = """
    addEventListener('load', () => {
      const inner = document.querySelector('iframe').contentDocument, root = inner.documentElement;
      const decoded = [...inner.images].filter(image => image.naturalWidth > 0).length;
      const small = [...inner.querySelectorAll('p, td, th, li, dd, svg.chart text')].filter(element => {
        const chart = element.closest('svg');
        const scale = chart ? chart.getBoundingClientRect().width / chart.viewBox.baseVal.width : 1;
        return parseFloat(inner.defaultView.getComputedStyle(element).fontSize) * scale < 10;
      }).length;
      document.title = `page ${root.scrollWidth} of ${root.clientWidth}, pictures ${decoded}, small ${small}`;
    });"""
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>'
    (folder / "frame.html").write_text(f"<!doctype html><title></title>{frame}<script>{script}</script>")
    options = [
        "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=4000", "--window-size=1400,1000", "--dump-dom",
    ]  # fmt: skip
    return subprocess.run(
        [browser, *options, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )


VARIANTS = ("fp32 (kernel tail)", "fp32 (graph tail)", "int8 (kernel tail)", "int8 (graph tail)")


@pytest.fixture
def full_document(document):
    """Everything that can be measured beside the rounds, for variants with long names."""
    rng = np.random.default_rng(0)
    figures = {"n": 4, "p50": 1.0, "p90": 2.0, "p99": 3.0}
    first = document["comparison"][0]
    document["comparison"] = [
        {
            **first, "label": label, "precision": label[:4], "parser_ms": {"p50": 10.0 + 7 * i, "p90": 60.0, "n": 4},
            "accuracy": {"miou": 0.5 + 0.003 * i, "pixel_accuracy": 0.9}, "pareto": i != 1,
            "over_baseline": {"value": 12.5, "low": 11.0, "high": 13.0},
            "measured_accuracy": {"values": {"miou": {"value": 0.5, "low": 0.45, "high": 0.55}}},
        }
        for i, label in enumerate(VARIANTS)
    ]  # fmt: skip
    target = document["targets"][1]
    document["targets"] += [
        {**target, "name": f"{label} {kind}", "kind": kind, "variant": label, "precision": label[:4],
         "samples_ms": rng.lognormal(3, 0.1, 200).tolist(), "peak_extra_mib": 12.5}
        for kind in ("engine", "parser") for label in VARIANTS
    ]  # fmt: skip
    interval = {"value": 0.5, "low": 0.45, "high": 0.55}
    keys = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality", "ece_quality")
    document["accuracy"] = {
        label: {"images": 100, "note": "ccp val, 100 images", "values": dict.fromkeys(keys, interval)}
        for label in VARIANTS
    }  # fmt: skip
    document["sweeps"] = {
        sweep: {label: [{"x": x, "latency_ms": {"p50": 9.0 * x, "n": 4}} for x in xs] for label in VARIANTS}
        for sweep, xs in (("persons", (1, 2, 4, 8, 16)), ("area", (0.4393, 1.7574, 7.0296)))
    }
    document["pipeline"] = {
        label: {"frames": 8, "people": 8, "ms_per_frame": figures,
                "stages_ms": dict.fromkeys(("decode", "detect", "engine", "paint", "encode"), figures)}
        for label in VARIANTS
    }  # fmt: skip
    document["open_ms"] = dict.fromkeys(VARIANTS, 512.0)
    document["cold_start"] = {VARIANTS[0]: {"error": None, "total_ms": figures}, VARIANTS[1]: {"error": "no bundle"}}
    document["memory"] = {"process_peak_mib": 826.4, "extra_mib": {}}
    document["energy"] = {
        "status": "measured", "reason": None, "source": "RAPL package-0", "idle_w": 11.5,
        "by_variant": {
            VARIANTS[0]: {"status": "measured", "reason": None, "mj_per_frame": 812.3, "mj_per_person": 406.2},
            VARIANTS[1]: {"status": "unavailable", "reason": "RuntimeError: broke"},
        },
    }  # fmt: skip
    document["micro"] = {
        "copy_bytes_per_second": 7_703_116_785, "multiply_adds_per_second": {"fp32": 36_979_764_901},
        "rows": [{"target": "crop", "note": "read once", "latency_ms": figures, "floor_ms": 0.5, "floor_by": "bytes",
                  "times_floor": 2.0, "error": None}],
    }  # fmt: skip
    block = {"block": "neck.levels.3", "ms": 7.1, "share": 0.12, "layers": 3, "ms_by_precision": {"int8": 7.1}}
    document["profile"] = {
        VARIANTS[0]: {"source": "OpenVINO counters, batch 1", "total_ms": 59.5, "blocks": [block] * 14},
        VARIANTS[1]: {"source": None, "reason": "onnxruntime has no profiler here"},
    }  # fmt: skip
    document["trace"] = {"file": "trace.json", "variant": VARIANTS[0], "events": 160}
    document["mlperf"] = {VARIANTS[0]: {"scenario": "SingleStream", "valid": True, "p90_ms": 62.7, "samples": 100}}
    return document


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


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_full_page_without_complaint_or_overflow(full_document, tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium to render the report in")
    write_report(tmp_path / "report.html", full_document)
    done = _measure(browser, tmp_path, width)
    measured = re.search(r"page (\d+) of (\d+), pictures (\d+), small (\d+)", done.stdout)
    assert measured is not None, done.stderr[-2000:]
    scroll_width, client_width, _, small = map(int, measured.groups())
    assert client_width == width and scroll_width <= width and small == 0
    assert "CONSOLE" not in done.stderr


def test_numbers_of_a_crowded_scatter_do_not_overlap():
    points = [Point("int8", 40 + i, 0.6 + 0.002 * i, f"int8 ({i})") for i in range(4)]
    svg = scatter("t", points, "x", "y")
    labels = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)"[^>]*font-weight="600"[^>]*>([^<]*)', svg)
    assert [words for _, _, words in labels] == ["1", "2", "3", "4"] and "4  int8 (3) 43.0 ms, 60.6%" in svg
    boxes = [(float(x), float(y) - 13, float(x) + 8.1, float(y) + 4) for x, y, _ in labels]
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])
