"""Profiles: blocks by name, OpenVINO's counters on a real engine, TensorRT's profiler behind a fake, the trace."""

import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from fake_tensorrt import INFORMATION

from qanet.benchmarks.pipeline import Event, TracingTimes, chrome_trace, trace_pipeline, write_trace
from qanet.benchmarks.profile import (
    block_of_layer,
    describe_profile,
    layer_precisions,
    profile_engine,
    profile_openvino,
)
from qanet.benchmarks.schema import Layer, Profile
from qanet.benchmarks.variants import list_variants
from qanet.bundle import open_bundle


@pytest.mark.parametrize(
    ("names", "block"),
    [
        (["backbone.blocks.6.project/WithoutBiases"], "backbone.blocks.6"),
        (["mul_3", "neck.scale1.0.conv"], "neck.scale1.0"),
        (["iou_head.fc2.relu"], "iou_head.fc2"),
        (["backbone.stem/WithoutBiases_bf16_u8_backbone.blocks.0.depthwise"], "backbone.stem"),
        (["transpose", "box_scores"], "graph"),
        ([], "graph"),
    ],
)
def test_a_layer_belongs_to_its_module(names, block):
    assert block_of_layer(names) == block


def test_blocks_add_up_and_come_slowest_first():
    layers = [
        Layer("a", "x", "Conv", "int8", 1.0),
        Layer("b", "y", "Conv", "bf16", 5.0),
        Layer("c", "x", "Add", "", 2.0),
    ]
    found = describe_profile(layers, 7, "fake")
    assert [(b.block, b.ms, b.layers) for b in found.blocks] == [("y", 5.0, 1), ("x", 3.0, 2)]
    assert found.blocks[1].ms_by_precision == {"int8": 1.0, "not told": 2.0}
    assert found.total_ms == 8.0 and [layer.name for layer in found.layers] == ["b", "c", "a"]
    assert sum(b.share for b in found.blocks) == pytest.approx(1)


def test_no_layer_is_no_division():
    assert describe_profile([], 1, "fake").to_json() == {
        "source": "fake",
        "calls": 1,
        "total_ms": 0,
        "blocks": [],
        "layers": [],
    }


def test_openvino_counts_the_layers_it_runs(shared_tiny_bundle):
    pytest.importorskip("openvino")
    (variant,) = list_variants([open_bundle(shared_tiny_bundle)], ["fp32"], ["kernel"], ["cpu"])
    found = profile_openvino(variant, np.zeros((1, 64, 64, 3), np.uint8), np.ones(1, np.float32), calls=3, threads=1)
    products = [layer for layer in found.layers if layer.kind == "Convolution"]
    assert len(products) == 1 and products[0].precision == "fp32" and products[0].ms >= 0
    assert found.calls == 3 and found.total_ms > 0
    json.dumps(found.to_json(), allow_nan=False)


class ProfiledEngine:
    """As much of a TensorRtEngine as a profile touches; two layers a run."""

    runtime = "tensorrt"

    def __init__(self, information):
        self.information, self.report, self.runs = information, None, 0

    @contextmanager
    def profiled(self, report):
        self.report = report
        try:
            yield self.information
        finally:
            self.report = None

    def run(self, crops, box_scores):
        self.runs += 1
        self.report("backbone.blocks.0.expand + relu", 0.25)
        self.report("Reformatting CopyNode", 0.5)


def test_tensorrt_layers_are_means_over_the_calls_after_the_warm_up(fake_bundle):
    engine = ProfiledEngine(INFORMATION)
    (variant,) = list_variants([fake_bundle], ["fp32"], ["kernel"], ["cuda"])
    found = profile_engine(variant, engine, np.zeros((2, 16, 12, 3), np.uint8), np.ones(2, np.float32))
    layers = {layer.name: layer for layer in found.layers}
    name = "backbone.blocks.0.expand + relu"
    assert layers[name] == Layer(name, "backbone.blocks.0", "CaskConvolution", "int8", 0.25)
    assert layers["Reformatting CopyNode"].block == "graph" and found.total_ms == 0.75
    assert found.source == "TensorRT profiler, batch 2" and engine.runs > found.calls and engine.report is None


@pytest.mark.parametrize("information", [None, "", "[]", "{}", '{"Layers": ["a"]}', "not json"])
def test_an_inspector_without_detail_tells_no_precision(information):
    assert layer_precisions(information) == {}


def test_a_runtime_without_a_profiler_says_so(fake_engine, fake_bundle):
    (variant,) = list_variants([fake_bundle], ["fp32"], ["kernel"], ["cpu"])
    assert profile_engine(variant, fake_engine(), None, None) == Profile(None, "fake has no profiler here")


def test_the_trace_has_a_row_a_thread_and_starts_at_zero(tmp_path):
    events = [Event("decode", "qanet-decode", 1500.0, 200.0), Event("engine", "MainThread", 1000.0, 400.0)]
    found = chrome_trace(events)["traceEvents"]
    assert [(e["name"], e["ph"]) for e in found] == [
        ("thread_name", "M"),
        ("thread_name", "M"),
        ("engine", "X"),
        ("decode", "X"),
    ]
    assert (found[2]["ts"], found[2]["dur"], found[3]["ts"]) == (0.0, 400.0, 500.0)
    assert found[2]["tid"] != found[3]["tid"] and chrome_trace([]) == {"displayTimeUnit": "ms", "traceEvents": []}
    write_trace(tmp_path / "trace.json", events)
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == found


def test_stage_times_remember_their_thread_and_when():
    seconds = iter([2.0, 3.0])
    times = TracingTimes(lambda: next(seconds))
    times.add("engine", 500.0)
    worker = threading.Thread(target=lambda: times.add("encode", 1000.0), name="writer")
    worker.start()
    worker.join()
    assert times.events == [
        Event("engine", threading.current_thread().name, 1.5e6, 5e5),
        Event("encode", "writer", 2e6, 1e6),
    ]
    assert times.samples_ms == {"engine": [500.0], "encode": [1000.0]}


def test_the_pipelines_threads_are_in_the_trace(shared_tiny_bundle, make_clip, boxes_file):
    pytest.importorskip("openvino")
    from qanet.runtime.backends.select import open_engine
    from qanet.runtime.detectors.base import BoxesFile
    from qanet.runtime.video.sources import open_source

    (variant,) = list_variants([open_bundle(shared_tiny_bundle)], ["fp32"], ["kernel"], ["cpu"])
    engine = open_engine(variant.bundle, "cpu", "fp32", variant.outputs, 1)
    events = trace_pipeline(variant, engine, BoxesFile(boxes_file), open_source(str(make_clip())), frames=3)
    by_thread = {}
    for event in events:
        by_thread.setdefault(event.thread, set()).add(event.name)
    assert by_thread["qanet-decode"] == {"decode"} and by_thread["qanet-write"] == {"paint", "encode"}
    assert {"crop", "engine", "tail", "frame"} <= by_thread[threading.current_thread().name]
