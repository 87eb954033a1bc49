"""`qanet build --float-rest`: the float layers of an INT8 engine get the type that was measured to be faster here."""

import itertools
import json
import sys

import pytest
from cpu_types import FP16
from engine_graphs import HEIGHT, WIDTH
from int8_bundle import KERNEL_TAIL, make_int8_bundle

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.calib.latency import samples_in_turns
from qanet.errors import QanetError
from qanet.export.building import timing as build_float_rest
from qanet.export.building.timing import choose_float_rest, time_graph
from qanet.runtime.backends.openvino import float_rest_hints, openvino_core

needs_bf16 = pytest.mark.skipif(not float_rest_hints(openvino_core()), reason="this CPU has no BF16 in hardware")
FP32_FASTER, BF16_FASTER = {"bf16": [7.4, 7.5, 7.3], "f32": [6.8, 6.7, 6.9]}, {"bf16": [5.0], "f32": [6.0]}


@pytest.fixture
def bf16_cpu(monkeypatch):
    """A CPU with BF16, whatever this one has; the next build measures what it is told."""
    monkeypatch.setattr(build_float_rest, "float_rest_hints", lambda core: ("bf16", "f32"))
    return lambda samples: monkeypatch.setattr(build_float_rest, "time_graph", lambda *asked: samples)


@pytest.fixture
def bundle(tmp_path):
    return make_int8_bundle(tmp_path)


def never(*arguments):
    pytest.fail("it was measured")


def build(bundle, *arguments, precision="int8"):
    return qanet(["build", str(bundle), "--runtime", "openvino", "--precision", precision, *arguments])


@pytest.mark.parametrize(
    ("samples", "chosen"),
    [
        (FP32_FASTER, "f32"),
        (BF16_FASTER, "bf16"),
        ({"bf16": [5.0], "f32": [5.0]}, "f32"),
        ({"bf16": [4.95], "f32": [5.0]}, "f32"),  # by 1%: FP32 is the more exact
        ({"bf16": [4.85], "f32": [5.0]}, "bf16"),
        ({"bf16": [90.0, 80.0, 4.0], "f32": [5.0, 5.1, 5.2]}, "bf16"),  # interrupted calls decide nothing
    ],
)
def test_the_faster_is_chosen_by_the_minima(bf16_cpu, samples, chosen):
    rest = choose_float_rest(b"graph", None, (8, 8), "auto", lambda *asked: samples)
    assert (rest.hint, rest.by, rest.rounds) == (chosen, "measurement", len(samples["f32"]))


def test_what_is_measured_is_the_graph_with_the_outputs_of_the_engine(bf16_cpu):
    asked = []

    def measure(*arguments):
        asked.append(arguments)
        return BF16_FASTER

    choose_float_rest(b"graph", KERNEL_TAIL, (8, 6), "auto", measure)
    assert asked == [(b"graph", KERNEL_TAIL, (8, 6), ("bf16", "f32"))]


