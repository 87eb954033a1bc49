"""Which combinations are compared, what they are called, and over which one a speed-up is told."""

import pytest

from qanet.benchmarks.variants import list_variants, model_names, reference_of
from qanet.bundle import Bundle
from qanet.errors import QanetError


def other_size(bundle, hw=(32, 24)):
    return Bundle(bundle.path, {**bundle.manifest, "input_hw": list(hw)})


@pytest.mark.parametrize(
    ("precisions", "tails", "devices", "labels"),
    [
        (None, ["kernel"], ["cpu"], ["fp32", "fp16", "int8"]),
        (["int8"], ["kernel", "graph"], ["cpu"], ["int8 (kernel tail)", "int8 (graph tail)"]),
        (["fp32", "fp32"], ["graph"], ["cpu", "onnxruntime"], ["fp32 (cpu)", "fp32 (onnxruntime)"]),
    ],
)
def test_a_label_tells_what_differs(fake_bundle, precisions, tails, devices, labels):
    assert [v.label for v in list_variants([fake_bundle], precisions, tails, devices)] == labels


def test_models_of_one_name_are_told_apart(fake_bundle):
    assert model_names([fake_bundle]) == ["fake"]
    assert model_names([fake_bundle, other_size(fake_bundle)]) == ["fake 16x12", "fake 32x24"]
    assert model_names([fake_bundle, fake_bundle]) == ["fake 16x12 #1", "fake 16x12 #2"]
    variants = list_variants([fake_bundle, other_size(fake_bundle)], ["fp32"], ["kernel"], ["cpu"])
    assert [v.label for v in variants] == ["fake 16x12 fp32", "fake 32x24 fp32"]


def test_the_reference_is_the_same_models_fp32_with_the_kernel_tail(fake_bundle):
    variants = list_variants([fake_bundle, other_size(fake_bundle)], None, ["graph", "kernel"], ["cpu"])
    by_label = {v.label: v for v in variants}
    int8 = by_label["fake 32x24 int8 (graph tail)"]
    reference = reference_of(int8, variants)
    assert reference is not None and reference.label == "fake 32x24 fp32 (kernel tail)"
    assert reference_of(reference, variants) is None
    assert reference_of(int8, [int8]) is None


@pytest.mark.parametrize(("precision", "message"), [("fp12", "unknown precision"), ("bf16", "has no bf16 graph")])
def test_a_precision_that_is_not_to_be_had_is_refused(fake_bundle, precision, message):
    with pytest.raises(QanetError, match=message):
        list_variants([fake_bundle], [precision], ["kernel"], ["cpu"])


def test_a_precision_without_a_graph_names_the_command(fake_bundle):
    del fake_bundle.manifest["graphs"]["int8"]
    with pytest.raises(QanetError, match="has no int8 graph.*qanet build"):
        list_variants([fake_bundle], ["int8"], ["kernel"], ["cpu"])


def test_an_optional_precision_counts_where_the_bundle_has_its_graph(fake_bundle):
    fake_bundle.manifest["graphs"]["bf16"] = "bf16.onnx"
    found = list_variants([fake_bundle], None, ["kernel"], ["cpu"])
    assert [v.label for v in found] == ["fp32", "fp16", "int8", "bf16"]
    assert [v.label for v in list_variants([fake_bundle], ["bf16"], ["kernel"], ["cpu"])] == ["bf16"]
