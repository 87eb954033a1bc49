"""`qanet build` on the tiny bundle: what it leaves there, and that it leaves nothing when anything fails."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cpu_types import BF16, FP16, HAS_16_BITS, needs_16_bits
from engine_graphs import needs_rtx
from fake_tensorrt_builder import tensorrt_builder_module
from int8_bundle import make_int8_bundle
from rtx_header import plan_targets

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.export.backends import openvino, tensorrt_library
from qanet.export.building import bundle as building
from qanet.export.building.command import main as build_main
from qanet.export.building.options import BuildOptions
from qanet.export.building.verify import mark_layers
from qanet.files import locked


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def build(bundle, *arguments):
    return qanet(["build", str(bundle), *arguments])


@pytest.fixture
def orin(monkeypatch):
    """A made-up TensorRT 10.3 on a made-up Orin."""

    def install(**more):
        module = tensorrt_builder_module("10.3.0", **more)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(tensorrt_library, "this_gpu", lambda: "sm_87")
        monkeypatch.setattr(tensorrt_library, "gpu_name", lambda: "Orin")
        return module

    return install


@pytest.mark.parametrize("precision", ["fp32", FP16, BF16])
@pytest.mark.parametrize("tail", ["kernel", "graph"])
def test_verified_engines_are_kept(tiny_bundle, capsys, precision, tail):
    arguments = ("--runtime", "openvino", "--precision", precision, "--tail", tail, "--verify")
    assert build(tiny_bundle, *arguments) == 0
    said = capsys.readouterr().err
    assert "logits: " in said and ("part_scores: " in said) == (tail == "graph")
    (entry,) = open_bundle(tiny_bundle).engines
    graph = open_bundle(tiny_bundle).manifest["graphs"][precision]
    assert entry["graph_sha256"] == open_bundle(tiny_bundle).manifest["files"][graph]["sha256"]


def test_a_build_without_a_command_line(tiny_bundle, tmp_path, capsys):
    lines = []
    options = BuildOptions(precisions=["fp32"], runtimes=["openvino"], tail="graph")
    before = snapshot(tiny_bundle)
    report = building.build(open_bundle(tiny_bundle), options, output=tmp_path / "copy.qanet", report=lines.append)
    report.check()
    (engine,) = report.engines
    assert report.bundle.path == tmp_path / "copy.qanet" and snapshot(tiny_bundle) == before
    assert engine.entry in report.bundle.engines and engine.bytes == len(report.bundle.read(engine.entry["file"]))
    assert engine.built.census.multiply_add_shares["fp32"] == 1 and "census" not in engine.to_json()
    assert report.to_json()["not_built"] == {} and lines[-1].startswith("  known answers: ")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def wrong_weights(graph, precision, **options):
    """OpenVINO's build with the network's one convolution turned around."""
    import onnx

    model = onnx.load_model_from_string(graph)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), "weight"))
    return REAL_BUILD(model.SerializeToString(), precision=precision, **options)


REAL_BUILD = openvino.build


def test_an_engine_that_departs_is_not_kept_and_its_first_wrong_layer_is_named(tiny_bundle, capsys, monkeypatch):
    assert build(tiny_bundle, "--runtime", "openvino", "--precision", "fp32") == 0
    before = snapshot(tiny_bundle)
    monkeypatch.setattr(openvino, "build", wrong_weights)
    arguments = ("--runtime", "openvino", "--precision", "fp32", "--tail", "graph", "--verify")
    assert build(tiny_bundle, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the engine departs from ONNX Runtime at logits" in error
    assert "the first layer that departs: logits (" in error and snapshot(tiny_bundle) == before


@needs_rtx
def test_low_memory_builds_an_engine_for_each_bucket_apart(tiny_bundle, capsys):
    arguments = ("--runtime", "tensorrt-rtx", "--target", "sm_86", "--precision", "fp32")
    assert build(tiny_bundle, *arguments, "--low-memory", "--static-buckets", "--json") == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert [e["batches"] for e in engines] == [[[1, 1, 1]], [[2, 2, 2]], [[4, 4, 4]]]
    assert [e["file"].split(".fp32")[1] for e in engines] == [".b1.plan", ".b2.plan", ".b4.plan"]
    assert build(tiny_bundle, *arguments) == 0  # one with all batches takes the place of the three
    bundle = open_bundle(tiny_bundle)
    bundle.verify()
    assert [e["batches"] for e in bundle.engines] == [[[1, 4, 16]]]
    assert os.listdir(tiny_bundle / "engines") == [os.path.basename(bundle.engines[0]["file"])]


@needs_rtx
def test_save_engine_writes_the_same_plan(tiny_bundle, tmp_path):
    plan = tmp_path / "model.plan"
    arguments = ("--runtime", "tensorrt-rtx", "--target", "sm_86", f"--saveEngine={plan}")
    assert build(tiny_bundle, *arguments) == 2 and not plan.exists()  # three precisions, one file
    assert build(tiny_bundle, *arguments, "--fp16") == 0
    bundle = open_bundle(tiny_bundle)
    assert plan.read_bytes() == bundle.read(bundle.engines[0]["file"]) and plan_targets(plan.read_bytes()) == ("sm_86",)


@needs_rtx
def test_the_same_build_gives_the_same_bytes(tiny_bundle, tmp_path):
    for name in ("a", "b"):
        for runtime, more in (("openvino", ()), ("tensorrt-rtx", ("--target", "sm_86"))):
            arguments = ("--runtime", runtime, "--precision", "fp32,fp16,bf16", "--output", str(tmp_path / name), *more)
            assert build(tiny_bundle, *arguments) == 0
    ours, theirs = (snapshot(tmp_path / f"{name}.qanet") for name in ("a", "b"))
    assert ours.keys() == theirs.keys()
    graphs = {name for name in ours if not name.startswith("engines/") and name != "manifest.json"}
    assert graphs == {"model.onnx", "model.fp16.onnx", "model.bf16.onnx", "answers.npz"}
    for name in graphs:
        assert ours[name] == theirs[name], name
    manifests = [json.loads(files["manifest.json"]) for files in (ours, theirs)]
    for manifest in manifests:
        manifest["name"] = ""
        assert bool(manifest.pop("timings")) == HAS_16_BITS  # measured, so never the same twice
        for name in list(manifest["files"]):
            if name.startswith("engines/"):  # their bytes are the library's affair
                manifest["files"][name] = ""
    assert manifests[0] == manifests[1]


def test_two_builds_at_once_both_end_well(tmp_path):
    tiny_bundle = make_int8_bundle(tmp_path)
    command = [sys.executable, "-m", "qanet", "build", str(tiny_bundle), "--runtime", "openvino", "--precision"]
    processes = [
        subprocess.Popen([*command, precision], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for precision in ("fp32", "int8")
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    bundle = open_bundle(tiny_bundle)
    bundle.verify()
    assert sorted(e["precision"] for e in bundle.engines) == ["fp32", "int8"]
    assert not [name for name in os.listdir(tiny_bundle) if name.startswith(".")]


def test_a_build_that_waits_too_long_says_for_whom(tiny_bundle, capsys):
    before = snapshot(tiny_bundle)
    with locked(tiny_bundle / ".build.lock", timeout_s=0, doing="testing"):
        assert build(tiny_bundle, "--precision", "fp32", "--runtime", "openvino", "--lock-timeout", "0.1") == 2
        said = capsys.readouterr().err
        assert f"building into {tiny_bundle}: waiting for process {os.getpid()}, up to 0.1 s" in said
        assert f"error: building into {tiny_bundle} must wait for process {os.getpid()}" in said
    assert snapshot(tiny_bundle) == before


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (("no plan",), "tensorrt could not build tiny.fp32.onnx for sm_87: Error Code 2: OutOfMemory"),
        (("no inspector",), "reports no layers of its engine, so its precision is unknown"),
    ],
)
def test_a_builder_that_returns_nothing_leaves_the_bundle(tiny_bundle, orin, capsys, faults, message):
    orin()
    arguments = ("--runtime", "tensorrt", "--precision", "fp32", "--no-timing-cache")
    assert build(tiny_bundle, *arguments) == 0
    before = snapshot(tiny_bundle)
    orin(faults=faults)
    assert build(tiny_bundle, *arguments) == 2
    assert message in capsys.readouterr().err and snapshot(tiny_bundle) == before


def test_fp16_asked_and_fp32_built_is_a_failed_build(tiny_bundle, orin, capsys):
    orin(faults=("fp32",))
    assert build(tiny_bundle, "--runtime", "tensorrt", "--fp16", "--no-timing-cache") == 2
    assert "fp16 was asked for and not delivered in 1 of 1 compute layers: Conv_" in capsys.readouterr().err
    assert open_bundle(tiny_bundle).engines == []


def test_an_openvino_that_exports_nothing(tiny_bundle, capsys, monkeypatch):
    import io

    import openvino as library

    before = snapshot(tiny_bundle)
    monkeypatch.setattr(library.CompiledModel, "export_model", lambda self: io.BytesIO())
    assert build(tiny_bundle, "--runtime", "openvino", "--precision", "fp32") == 2
    assert "OpenVINO made an empty engine of tiny.fp32.onnx" in capsys.readouterr().err
    assert snapshot(tiny_bundle) == before


def test_no_space_for_an_engine_leaves_the_bundle(tiny_bundle, capsys, monkeypatch):
    before = snapshot(tiny_bundle)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 70 << 10}))
    assert build(tiny_bundle, "--runtime", "openvino", "--precision", "fp32", "--tail", "graph") == 2
    assert "no room to write into" in capsys.readouterr().err and snapshot(tiny_bundle) == before


def test_what_cannot_be_honoured_is_said_before_a_graph_is_written(tiny_bundle, orin, capsys):
    orin()
    before = snapshot(tiny_bundle)
    for arguments, message in (
        (("--hardwareCompatibilityLevel=same_cc",), "has no hardware compatibility level same_cc"),
        (("--target", "sm_86"), "TensorRT builds on the GPU that will run the engine"),
        (("--fp8", "--runtime", "openvino"), "OpenVINO has no precision 'fp8'"),
        (("--refit",), "has no engine without weights"),
    ):
        assert build(tiny_bundle, "--fp16", "--runtime", "tensorrt", *arguments) == 2
        assert message in capsys.readouterr().err and snapshot(tiny_bundle) == before, arguments


def test_engines_without_weights_are_refitted_in_their_bundle(tiny_bundle, orin, capsys):
    module = orin()
    arguments = ("--runtime", "tensorrt", "--precision", "fp32,fp16", "--no-timing-cache")
    assert build(tiny_bundle, *arguments, "--stripWeights") == 0
    stripped = open_bundle(tiny_bundle)
    assert [e["stripped"] for e in stripped.engines] == [True, True]
    module.__version__ = "10.16.1.11"
    assert build(tiny_bundle, "--refit") == 2
    assert "is for this machine (expected sm_87 of 10.16.1.11, got sm_87 of 10.3.0" in capsys.readouterr().err
    module.__version__ = "10.3.0"
    assert build(tiny_bundle, "--refit") == 0
    whole = open_bundle(tiny_bundle)
    whole.verify()
    assert [e["file"] for e in whole.engines] == [e["file"] for e in stripped.engines]
    assert not any("stripped" in e for e in whole.engines)
    assert all(json.loads(whole.read(e["file"]))["weights"] for e in whole.engines)


@needs_16_bits
def test_a_typed_graph_is_written_again_when_its_source_changes(tiny_bundle, capsys):
    arguments = ("--runtime", "openvino", "--precision", "fp16")
    assert build(tiny_bundle, *arguments) == 0
    bundle = open_bundle(tiny_bundle)
    first = bundle.manifest["files"]["model.fp16.onnx"]
    import onnx

    model = onnx.load_model_from_string(bundle.graph("fp32"))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, "bias"))
    bundle.add_file("model.onnx", model.SerializeToString())
    bundle.save()
    assert build(tiny_bundle, *arguments) == 0
    again = open_bundle(tiny_bundle)
    assert again.manifest["files"]["model.fp16.onnx"] != first
    (entry,) = again.engines
    assert entry["graph_sha256"] == again.manifest["files"]["model.fp16.onnx"]["sha256"]


class FakeGpuEngine:
    """What the runtime opens of a TensorRT engine: it computes the bundle's graph, off by a factor."""

    def __init__(self, graph, outputs, factor):
        self.graph, self.outputs, self.factor, self.closed = graph, outputs, factor, False

    def run(self, crops, box_scores):
        import onnxruntime

        session = onnxruntime.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        results = session.run(list(self.outputs), {"crops": crops, "box_scores": box_scores})
        return {name: value * np.float32(self.factor) for name, value in zip(self.outputs, results)}

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.1, 2)])
def test_a_tensorrt_engine_is_verified_by_the_runtimes_own_loader(
    tiny_bundle, tiny_graph, orin, capsys, monkeypatch, factor, code
):
    orin()
    monkeypatch.setattr("qanet.export.backends.tensorrt_library.this_gpu", lambda: "sm_87")
    opened = []

    def open_engine(bundle, device, precision, outputs):
        (entry,) = bundle.engines
        assert device == "cuda" and json.loads(bundle.read(entry["file"]))["layers"] and bundle.path != tiny_bundle
        opened.append(FakeGpuEngine(mark_layers(tiny_graph)[0], outputs, factor))
        return opened[-1]

    arguments = [str(tiny_bundle), "--runtime", "tensorrt", "--precision", "fp32", "--verify", "--no-timing-cache"]
    monkeypatch.setattr("qanet.export.building.engine.open_engine", open_engine)
    if code == 0:
        assert build_main(arguments) == 0
    else:
        with pytest.raises(QanetError, match="departs: logits .0.1, .*; next: polygraphy run .*tiny.qanet/model.onnx"):
            build_main(arguments)
    assert len(opened) == 1 + bool(code) and all(engine.closed for engine in opened)
    assert len(open_bundle(tiny_bundle).engines) == (1 if code == 0 else 0)


@needs_rtx
def test_what_needs_a_gpu_to_be_verified_is_refused_before_it_is_built(tiny_bundle, capsys, monkeypatch):
    def missing():
        raise QanetError("no NVIDIA driver on this machine")

    monkeypatch.setattr("qanet.export.backends.tensorrt_library.this_gpu", missing)
    assert build(tiny_bundle, "--runtime", "tensorrt-rtx", "--fp16", "--verify") == 2
    assert "no NVIDIA driver on this machine" in capsys.readouterr().err
    assert open_bundle(tiny_bundle).engines == []
