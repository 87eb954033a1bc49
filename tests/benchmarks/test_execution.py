"""What an engine really computes in: its own word, and the census of the built engine that fits it."""

import pytest

from qanet.benchmarks.execution import describe_execution, execution_warning


def entry(precision, hint, share):
    census = {"multiply_add_shares": {"int8": share, "fp32": 1 - share}}
    return {"runtime": "fake", "precision": precision, "file": f"{precision}-{hint}", "hint": hint, "census": census}


def test_the_census_is_that_of_the_engine_with_the_same_type(fake_bundle, fake_engine):
    fake_bundle.manifest["engines"] = [entry("fp32", "f32", 0.0), entry("int8", "bf16", 0.5), entry("int8", "f32", 0.9)]
    engine = fake_engine("int8")
    engine.floating_point = "f32"
    execution = describe_execution(fake_bundle, engine)
    assert execution["multiply_add_shares"]["int8"] == 0.9 and execution["floating_point"] == "f32"
    engine.floating_point = "f16"
    assert describe_execution(fake_bundle, engine)["multiply_add_shares"] is None


def test_an_engine_that_does_not_tell(fake_bundle, fake_engine):
    execution = describe_execution(fake_bundle, fake_engine("fp16"))
    assert execution == {"runtime": "fake", "floating_point": None, "multiply_add_shares": None}


@pytest.mark.parametrize(
    ("precision", "floating_point", "words"),
    [
        ("fp16", "f32", "computed all of it in f32"),
        ("int8", "f32", "computed what is not INT8 in f32"),
        ("fp16", "bf16", None),
        ("fp32", "f32", None),
        ("fp16", None, None),
    ],
)
def test_a_precision_that_was_not_delivered_is_told(precision, floating_point, words):
    execution = {"runtime": "fake", "floating_point": floating_point, "multiply_add_shares": None}
    warning = execution_warning(precision, execution)
    assert warning is None if words is None else words in str(warning)
