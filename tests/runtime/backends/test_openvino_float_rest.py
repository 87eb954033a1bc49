"""OpenVINO: what the float layers of an INT8 engine compute in is what `qanet build` chose on this CPU."""

import json

import numpy as np
import pytest
from engine_graphs import HEIGHT, WIDTH
from int8_bundle import KERNEL_TAIL, make_int8_bundle

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.runtime.backends import openvino
from qanet.runtime.backends.openvino import (
    PRODUCTS,
    TYPE_NAMES,
    bundle_hint,
    executed_layers,
    float_rest_hints,
    openvino_core,
    openvino_hint,
)
from qanet.runtime.backends.select import open_engine

DEFAULT = openvino_hint(openvino_core(), "int8")
ALL = ("logits", "iou_scores", "quality")
needs_choice = pytest.mark.skipif(not float_rest_hints(openvino_core()), reason="this CPU has no BF16 in hardware")
CHOICES = ["f32", pytest.param("bf16", marks=needs_choice)]


def product_types(engine):
    """Types of the layers that multiply, from the graph that the engine executes."""
    return {layer.precision for layer in executed_layers(engine.compiled) if layer.kind in PRODUCTS}


@pytest.fixture
def built(tmp_path):
    """Builds an INT8 engine with a rest, and gives the bundle as opened afterwards."""

    def make(rest):
        path = make_int8_bundle(tmp_path)
        arguments = ["build", str(path), "--runtime", "openvino", "--precision", "int8", "--json"]
        assert qanet([*arguments, "--float-rest", rest]) == 0
        return open_bundle(path)

    return make


@pytest.fixture
def imports(monkeypatch):
    """Hints with which compiled files were opened; `refuse` makes OpenVINO refuse the next."""
    core = openvino_core()

    class Core:
        hints, refuse = [], False

        def __getattr__(self, name):
            return getattr(core, name)

        def import_model(self, data, device, config):
            self.hints.append(config["INFERENCE_PRECISION_HINT"])
            if self.refuse:
                raise RuntimeError("not a compiled model")
            return core.import_model(data, device, config)

    made = Core()
    monkeypatch.setattr(openvino, "openvino_core", lambda: made)
    return made


@pytest.mark.parametrize("rest", CHOICES)
def test_a_built_file_is_opened_with_what_was_chosen(built, imports, rest):
    bundle = built(rest)
    imports.hints.clear()  # a build opens what it built, to ask and to time it
    engine = open_engine(bundle, "cpu", "int8", KERNEL_TAIL)
    assert imports.hints == [rest] and engine.floating_point == rest
    assert product_types(engine) == {"int8", TYPE_NAMES[rest]}
    outputs = engine.run(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), np.ones(2))
    assert outputs["iou_scores"].shape == (2,)


@pytest.mark.parametrize("rest", CHOICES)
def test_a_file_that_is_refused_is_compiled_anew_with_what_was_chosen(built, imports, rest):
    bundle = built(rest)
    imports.hints.clear()
    imports.refuse = True
    engine = open_engine(bundle, "cpu", "int8", KERNEL_TAIL)
    assert (
        imports.hints == [rest]
        and engine.floating_point == rest
        and product_types(engine) == {"int8", TYPE_NAMES[rest]}
    )


@pytest.mark.parametrize("rest", CHOICES)
def test_other_outputs_are_compiled_with_what_was_chosen_for_these(built, imports, rest):
    bundle = built(rest)
    imports.hints.clear()
    engine = open_engine(bundle, "cpu", "int8", ALL)
    assert imports.hints == [] and engine.floating_point == rest and len(engine.outputs) == len(ALL)


@needs_choice
def test_a_file_compiled_for_one_type_runs_in_the_type_of_the_record(built):
    bundle = built("bf16")
    bundle.engines[0]["hint"] = "f32"
    assert product_types(open_engine(bundle, "cpu", "int8", KERNEL_TAIL)) == {"int8", "fp32"}


@pytest.mark.parametrize(
    "change",
    [{"cpu": "Another CPU [BF16]"}, {"version": "2019.1"}, {"runtime": "tensorrt"}, {"hint": "f64"}, {"hint": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_choice_made_elsewhere_or_unknown_here_is_not_taken(built, change):
    bundle = built("f32")
    bundle.engines[0].update(change)
    assert bundle_hint(bundle, "int8", KERNEL_TAIL) == DEFAULT


def test_the_record_of_the_same_outputs_goes_first(built):
    bundle = built("f32")
    other = json.loads(json.dumps(bundle.engines[0])) | {"file": "engines/a.blob", "outputs": list(ALL)}
    other["hint"] = DEFAULT
    bundle.manifest["engines"] = [other, *bundle.engines]
    assert bundle_hint(bundle, "int8", KERNEL_TAIL) == "f32"
    assert bundle_hint(bundle, "int8", ALL) == DEFAULT


def test_no_record_changes_what_other_precisions_compute_in(built):
    bundle = built("f32")
    bundle.engines[0] |= {"precision": "fp32", "hint": "bf16"}
    assert bundle_hint(bundle, "fp32", KERNEL_TAIL) == "f32"
    assert open_engine(bundle, "cpu", "fp32", KERNEL_TAIL).floating_point == "f32"
    assert bundle_hint(bundle, "fp16", KERNEL_TAIL) == openvino_hint(openvino_core(), "fp16")