class Clock:
    """Seconds; a call of `spend` takes some."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def __call__(self):
        return self.now

    def spend(self, name, seconds):
        self.called.append(name)
        self.now += seconds


@pytest.mark.parametrize(("seconds_a_call", "rounds"), [(0.001, 60), (0.05, 20), (3.0, 9)])
def test_rounds_are_in_turns_and_end_with_the_time(seconds_a_call, rounds):
    clock = Clock()
    calls = {"a": lambda: clock.spend("a", seconds_a_call), "b": lambda: clock.spend("b", seconds_a_call)}
    samples = samples_in_turns(calls, seconds=2.0, clock=clock)
    assert {name: len(values) for name, values in samples.items()} == {"a": rounds, "b": rounds}
    assert samples["a"] == pytest.approx([1e3 * seconds_a_call] * rounds)
    turns = itertools.islice(itertools.cycle(("ab", "ba")), rounds)
    assert "".join(clock.called) == "abab" + "".join(turns)


@pytest.mark.parametrize("samples", [FP32_FASTER, pytest.param(BF16_FASTER, marks=needs_bf16)], ids=["f32", "bf16"])
def test_choice_and_minima_stand_in_the_manifest_and_the_census_tells(bundle, bf16_cpu, capsys, samples):
    bf16_cpu(samples)
    assert build(bundle, "--verify") == 0
    chosen, shown = ("f32", "fp32") if samples is FP32_FASTER else ("bf16", "bf16")
    (entry,) = open_bundle(bundle).engines
    least = {"bf16": 7.3, "f32": 6.7} if samples is FP32_FASTER else {"bf16": 5.0, "f32": 6.0}
    assert entry["float_rest"] == {
        "chosen": chosen,
        "by": "measurement",
        "least_ms": least,
        "rounds": len(samples["f32"]),
    }
    assert entry["hint"] == entry["options"]["INFERENCE_PRECISION_HINT"] == chosen
    assert {layer["name"]: layer["precision"] for layer in entry["census"]["compute"]} == {
        **dict.fromkeys(("stem", "body", "classify"), "int8"),
        "iou": shown,
    }
    assert f"layers that are not INT8 compute in {chosen} (bf16 {least['bf16']:.2f} ms" in capsys.readouterr().err


def test_builds_differ_in_engines_and_what_was_measured_of_them_alone(bundle, bf16_cpu, tmp_path):
    made = []
    for name, milliseconds in (("one", 6.1), ("two", 6.3)):
        bf16_cpu({"bf16": [9.0], "f32": [milliseconds]})
        assert build(bundle, "--output", str(tmp_path / name), precision="fp32,int8") == 0
        folder = tmp_path / f"{name}.qanet"
        made.append({p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix != ".blob" and p.is_file()})
    manifests = [json.loads(files.pop("manifest.json")) for files in made]
    assert made[0] == made[1] and made[0].keys() - {"model.int8-no-vnni.onnx"} == {
        "model.onnx",
        "model.int8.onnx",
        "answers.npz",
    }
    least = []
    for manifest in manifests:
        least += [e["float_rest"].pop("least_ms")["f32"] for e in manifest["engines"] if e["precision"] == "int8"]
        assert manifest.pop("timings")  # measured too
        manifest["name"], manifest["files"] = "", {n: f for n, f in manifest["files"].items() if "engines/" not in n}
    assert manifests[0] == manifests[1] and least == [6.1, 6.3]


@pytest.mark.parametrize("asked", ["f32", pytest.param("bf16", marks=needs_bf16)])
def test_a_forced_type_is_taken_unmeasured(bundle, monkeypatch, asked):
    monkeypatch.setattr(build_float_rest, "time_graph", never)
    assert build(bundle, "--float-rest", asked, precision="fp32,int8") == 0
    fp32, int8 = open_bundle(bundle).engines
    assert int8["float_rest"] == {"chosen": asked, "by": "option"} and int8["hint"] == asked
    assert fp32["hint"] == "f32" and "float_rest" not in fp32


def test_on_a_cpu_without_bf16_nothing_is_measured(bundle, monkeypatch, capsys):
    monkeypatch.setattr(build_float_rest, "float_rest_hints", lambda core: ())
    monkeypatch.setattr(build_float_rest, "time_graph", never)
    assert build(bundle) == 0
    (entry,) = open_bundle(bundle).engines
    assert "float_rest" not in entry and "layers that are not INT8" not in capsys.readouterr().err
    assert build(bundle, "--float-rest", "bf16") == 2
    assert "this CPU has no BF16 (expected auto or f32, got --float-rest bf16)" in capsys.readouterr().err
    assert build(bundle, "--float-rest", "f32") == 0


@pytest.mark.parametrize("precision", ["fp32", FP16])
def test_other_precisions_are_not_measured_and_have_no_rest(bundle, monkeypatch, capsys, precision):
    monkeypatch.setattr(build_float_rest, "time_graph", never)
    assert build(bundle, precision=precision) == 0
    before = (bundle / "manifest.json").read_bytes()
    assert build(bundle, "--float-rest", "f32", precision=precision) == 2
    error = capsys.readouterr().err
    assert f"--float-rest is for INT8 engines of OpenVINO (expected int8 of openvino, got {precision} of" in error
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("default", "capabilities", "hints"),
    [
        ("bf16", ["FP32", "BF16", "INT8"], ("bf16", "f32")),
        ("bf16", ["FP32", "BF16", "FP16"], ("bf16", "f32")),
        ("f32", ["FP32", "BF16"], ()),  # listed and only emulated
        ("f32", ["FP32"], ()),
        ("f16", ["FP32", "FP16"], ()),
    ],
)
def test_there_is_a_choice_where_the_cpu_has_bf16(default, capabilities, hints):
    from openvino import Type

    class Core:
        def get_property(self, device, name):
            return capabilities if name == "OPTIMIZATION_CAPABILITIES" else getattr(Type, default)

    assert float_rest_hints(Core()) == hints


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_without_openvino_the_choice_says_how_to_install_it(monkeypatch, asked):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(QanetError, match="OpenVINO is not installed.*pip install openvino"):
        choose_float_rest(b"graph", None, (8, 8), asked, never)


@needs_bf16
def test_a_graph_is_really_timed_both_ways(graphs):
    samples = time_graph(graphs["int8"], KERNEL_TAIL, (HEIGHT, WIDTH), ("bf16", "f32"))
    assert samples.keys() == {"bf16", "f32"} and len(samples["bf16"]) == len(samples["f32"]) >= 9
    assert all(value > 0 for values in samples.values() for value in values)


def test_a_graph_that_openvino_cannot_compile_is_refused(graphs):
    import onnx

    model = onnx.load_model_from_string(graphs["int8"])
    next(node for node in model.graph.node if node.op_type == "Gemm").op_type = "NoSuchOperator"
    with pytest.raises(QanetError, match="NoSuchOperator"):
        time_graph(model.SerializeToString(), KERNEL_TAIL, (HEIGHT, WIDTH), ("f32",))
