"""The harness beside the runtime's own program: command lines, medians in what they print, turns."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from qanet.benchmarks.harness import Target
from qanet.benchmarks.lab import selfcheck_processes
from qanet.benchmarks.lab.selfcheck_processes import compare_with_program, open_target, read_median_ms, trtexec_command
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.runtime.backends.openvino import openvino_core

APP = """[ INFO ] Count:            350 iterations
[ INFO ] Duration:         2004.46 ms
[ INFO ] Latency:
[ INFO ]    Median:        5.67 ms
[ INFO ]    Average:       5.71 ms
"""
TRTEXEC = """[I] Throughput: 1423.51 qps
[I] Latency: min = 0.68 ms, max = 1.09 ms, mean = 0.70 ms, median = 0.699 ms, percentile(90%) = 0.71 ms
[I] Enqueue Time: min = 0.01 ms, max = 0.07 ms, mean = 0.01 ms, median = 0.013 ms
[I] GPU Compute Time: min = 0.64 ms, max = 1.00 ms, mean = 0.66 ms, median = 0.658 ms
"""


@pytest.mark.parametrize(
    ("said", "pattern", "median_ms"),
    [
        (APP, selfcheck_processes._APP_MEDIAN, 5.67),
        (APP.replace("5.67 ms", "36.50 us"), selfcheck_processes._APP_MEDIAN, 0.0365),
        (TRTEXEC, selfcheck_processes._TRTEXEC_MEDIAN, 0.699),
    ],
    ids=["benchmark_app", "benchmark_app in us", "trtexec"],
)
def test_the_median_latency_is_read(said, pattern, median_ms):
    assert read_median_ms(said, pattern) == pytest.approx(median_ms)


@pytest.mark.parametrize("said", ["", "[ ERROR ] Cannot load\n  it went wrong\n"])
def test_a_program_without_a_median_is_an_error_with_its_last_line(said):
    with pytest.raises(QanetError, match="it went wrong" if said else "nothing"):
        read_median_ms(said, selfcheck_processes._APP_MEDIAN)


@pytest.fixture
def opened(shared_tiny_bundle):
    pytest.importorskip("openvino")
    bundle = open_bundle(shared_tiny_bundle)
    return bundle, *open_target(bundle, "fp32", "cpu", 1)


def test_program_and_harness_take_turns_on_the_same_graph(opened, monkeypatch):
    bundle, engine, _ = opened
    turns = []

    def spawn(line):
        model = openvino_core().read_model(line[line.index("-m") + 1])
        assert {port.get_any_name() for port in model.outputs} == {"logits", "iou_scores"}
        assert line[line.index("-data_shape") + 1] == "crops[1,64,64,3]" and line[line.index("-t") + 1] == "1"
        assert line[line.index("-infer_precision") + 1] == "f32" and line[line.index("-nthreads") + 1] == "1"
        turns.append("program")
        return APP.replace("5.67", f"{2.0 + len(turns) / 100}")

    def harness_ms(target, seconds):
        turns.append("harness")
        return 2.1

    monkeypatch.setattr(selfcheck_processes, "_harness_ms", harness_ms)
    found = compare_with_program(bundle, engine, Target("e", lambda number: None, "engine"), 3, 1.0, 1, spawn)
    assert turns == ["program", "harness"] * 3 and found["program_ms"] == [2.01, 2.03, 2.05]
    assert found["ratio"]["value"] == pytest.approx(2.1 / 2.03, abs=1e-5) and not found["agrees"]


def test_the_real_program_runs_the_engines_graph(opened):
    bundle, engine, target = opened
    found = compare_with_program(bundle, engine, target, 1, 0.5, 1)
    assert found["program"] == "benchmark_app" and found["program_ms"][0] >= 0 and found["harness_ms"][0] > 0


def test_an_engine_that_fails_is_an_error_not_a_ratio(opened):
    def fails(number):
        raise RuntimeError("broke")

    bundle, engine, _ = opened
    with pytest.raises(QanetError, match="could not be timed.*broke"):
        compare_with_program(bundle, engine, Target("e", fails, "engine"), 1, 0.5, 1, lambda line: APP)


@pytest.fixture
def tensorrt(fake_bundle, monkeypatch):
    """A bundle with a TensorRT engine, the engine, and trtexec on the path."""
    fake_bundle.add_engine("engines/e.plan", b"plan", {"runtime": "tensorrt", "precision": "fp16"})
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return fake_bundle, SimpleNamespace(runtime="tensorrt", precision="fp16", graph_batches=())


def test_trtexec_loads_the_engine_file(tensorrt):
    bundle, engine = tensorrt
    line = trtexec_command(bundle, engine, 2.6)
    assert line[0] == "/usr/bin/trtexec" and f"--loadEngine={bundle.path / 'engines/e.plan'}" in line
    assert "--shapes=crops:1x16x12x3" in line and "--duration=3" in line and "--useCudaGraph" not in line
    engine.graph_batches = (1,)
    assert "--useCudaGraph" in trtexec_command(bundle, engine, 2.6)


@pytest.mark.parametrize("what", ["no program", "no engine", "another runtime"])
def test_without_a_program_or_an_engine_file_there_is_nothing_to_compare_with(tensorrt, monkeypatch, what):
    bundle, engine = tensorrt
    if what == "no program":
        monkeypatch.setattr(shutil, "which", lambda name: None)
        monkeypatch.setattr(selfcheck_processes, "_TRTEXEC", Path("/nowhere/trtexec"))
    elif what == "no engine":
        bundle.manifest["engines"] = []
    else:
        engine.runtime = "onnxruntime"
    with pytest.raises(QanetError, match="no benchmark program"):
        trtexec_command(bundle, engine, 1.0)


def test_a_program_that_cannot_be_started(monkeypatch):
    with pytest.raises(QanetError, match="cannot be run"):
        selfcheck_processes._output_of(["/nowhere/benchmark_app"])
