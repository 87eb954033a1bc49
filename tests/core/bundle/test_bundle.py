"""A bundle that was changed, cut, or made by somebody else is refused before anything of it is used."""

import json
import os
import shutil

import numpy as np
import pytest

import qanet.bundle.bundle
from qanet.bundle import SCHEMA_VERSION, copy_bundle, create, open_bundle, safe_name, writable_copy
from qanet.bundle.half_weights import with_float_weights, with_half_weights
from qanet.errors import QanetError


def edit_manifest(path, **fields):
    manifest = json.loads((path / "manifest.json").read_text()) | fields
    (path / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


def test_what_was_written_is_read_back(tiny_bundle, tiny_graph):
    bundle = open_bundle(tiny_bundle)
    bundle.verify()
    assert bundle.graph("fp32") == tiny_graph == bundle.read("model.onnx")
    assert (bundle.name, bundle.input_hw, bundle.labels.name) == ("tiny", (64, 64), "ccp13")
    assert (bundle.qam_weights, bundle.threshold, bundle.engines) == ((1, 0.5, 3), 0.2, [])


def test_a_bundle_is_found_by_its_name_beside_the_current_folder(tiny_bundle, monkeypatch):
    monkeypatch.chdir(tiny_bundle.parent)
    assert open_bundle("tiny").name == open_bundle("tiny.qanet/").name == "tiny"


def test_a_changed_byte_is_found(tiny_bundle):
    path = tiny_bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(QanetError, match="model.onnx was changed after it was made .expected sha256 .*; next: take a"):
        open_bundle(tiny_bundle).graph("fp32")


def test_a_truncated_file_tells_both_sizes(tiny_bundle):
    path = tiny_bundle / "model.onnx"
    size = path.stat().st_size
    os.truncate(path, 100)
    with pytest.raises(QanetError, match=rf"of 100 bytes \({size} in the manifest\)"):
        open_bundle(tiny_bundle).verify()


def test_a_missing_file_is_named(tiny_bundle):
    (tiny_bundle / "model.onnx").unlink()
    with pytest.raises(QanetError, match="lacks model.onnx, which its manifest names"):
        open_bundle(tiny_bundle).verify()


@pytest.mark.parametrize("file", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_file_name_that_leads_out_is_refused(tiny_bundle, file):
    (tiny_bundle.parent / "secret").write_text("secret")
    files = {"model.onnx": {"sha256": "0", "bytes": 1}, file: {"sha256": "0", "bytes": 6}}
    edit_manifest(tiny_bundle, files=files)
    with pytest.raises(QanetError, match="leads out of the bundle"):
        open_bundle(tiny_bundle).read(file)


def test_a_link_that_leads_out_is_refused(tiny_bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    shutil.move(tiny_bundle / "model.onnx", outside)
    (tiny_bundle / "model.onnx").symlink_to(outside)
    with pytest.raises(QanetError, match="'model.onnx' is a link that leads out of the bundle .got .*outside.onnx"):
        open_bundle(tiny_bundle).graph("fp32")


def test_a_newer_schema_asks_for_an_upgrade(tiny_bundle):
    edit_manifest(tiny_bundle, schema_version=SCHEMA_VERSION + 1)
    expected = f"schema {SCHEMA_VERSION} or older, got schema {SCHEMA_VERSION + 1}.; next: pip install --upgrade"
    with pytest.raises(QanetError, match=expected):
        open_bundle(tiny_bundle)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", "null"], ids=["empty", "cut", "list", "not utf-8", "null"])
def test_a_manifest_that_is_not_an_object_is_refused(tiny_bundle, text):
    (tiny_bundle / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(QanetError, match="cannot be read|is not an object"):
        open_bundle(tiny_bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("labels", None),
        ("files", None),
        ("graphs", []),
        ("schema_version", "1"),
        ("input_hw", [64]),
        ("input_hw", ["64", "64"]),
        ("input_hw", [0, 64]),
        ("files", {"model.onnx": "abc"}),
        ("graphs", {"fp32": "other.onnx"}),
        ("qam_weights", [1, 2]),
        ("pixel_score_threshold", 1.5),
        ("engines", {}),
        ("engines", [{"runtime": "openvino"}]),
        ("accuracy", []),
        ("made", "by hand"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tiny_bundle, field, value):
    edit_manifest(tiny_bundle, **{field: value})
    with pytest.raises(QanetError, match=f"manifest.json: bad field {field} .expected .*, got "):
        open_bundle(tiny_bundle)


def test_unknown_labels_are_named(tiny_bundle):
    edit_manifest(tiny_bundle, labels="coco")
    with pytest.raises(QanetError, match="unknown label set 'coco'"):
        open_bundle(tiny_bundle)


def test_a_precision_that_is_not_there_tells_how_to_make_it(tiny_bundle):
    message = f"has no int8 graph .expected one of fp32, got int8.; next: qanet build {tiny_bundle} --precision int8"
    with pytest.raises(QanetError, match=message):
        open_bundle(tiny_bundle).graph("int8")
    with pytest.raises(QanetError, match="has no file 'other.onnx' .expected one of model.onnx"):
        open_bundle(tiny_bundle).read("other.onnx")


def test_what_is_no_bundle_is_told_from_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(QanetError, match="no bundle 'folder' .*got something else"):
        open_bundle("folder")
    with pytest.raises(QanetError, match="no bundle 'nowhere' .*got nothing"):
        open_bundle("nowhere")


def test_a_shipped_bundle_is_copied_before_it_is_built_into(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(qanet.bundle.bundle, "SHIPPED", tiny_bundle.parent.resolve())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    shipped = open_bundle("tiny")
    assert shipped.is_shipped
    copy = writable_copy(shipped)
    assert copy.path.resolve() == work / "tiny.qanet" and not (work / ".tiny.qanet.new.partial").exists()
    copy.add_engine("engines/e.blob", b"engine", {"runtime": "openvino", "precision": "fp32"})
    copy.save()
    copy.verify()
    assert [e["file"] for e in writable_copy(shipped).engines] == ["engines/e.blob"]  # not copied again
    assert not (tiny_bundle / "engines").exists()


def test_a_package_installed_as_links_is_not_built_into_either(tiny_bundle, tmp_path, monkeypatch):
    (tmp_path / "links").symlink_to(tiny_bundle.parent)
    monkeypatch.setattr(qanet.bundle.bundle, "SHIPPED", tmp_path / "links")
    assert open_bundle("tiny").is_shipped


def test_a_bundle_of_ones_own_is_written_in_place(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert writable_copy(bundle) is bundle


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_copy_never_replaces_what_is_no_bundle(tiny_bundle, tmp_path, kind):
    target = tmp_path / "mine.qanet"
    kept = target / "thesis.txt" if kind == "folder" else target
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(QanetError, match="mine.qanet exists and is not a bundle"):
        copy_bundle(open_bundle(tiny_bundle), target)
    assert kept.read_text() == "years of work"


def test_a_write_that_fails_leaves_the_old_manifest(tiny_bundle, monkeypatch):
    bundle, before = open_bundle(tiny_bundle), sorted(os.listdir(tiny_bundle))
    old = (tiny_bundle / "manifest.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    bundle.manifest["accuracy"] = {"fp32": {"miou": 0.5}}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QanetError, match="could not write .*manifest.json .*No space left on device"):
        bundle.save()
    assert (tiny_bundle / "manifest.json").read_bytes() == old and sorted(os.listdir(tiny_bundle)) == before


def test_an_engine_of_the_same_file_is_replaced(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    for data in (b"old", b"new"):
        bundle.add_engine("e.plan", data, {"runtime": "tensorrt", "precision": "fp16", "data": data.decode()})
    assert [e["data"] for e in bundle.engines] == ["new"] and bundle.read("e.plan") == b"new"


def test_a_new_bundle_is_named_after_its_folder(tmp_path):
    assert create(tmp_path / "lite.qanet").name == "lite"
    assert safe_name("sm_86 + RTX/4090") == "sm_86-RTX-4090"


def test_half_weights_are_an_onnx_graph_of_half_the_size_and_come_back(tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).normal(size=(16, 8, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[1,8,6,6] x) => (float[1,16,4,4] y) { y = Conv(x, weight, bias) }""")
    bias = np.arange(16, dtype=np.float32) / 3
    model.graph.initializer.extend(map(onnx.numpy_helper.from_array, (weight, bias), ("weight", "bias")))
    plain = model.SerializeToString()
    half = with_half_weights(plain)
    assert len(half) < 0.6 * len(plain) and with_half_weights(plain) == half
    back = onnx.load_model_from_string(with_float_weights(half))
    values = {t.name: onnx.numpy_helper.to_array(t) for t in back.graph.initializer}
    assert (values["weight"] == weight.astype(np.float16).astype(np.float32)).all() and (values["bias"] == bias).all()
    assert [node.op_type for node in back.graph.node] == ["Conv"]
    x = {"x": np.ones((1, 8, 6, 6), np.float32)}
    outputs = [
        runtime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, x)[0]
        for data in (half, back.SerializeToString())
    ]
    assert (outputs[0] == outputs[1]).all()
    bundle = create(
        tmp_path / "b.qanet",
        labels="personbox1",
        input_hw=[32, 32],
        graphs={"fp32": "model.onnx"},
        made={"weights": "fp16"},
    )
    bundle.add_file("model.onnx", half)
    bundle.save()
    assert open_bundle(bundle.path).graph("fp32") == with_float_weights(half)
    assert open_bundle(bundle.path).read("model.onnx") == half


def test_a_weight_beyond_fp16_is_named():
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[300] x) => (float[300] y) { y = Mul(x, huge) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(300, 1e6, np.float32), "huge"))
    with pytest.raises(QanetError, match="huge overflows FP16"):
        with_half_weights(model.SerializeToString())
