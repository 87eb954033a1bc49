"""What answers wrongly is not used: through build, load, parse and auto, on the CPU and on the made-up GPU."""

import json
import warnings

import numpy as np
import pytest
from toy_engines import ALL_OUTPUTS, HEIGHT, KERNEL_TAIL, WIDTH, make_bundle, network
from toy_plans import make_bundle_apart

import qanet as package
from qanet.__main__ import main as qanet
from qanet.bundle import NO_VNNI, open_bundle
from qanet.calib.quantize import requantised_without_vnni
from qanet.errors import QanetError, QanetWarning
from qanet.runtime.answers import verdicts
from qanet.runtime.answers.known import KnownAnswers, pictures, reduced, renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends import openvino, select
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.backends.onnxruntime import exact_outputs
from qanet.runtime.backends.select import WrongAnswers, open_engine
from qanet.runtime.cuda import device_path
from qanet.runtime.cuda.device_path import kernels_verdict
from qanet.runtime.parser import Parser

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def spoilt(graph: bytes, factor=1.5) -> bytes:
    """The graph with other weights: what a builder with a fault, or a broken disk under a right hash, would run."""
    model = onnx.load_model_from_string(graph)
    (weight,) = [t for t in model.graph.initializer if t.name == "weight"]
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1] *= factor
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return model.SerializeToString()


@pytest.fixture
def saturating(monkeypatch):
    """An OpenVINO whose INT8 saturates unless the weights were made for it, as on a CPU without dot products."""
    run = openvino.OpenVinoEngine.run

    def saturated(self, crops, box_scores):
        outputs = run(self, crops, box_scores)
        if self.origin is not None and self.origin.graph == "int8" and "logits" in outputs:
            outputs["logits"] = np.clip(outputs["logits"], -50, 50)
        return outputs

    monkeypatch.setattr(openvino.OpenVinoEngine, "run", saturated)


def with_int8(bundle):
    """The bundle with FP32's graph as its INT8 one: what matters is what the engine says, not how it multiplies."""
    bundle.add_file("model.int8.onnx", bundle.graph("fp32"))
    bundle.manifest["graphs"]["int8"] = "model.int8.onnx"
    renew_answers(bundle, {"int8": bundle.graph("fp32")}, exact_outputs, TOLERANCES)
    bundle.save()
    return bundle


def test_a_right_engine_is_handed_out(answering):
    assert open_engine(answering, "cpu", "fp32", KERNEL_TAIL_OUTPUTS, 1).precision == "fp32"


@pytest.mark.parametrize("device", ["cpu", "onnxruntime"])
def test_spoilt_weights_are_refused_by_name_and_by_auto(answering, device):
    answering.add_file("model.onnx", spoilt(answering.graph("fp32")))
    answering.manifest["answers"]["of"]["fp32"] = answering.manifest["files"]["model.onnx"]["sha256"][:16]
    answering.save()
    with pytest.raises(WrongAnswers) as caught:
        package.load(answering.path, device=device, precision="fp32", threads=1)
    assert "fp32 of tiny answers wrongly" in caught.value.fact and "limit 0.002" in caught.value.got
    assert "qanet doctor --prove" in caught.value.next_command
    with pytest.raises(QanetError, match="no precision of tiny answers rightly here .*fp32 .*limit 0.002"):
        package.load(answering.path, device=device, threads=1)


