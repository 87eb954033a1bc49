"""TensorRT: which engine of a bundle fits this GPU and library, chosen before anything is loaded."""

import sys

import pytest
from fake_tensorrt import tensorrt_module
from toy_engines import ALL_OUTPUTS, KERNEL_TAIL, make_bundle

from qanet.errors import QanetError
from qanet.runtime.backends import select
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle


@pytest.mark.parametrize(
    "entry, asked, words",
    [
        ({"targets": ["sm_86"]}, {}, "for this GPU (expected sm_87, got sm_86)"),
        ({"version": "10.13.3"}, {}, "for tensorrt 10.3.0 (expected 10.3.0, got 10.13.3)"),
        ({"precision": "fp32"}, {}, "in fp16 (expected fp16, got fp32)"),
        ({"runtime": "openvino"}, {}, "no tensorrt engine at all (expected tensorrt, got openvino)"),
        ({}, {"outputs": ALL_OUTPUTS}, "--precision fp16 --runtime tensorrt --tail graph"),
        ({"version": "10.1.0", "options": {"engine_host_code_allowed": "true"}}, {}, "machine code of its own"),
        ({"version": "11.0.0", "options": {"engine_host_code_allowed": "true"}}, {}, "got 11.0.0"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_unread(machine, tmp_path, entry, asked, words):
    with pytest.raises(QanetError) as caught:
        engine_from_bundle(make_bundle(tmp_path, **entry), "fp16", asked.get("outputs", KERNEL_TAIL))
    assert words in str(caught.value) and "qanet build" in caught.value.next_command
    assert not machine.calls  # no context, nothing allocated, nothing deserialised


def test_a_changed_file_is_refused_unread(machine, tmp_path):
    made = make_bundle(tmp_path)
    made.save()
    (made.path / "engines/toy.plan").write_bytes(b"other")
    with pytest.raises(QanetError, match="changed after it was made"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)
    assert not machine.calls


def test_a_machine_without_the_libraries_says_what_to_install(machine, tmp_path, monkeypatch):
    with pytest.raises(QanetError, match="no GPU 1"):
        engine_from_bundle(make_bundle(tmp_path), "fp16", index=1)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(QanetError, match="TensorRT is not installed"):
        engine_from_bundle(make_bundle(tmp_path), "fp16")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.delattr(sys.modules["pycuda"], "driver")
    with pytest.raises(QanetError, match="PyCUDA or the NVIDIA driver is missing"):
        engine_from_bundle(make_bundle(tmp_path), "fp16")


def test_a_version_compatible_engine_runs_on_a_newer_library_when_allowed(machine, tmp_path):
    made = make_bundle(tmp_path, version="10.1.0", options={"engine_host_code_allowed": "true"})
    engine_from_bundle(made, "fp16", KERNEL_TAIL, allow_host_code=True).close()
    assert machine.host_code is True
    engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL).close()
    assert machine.host_code is False


def test_tensorrt_rtx_is_taken_where_its_engine_is(machine, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt_module(machine, "tensorrt_rtx", "1.7.1.116"))
    made = make_bundle(tmp_path, runtime="tensorrt-rtx", version="1.7.1.116", targets=["sm_86", "sm_87"])
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        assert (engine.runtime, engine.precision, engine.outputs) == ("tensorrt-rtx", "fp16", KERNEL_TAIL)
    with pytest.raises(QanetError, match="--runtime tensorrt-rtx --target sm_87"):
        engine_from_bundle(made, "int8", KERNEL_TAIL)


def test_auto_takes_the_fastest_precision_that_was_built(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(select, "has_cuda", lambda: True)
    made = make_bundle(tmp_path)
    made.manifest["graphs"] = {"int8": "toy.int8.onnx", "fp16": "toy.fp16.onnx"}
    with select.open_engine(made, "auto", "auto", KERNEL_TAIL) as engine:
        assert engine.precision == "fp16"
