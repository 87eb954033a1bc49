"""Documents of a benchmark that never ran, small and with everything in it, and how to read the page of one."""

import html
import re

import numpy as np

from qanet.benchmarks import document as documents
from qanet.benchmarks import harness, machine
from qanet.benchmarks.results import Results
from qanet.benchmarks.variants import list_variants

VARIANTS = ("fp32 (kernel tail)", "fp32 (graph tail)", "int8 (kernel tail)", "int8 (graph tail)")


def measurement(name, kind, precision, batch, samples_ms, error=None):
    runtime = "openvino" if precision else ""
    target = harness.Target(name, lambda number: None, kind, precision, runtime, batch, variant=precision)
    return harness.Measurement(target, samples_ms, warmup_calls=8, warmup_stable=True, error=error)


def small_document(bundle):
    """Two precisions timed, one refused, one target broken; accuracy for FP32 only; one engine with a census."""
    bundle.add_engine(
        "engines/e.blob",
        b"x" * 2**20,
        {
            "runtime": "openvino",
            "version": "2026.4",
            "precision": "fp16",
            "targets": ["cpu-x"],
            "seconds": 1.5,
            "census": {
                "layers": {"fp32": 1, "fp16": 3},
                "reformats": 2,
                "requantizations": 0,
                "note": "a note",
                "layer_shares": {"fp16": 0.75, "fp32": 0.25},
                "multiply_add_shares": {"fp16": 1.0, "fp32": 0.0},
                "compute": [{"name": "conv1"}],
            },
        },
    )
    session = harness.Session(
        [
            measurement("null", "null", "", 1, [0.001] * 4),
            measurement("fp32 engine", "engine", "fp32", 1, [20.0, 20.0, 20.0, 40.0]),
            measurement("fp16 engine", "engine", "fp16", 1, [10.0] * 4),
            measurement("fp16 engine, batch 2", "engine", "fp16", 2, [17.0] * 4),
            measurement("fp16 parser", "parser", "fp16", 2, [30.0] * 2, error="RuntimeError: broke"),
        ],
        rounds=4,
        seconds=1.0,
    )
    summary = {"n": 4, "p50": 1.0, "p90": 2.0, "p99": 3.0}
    source = {
        "name": "clip.mp4",
        "kind": "video",
        "detector": "fake",
        "frames": 4,
        "frames_with_people": 3,
        "people": 6,
        "people_per_frame": 2.0,
        "image_sizes_hw": [[40, 60]],
        "decode_ms": summary,
        "detect_ms": summary,
    }
    agreement = {"against": "fp32 on openvino", "crops": 6, "pixels": 0.995, "foreground": 0.97, "miou": 0.91}
    agreement |= {f"{name}_score_difference": {"mean": 0.001, "max": 0.004} for name in ("quality", "iou", "pixel")}
    passed = {"passed": True, "against": "x", "crops": 6, "label_agreement": 1.0, "floor": 0.9, "reason": None}
    results = Results.from_json(
        {
            "bundle": documents.describe_bundle(bundle),
            "input": source,
            "machine": machine.describe(),
            "checks": {"fp32": passed, "fp16": passed, "int8": {**passed, "passed": False, "reason": "not finite"}},
            "agreement": {"fp16": agreement},
            "executions": {"fp32": {"runtime": "openvino", "floating_point": "f32", "multiply_add_shares": None}},
            "open_ms": {"fp32": 812.5},
        }
    )
    variants = list_variants([bundle], None, ["kernel"], ["cpu"])
    stages_ms = {"fp32": {"crop": [1.0, 2.0], "engine": [20.0, 21.0]}}
    return documents.complete(results, variants, session, stages_ms, ["a warning"]).to_json()


def with_everything(document):
    """The document with everything that can be measured beside the rounds, for variants with long names."""
    rng = np.random.default_rng(0)
    figures = {"n": 4, "p50": 1.0, "p90": 2.0, "p99": 3.0}
    first = document["comparison"][0]
    document["comparison"] = [
        {
            **first,
            "label": label,
            "precision": label[:4],
            "parser_ms": {"p50": 10.0 + 7 * i, "p90": 60.0, "n": 4},
            "accuracy": {"miou": 0.5 + 0.003 * i, "pixel_accuracy": 0.9},
            "pareto": i != 1,
            "over_baseline": {"value": 12.5, "low": 11.0, "high": 13.0},
            "measured_accuracy": {"values": {"miou": {"value": 0.5, "low": 0.45, "high": 0.55}}},
        }
        for i, label in enumerate(VARIANTS)
    ]
    target = document["targets"][1]
    document["targets"] += [
        {
            **target,
            "name": f"{label} {kind}",
            "kind": kind,
            "variant": label,
            "precision": label[:4],
            "samples_ms": rng.lognormal(3, 0.1, 200).tolist(),
            "peak_extra_mib": 12.5,
        }
        for kind in ("engine", "parser")
        for label in VARIANTS
    ]
    interval = {"value": 0.5, "low": 0.45, "high": 0.55}
    keys = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality", "ece_quality")
    document["accuracy"] = {
        label: {"images": 100, "note": "ccp val, 100 images", "values": dict.fromkeys(keys, interval)}
        for label in VARIANTS
    }
    document["sweeps"] = {
        sweep: {label: [{"x": x, "latency_ms": {"p50": 9.0 * x, "n": 4}} for x in xs] for label in VARIANTS}
        for sweep, xs in (("persons", (1, 2, 4, 8, 16)), ("area", (0.4393, 1.7574, 7.0296)))
    }
    document["pipeline"] = {
        label: {
            "frames": 8,
            "people": 8,
            "ms_per_frame": figures,
            "stages_ms": dict.fromkeys(("decode", "detect", "engine", "paint", "encode"), figures),
        }
        for label in VARIANTS
    }
    document["open_ms"] = dict.fromkeys(VARIANTS, 512.0)
    document["cold_start"] = {VARIANTS[0]: {"error": None, "total_ms": figures}, VARIANTS[1]: {"error": "no bundle"}}
    document["memory"] = {"process_peak_mib": 826.4, "extra_mib": {}}
    document["energy"] = {
        "status": "measured",
        "reason": None,
        "source": "RAPL package-0",
        "idle_w": 11.5,
        "by_variant": {
            VARIANTS[0]: {"status": "measured", "reason": None, "mj_per_frame": 812.3, "mj_per_person": 406.2},
            VARIANTS[1]: {"status": "unavailable", "reason": "RuntimeError: broke"},
        },
    }
    document["micro"] = {
        "copy_bytes_per_second": 7_703_116_785,
        "multiply_adds_per_second": {"fp32": 36_979_764_901},
        "rows": [
            {
                "target": "crop",
                "note": "read once",
                "latency_ms": figures,
                "floor_ms": 0.5,
                "floor_by": "bytes",
                "times_floor": 2.0,
                "error": None,
            }
        ],
    }
    block = {"block": "neck.levels.3", "ms": 7.1, "share": 0.12, "layers": 3, "ms_by_precision": {"int8": 7.1}}
    document["profile"] = {
        VARIANTS[0]: {"source": "OpenVINO counters, batch 1", "total_ms": 59.5, "blocks": [block] * 14},
        VARIANTS[1]: {"source": None, "reason": "onnxruntime has no profiler here"},
    }
    document["trace"] = {"file": "trace.json", "variant": VARIANTS[0], "events": 160}
    document["mlperf"] = {VARIANTS[0]: {"scenario": "SingleStream", "valid": True, "p90_ms": 62.7, "samples": 100}}
    return document


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