def test_parse_says_it_in_one_line_and_exits_with_2(answering, saturating, make_clip, boxes_file, capsys):
    with_int8(answering)
    asked = ["parse", str(make_clip(2)), "--model", str(answering.path), "--boxes", str(boxes_file), "--device", "cpu"]
    assert qanet([*asked, "--precision", "int8"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: int8 of tiny answers wrongly on this CPU") and "next: qanet build" in line


def test_auto_goes_on_to_the_next_best_and_says_so(answering, saturating, make_clip, boxes_file, capsys, monkeypatch):
    monkeypatch.setattr(select, "has_dot_products", lambda: True)
    with_int8(answering)
    with pytest.warns(QanetWarning, match="int8 of tiny is not used: it answers wrongly here"):
        assert package.load(answering.path, device="cpu", threads=1).engine.precision == "fp32"
    asked = ["parse", str(make_clip(2)), "--model", str(answering.path), "--boxes", str(boxes_file), "--device", "cpu"]
    assert qanet([*asked, "--quiet", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["precision"] == "fp32"
    assert [line for line in printed.err.splitlines() if "is not used" in line]


def test_the_graph_without_vnni_is_taken_where_the_other_answers_wrongly(answering, saturating, monkeypatch):
    monkeypatch.setattr(select, "has_dot_products", lambda: True)  # as under an emulator that shows the host's flags
    monkeypatch.setattr(select, "sums_saturate", lambda: False)
    bundle = with_int8(answering)
    bundle.add_file("model.int8-no-vnni.onnx", requantised_without_vnni(bundle.graph("int8")))
    bundle.manifest["graphs"][NO_VNNI] = "model.int8-no-vnni.onnx"
    bundle.save()
    engine = open_engine(bundle, "cpu", "int8", KERNEL_TAIL_OUTPUTS, 1)
    assert (engine.precision, engine.origin.graph) == ("int8", NO_VNNI)


def test_without_a_record_auto_takes_int8_only_where_the_cpu_has_dot_products(answering, monkeypatch):
    with_int8(answering)
    for has, expected in ((True, "int8"), (False, "fp32")):
        monkeypatch.setattr(select, "has_dot_products", lambda has=has: has)
        monkeypatch.setattr(select, "_has_16_bits", lambda where: False)
        assert open_engine(answering, "cpu", "auto", KERNEL_TAIL_OUTPUTS, 1).precision == expected


@pytest.mark.parametrize("ms, expected", [((5.0, 4.0), "int8"), ((4.0, 5.0), "fp32"), ((5.0, 4.95), "fp32")])
def test_auto_goes_by_what_build_measured(answering, monkeypatch, ms, expected):
    from qanet.runtime.backends.openvino import cpu_signature, openvino_core

    with_int8(answering)
    monkeypatch.setattr(select, "has_dot_products", lambda: expected != "int8")  # the record is asked first
    record = {"runtime": "openvino", "version": openvino.version(), "device": cpu_signature(openvino_core())}
    record |= {
        "outputs": list(KERNEL_TAIL_OUTPUTS),
        "crops": 1,
        "rounds": 9,
        "least_ms": dict(zip(("fp32", "int8"), ms)),
    }
    answering.manifest["timings"] = [record]
    assert open_engine(answering, "cpu", "auto", KERNEL_TAIL_OUTPUTS, 1).precision == expected
    monkeypatch.setattr(select, "_has_16_bits", lambda where: False)
    answering.manifest["timings"] = [record | {"device": "another CPU"}]
    assert open_engine(answering, "cpu", "auto", KERNEL_TAIL_OUTPUTS, 1).precision != expected


def test_a_graph_that_is_right_but_coarse_is_for_those_who_name_it(answering, monkeypatch):
    monkeypatch.setattr(select, "has_dot_products", lambda: True)
    coarse = spoilt(answering.graph("fp32"), 60)
    answering.add_file("model.int8.onnx", coarse)
    answering.manifest["graphs"]["int8"] = "model.int8.onnx"
    renew_answers(answering, {"int8": coarse}, exact_outputs, TOLERANCES)
    assert open_engine(answering, "cpu", "int8", KERNEL_TAIL_OUTPUTS, 1).precision == "int8"
    with pytest.warns(QanetWarning, match="is not used: it is too far from fp32"):
        assert open_engine(answering, "cpu", "auto", KERNEL_TAIL_OUTPUTS, 1).precision == "fp32"


def test_build_keeps_nothing_that_answers_wrongly(answering, monkeypatch, capsys):
    run = openvino.OpenVinoEngine.run

    def broken(self, crops, box_scores):
        outputs = run(self, crops, box_scores)
        if self.origin is not None and self.origin.graph == "fp32":
            outputs["logits"] = outputs["logits"] + 1 - outputs["logits"] % 2
        return outputs

    monkeypatch.setattr(openvino.OpenVinoEngine, "run", broken)
    assert qanet(["build", str(answering.path), "--runtime", "openvino", "--precision", "fp32"]) == 2
    assert "error: fp32 of tiny answers wrongly on this CPU" in capsys.readouterr().err
    after = open_bundle(answering.path)
    assert after.engines == [] and not list(after.path.rglob("*.blob"))


# The made-up GPU -----------------------------------------------------------------------------------------------------


def toy(folder, outputs=KERNEL_TAIL, make=make_bundle, **entry):
    """A bundle of the toy engine with the toy network's answers."""
    made = make(folder, outputs=outputs, **entry)
    made.manifest |= {"pixel_score_threshold": 0.2, "qam_weights": [1, 0.5, 3], "answers": {}, "timings": []}
    made.add_file("model.onnx", b"the toy network")
    made.manifest["graphs"] = {"fp32": "model.onnx"}
    renew_answers(made, {"fp32": b""}, lambda graph, crops, scores: network(crops, scores), TOLERANCES)
    return made


@pytest.fixture
def device(machine, monkeypatch):
    monkeypatch.setattr(select, "has_cuda", lambda: True)
    return machine


def other_answers(made):
    """As if the engine computed something else: the answers are those of another network."""
    crops, scores = pictures(made)
    outputs = {name: values * np.float32(1.3) for name, values in network(crops, scores).items()}
    made.add_file("answers.npz", KnownAnswers(crops, scores, {"fp32": reduced(outputs)}).to_bytes())
    return made


def test_an_engine_on_a_gpu_answers_at_every_bucket_before_it_serves(device, tmp_path):
    with open_engine(toy(tmp_path), "cuda", "fp16", KERNEL_TAIL) as engine:
        assert engine.batch_sizes == (1, 2, 4, 8) and engine.origin.device.startswith("Made-up GPU sm_87")
    with pytest.raises(WrongAnswers, match="fp16 of toy answers wrongly on this GPU"):
        open_engine(other_answers(toy(tmp_path)), "cuda", "fp16", KERNEL_TAIL)


def test_a_plan_of_a_larger_bucket_answers_when_it_is_opened(device, tmp_path, monkeypatch):
    made = toy(tmp_path, make=make_bundle_apart)
    with open_engine(made, "cuda", "fp16", KERNEL_TAIL) as engine:
        crops = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
        engine.run(crops[:1], np.ones(1, np.float32))
        asked = []
        monkeypatch.setattr(select, "answer", lambda bundle, engine, sizes: asked.append(sizes))
        engine.run(crops, np.ones(4, np.float32))
        engine.run(crops, np.ones(4, np.float32))
        assert asked == [(4,)]


def test_auto_leaves_a_gpu_that_answers_wrongly_for_the_cpu(device, tmp_path, answering, monkeypatch):
    """Never silently: one line says which engine is not used, one that the CPU runs instead."""
    made = other_answers(toy(tmp_path))
    monkeypatch.setattr(select, "_on_cpu", lambda bundle, where, outputs: [select.Choice("cpu", "fp32", "fp32")])
    opened, cpu = select.open_choice, open_engine(answering, "cpu", "fp32", KERNEL_TAIL_OUTPUTS, 1)
    cpu.origin = None
    monkeypatch.setattr(select, "open_choice", lambda b, c, *rest: cpu if c.device == "cpu" else opened(b, c, *rest))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert open_engine(made, "auto", "auto", KERNEL_TAIL) is cpu
    lines = [str(w.message) for w in caught]
    assert any("no engine of toy answers rightly on this GPU" in line for line in lines)
    assert any("fp16 of toy is not used: it answers wrongly here" in line for line in lines)


def test_kernels_that_answer_wrongly_leave_the_tail_to_the_cpu(kernels, tmp_path, monkeypatch):
    made = toy(tmp_path)
    monkeypatch.setattr(device_path, "kernels_verdict", kernels_verdict)
    with package_engine(made) as engine:
        kernels.image_size = device_path._IMAGE_HW
        assert Parser(made, engine)._device_path is not None
    monkeypatch.setattr(device_path, "recall", lambda key: None)
    monkeypatch.setitem(kernels.kernels, "crop_people", lambda *given: None)  # launched, and nothing is written
    with package_engine(made) as engine, pytest.warns(QanetWarning, match="the kernels answer wrongly on this GPU"):
        assert Parser(made, engine)._device_path is None


def package_engine(made):
    from qanet.runtime.backends.tensorrt.engine import engine_from_bundle

    return engine_from_bundle(made, "fp16", KERNEL_TAIL)


def test_auto_on_a_gpu_takes_fp16_and_int8_only_when_it_was_measured(device, tmp_path):
    from qanet.runtime.cuda.device import open_device

    made = toy(tmp_path)
    (facts,) = made.engines
    made.add_engine("engines/toy.int8.plan", made.read("engines/toy.plan"), facts | {"precision": "int8"})
    with open_engine(made, "auto", "auto", KERNEL_TAIL) as engine:
        assert engine.precision == "fp16"
    record = {
        "runtime": "tensorrt",
        "version": "10.3.0",
        "device": open_device().identity,
        "outputs": list(KERNEL_TAIL),
    }
    made.manifest["timings"] = [record | {"least_ms": {"fp16": 2.0, "int8": 1.0}}]
    with open_engine(made, "auto", "auto", KERNEL_TAIL) as engine:
        assert engine.precision == "int8"
    with open_engine(made, "cuda", "int8", KERNEL_TAIL) as engine:
        assert engine.outputs == KERNEL_TAIL


def test_a_bundle_without_an_fp32_graph_cannot_be_asked_and_serves(device, tmp_path):
    made = make_bundle(tmp_path, outputs=ALL_OUTPUTS)
    with (
        pytest.warns(QanetWarning, match="neither known answers nor an FP32 graph"),
        open_engine(made, "cuda", "fp16", ALL_OUTPUTS) as engine,
    ):
        assert engine.outputs == ALL_OUTPUTS
    with pytest.raises(QanetError, match="unknown device"):
        open_engine(made, "tpu", "fp16", ALL_OUTPUTS)


def test_a_record_of_all_outputs_counts_for_a_tail_that_takes_some_of_them(answering):
    record = {"runtime": "openvino", "version": "1", "device": "here", "crops": 1, "rounds": 9}
    answering.manifest["timings"] = [
        record | {"outputs": ["iou_scores", "logits"], "least_ms": {"fp32": 2.0}},
        record | {"outputs": ["iou_scores", "labels", "logits", "quality"], "least_ms": {"fp32": 3.0}},
    ]
    for outputs, ms in ((KERNEL_TAIL_OUTPUTS, 2.0), (("labels", "quality"), 3.0), (("boxes",), 2.0)):
        assert select.recorded_ms(answering, "openvino", "1", "here", outputs) == {"fp32": ms}
    assert select.recorded_ms(answering, "openvino", "2", "here", KERNEL_TAIL_OUTPUTS) == {}


@pytest.mark.parametrize(
    "timing",
    [
        5,
        {"least_ms": {}},
        {"runtime": "x", "version": "1", "device": "y", "outputs": 5, "least_ms": {}},
        {"runtime": "x", "version": "1", "device": "y", "outputs": [], "least_ms": {"fp32": 10**400}},
        {"runtime": "x", "version": "1", "device": "y", "outputs": [], "least_ms": {"fp32": "fast"}},
    ],
    ids=["number", "no runtime", "outputs", "huge", "words"],
)
def test_a_record_that_is_none_is_refused_with_the_manifest(answering, timing):
    path = answering.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"timings": [timing]}))
    with pytest.raises(QanetError, match="bad field timings"):
        open_bundle(answering.path)


@pytest.mark.parametrize("device", ["cpu", "onnxruntime"])
def test_fp16_is_refused_where_the_cpu_computes_fp32_only(answering, monkeypatch, device):
    monkeypatch.setattr(openvino, "floating_point", lambda *given: "fp32")
    answering.add_file("model.fp16.onnx", answering.graph("fp32"))
    answering.manifest["graphs"]["fp16"] = "model.fp16.onnx"
    with pytest.raises(QanetError, match="fp16 cannot run here: this CPU computes FP32 only"):
        open_engine(answering, device, "fp16", KERNEL_TAIL_OUTPUTS, 1)


def test_the_next_command_can_be_typed(answering, saturating, tmp_path):
    with_int8(answering)
    moved = answering.path.rename(tmp_path / "my host.qanet")
    with pytest.raises(WrongAnswers) as caught:
        open_engine(open_bundle(moved), "cpu", "int8", KERNEL_TAIL_OUTPUTS, 1)
    assert f"qanet build '{moved}' --precision int8" in caught.value.next_command
    (moved / "answers.npz").write_bytes(b"other")
    with pytest.raises(QanetError) as changed:
        open_engine(open_bundle(moved), "cpu", "fp32", KERNEL_TAIL_OUTPUTS, 1)
    assert changed.value.next_command == "take a fresh copy of the bundle"


def test_the_line_is_printed_whatever_python_was_told_about_warnings(answering, make_clip, boxes_file, capsys):
    answering.manifest["answers"] = {}
    answering.save()
    asked = ["parse", str(make_clip(2)), "--model", str(answering.path), "--boxes", str(boxes_file), "--device", "cpu"]
    for told in ("ignore", "error"):
        for file in verdicts.cache_folder().glob("*"):
            file.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter(told)
            assert qanet([*asked, "--quiet"]) == 0
        assert capsys.readouterr().err.count("brings no known answers") == 1
