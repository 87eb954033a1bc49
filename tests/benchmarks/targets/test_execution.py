"""What an engine really computes in: its own word, and the census of the built engine that fits it."""

import pytest

from qanet.benchmarks.check import count_products, describe_execution, execution_warning, precision_refusal
from qanet.benchmarks.schema import Execution


def entry(precision, hint, share):
    census = {"multiply_add_shares": {"int8": share, "fp32": 1 - share}}
    return {"runtime": "fake", "precision": precision, "file": f"{precision}-{hint}", "hint": hint, "census": census}


def test_the_census_is_that_of_the_engine_with_the_same_type(fake_bundle, fake_engine):
    fake_bundle.manifest["engines"] = [entry("fp32", "f32", 0.0), entry("int8", "bf16", 0.5), entry("int8", "f32", 0.9)]
    engine = fake_engine("int8")
    engine.floating_point = "f32"
    execution = describe_execution(fake_bundle, engine)
    assert execution.multiply_add_shares["int8"] == 0.9 and execution.floating_point == "f32"
    engine.floating_point = "f16"
    assert describe_execution(fake_bundle, engine).multiply_add_shares is None


def test_an_engine_that_does_not_tell(fake_bundle, fake_engine):
    execution = describe_execution(fake_bundle, fake_engine("fp16"))
    assert execution == Execution("fake", "fp16")
    assert precision_refusal("fp16", execution) is None
    assert execution_warning("fp16", execution) == "fp16: fake does not report the precision of its layers"


@pytest.mark.parametrize(
    ("precision", "floating_point", "words"),
    [
        ("fp16", "f32", "ran all layers in f32"),
        ("int8", "f32", "ran all layers that are not INT8 in f32"),
        ("bf16", "f32", "ran all layers in f32"),
        ("fp16", "bf16", None),
        ("fp32", "f32", None),
        ("fp16", None, "does not report"),
        ("fp32", None, None),
    ],
)
def test_a_precision_that_was_not_delivered_is_told(precision, floating_point, words):
    execution = Execution("fake", floating_point=floating_point)
    warning = execution_warning(precision, execution)
    assert warning is None if words is None else words in str(warning)


@pytest.mark.parametrize(
    ("precision", "shares", "products", "words"),
    [
        ("fp32", {"fp32": 1.0}, None, None),
        ("fp32", {"fp32": 0.9, "bf16": 0.1}, None, "not built in fp32: its multiply-adds run in fp32 90%, bf16 10%"),
        ("fp16", {"fp32": 1.0, "bf16": 0.0}, None, "not built in fp16"),
        ("fp16", {"bf16": 0.9, "fp32": 0.1}, None, None),
        ("int8", {"int8": 0.93, "bf16": 0.07}, None, None),
        ("int8", {"int8": 0.2, "fp32": 0.8}, None, "not built in int8: its multiply-adds run in int8 20%, fp32 80%"),
        ("int8", None, {"fp32": 40}, "its matrix products run in fp32 100%"),
        ("int8", None, {"int8": 40, "bf16": 3}, None),
        ("int8", {"int8": 0.0}, None, None),
        ("int8", None, None, None),
    ],
)
def test_what_was_not_built_as_asked_is_refused(precision, shares, products, words):
    execution = Execution("fake", floating_point="f32", multiply_add_shares=shares, products=products)
    refusal = precision_refusal(precision, execution)
    assert refusal is None if words is None else words in str(refusal)


def test_an_open_engine_tells_what_its_products_run_in(shared_tiny_bundle):
    pytest.importorskip("openvino")
    from qanet.bundle import open_bundle
    from qanet.runtime.engines.select import open_engine

    engine = open_engine(open_bundle(shared_tiny_bundle), "cpu", "fp32", ("logits", "iou_scores"), 1)
    assert count_products(engine) == {"fp32": 1}
