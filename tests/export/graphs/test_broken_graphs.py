"""ONNX files that cannot be built from: each is refused in one line, and the bundle stays as it was."""

import re

import pytest
from cpu_types import needs_16_bits
from engine_graphs import make_graph, needs_rtx, onnx

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.export.engines import source_graph


def truncated(model):
    data = model.SerializeToString()
    return data[: len(data) // 2]


def newer_opset(model):
    model.opset_import[0].version = 99
    return model.SerializeToString()


def newer_format(model):
    model.ir_version = 99
    return model.SerializeToString()


def unknown_operator(model):
    model.graph.node[0].op_type = "Teleport"
    return model.SerializeToString()


def foreign_operator(model):
    relu = next(node for node in model.graph.node if node.op_type in ("Relu", "Conv"))
    relu.op_type, relu.domain = "FusedConv", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def weights_elsewhere(model, location="weights.bin"):
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


BROKEN = [
    (truncated, "cannot read model.onnx as ONNX .* bytes.; next: export it again"),
    (newer_opset, "model.onnx is newer than the onnx installed here .expected opset .* or older, got opset 99"),
    (newer_format, "newer than the onnx installed here .*IR version 99"),
    (unknown_operator, "unknown operator Teleport at node"),
    (foreign_operator, "unknown operator com.microsoft.FusedConv at node"),
]


@pytest.mark.parametrize(("break_it", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_is_refused(tmp_path, break_it, message):
    (tmp_path / "model.onnx").write_bytes(break_it(make_graph()))
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("weights.bin", "lacks the file of its weights .expected weights.bin, got missing"),
        ("../secret.bin", "has weights outside its folder .expected .* inside, got ../secret.bin"),
        ("SECRET", "has weights outside its folder"),
        ("link.bin", "has weights outside its folder"),
        ("short.bin", "cut off|cannot read the weights"),
        ("", "has weights outside its folder"),
    ],
)
def test_weights_that_are_missing_or_elsewhere(tmp_path, location, message):
    folder, secret = tmp_path / "graphs", tmp_path / "secret.bin"
    folder.mkdir()
    secret.write_bytes(bytes(1 << 20))
    (folder / "link.bin").symlink_to(secret)
    (folder / "short.bin").write_bytes(bytes(10))
    place = str(secret) if location == "SECRET" else location
    (folder / "model.onnx").write_bytes(weights_elsewhere(make_graph(), place))
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(folder / "model.onnx")


def test_weights_beside_the_file_are_read(tmp_path):
    onnx.save(make_graph(), tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    whole, read = make_graph(), source_graph.load_graph(tmp_path / "model.onnx")
    assert (tmp_path / "w.bin").is_file()
    ours, theirs = (
        {t.name: onnx.numpy_helper.to_array(t).tolist() for t in m.graph.initializer} for m in (whole, read)
    )
    assert ours == theirs


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


RUNTIMES = [
    pytest.param("openvino", "fp16", marks=needs_16_bits),
    pytest.param("tensorrt-rtx", "fp32", marks=needs_rtx),
]


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
@pytest.mark.parametrize(
    ("break_it", "message"),
    [*BROKEN, (weights_elsewhere, "has weights outside the file itself .expected .* inside, got weights.bin")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bundle_of_it_builds_nothing_and_is_left_alone(tiny_bundle, capsys, break_it, message, runtime, precision):
    bundle = open_bundle(tiny_bundle)  # somebody else's: the hash is right, the graph is not
    bundle.add_file("model.onnx", break_it(onnx.load_model_from_string(bundle.graph("fp32"))))
    bundle.add_engine("engines/old.blob", b"old", {"runtime": "openvino", "precision": "fp32"})
    bundle.save()
    before = snapshot(tiny_bundle)
    assert qanet(["build", str(tiny_bundle), "--runtime", runtime, "--precision", precision]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error
    assert error.startswith("error: ") and snapshot(tiny_bundle) == before
