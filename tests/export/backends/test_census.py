"""The census of an engine: what its layers compute in, weighed, stored and held against what was asked."""

import json

import pytest

from qanet.errors import QanetError
from qanet.export.backends.census import Census, EngineLayer, check_delivered, take_census
from qanet.export.graphs.source import ComputeNode


def some_census() -> Census:
    nodes = {"a": ComputeNode("Conv", 60), "b": ComputeNode("Conv", 30), "c": ComputeNode("Gemm", 10)}
    layers = [
        EngineLayer("prepare a", ("a",), "fp32", quantizes=True),
        EngineLayer("a + relu", ("a", "relu"), "int8", computes=True),
        EngineLayer("b", ("b",), "fp16", computes=True),
        EngineLayer("c and others", ("c",), "fp32", product="fp16"),
        EngineLayer("Reformat 1", (), "fp16", moves=True),
    ]
    return take_census(layers, nodes, "a note")


def test_census_counts_layers_and_weighs_them_by_their_arithmetic():
    census = some_census()
    assert [(layer.name, layer.precision) for layer in census.compute] == [("a", "int8"), ("b", "fp16"), ("c", "fp16")]
    assert census.multiply_add_shares == {"int8": 0.6, "fp8": 0.0, "fp16": 0.4, "bf16": 0.0, "fp32": 0.0, "other": 0.0}
    assert census.layer_shares["fp16"] == pytest.approx(0.4)
    assert (census.reformats, census.requantizations) == (1, 1)


def test_census_survives_json_and_refuses_what_is_none():
    census = some_census()
    assert Census.from_json(json.loads(json.dumps(census.to_json()))) == census
    for broken in ({}, {**census.to_json(), "compute": [{"name": "a"}]}, {**census.to_json(), "layers": None}):
        with pytest.raises(QanetError, match="not a precision census"):
            Census.from_json(broken)


@pytest.mark.parametrize(
    ("precision", "keep", "named"),
    [
        ("int8", (), "1 of 2 compute layers: b .fp16."),
        ("int8", ("b",), None),
        ("fp16", (), "1 of 3 compute layers: a .int8."),
        ("fp32", (), "3 of 3 compute layers: a .int8., b .fp16., c .fp16."),
        ("fp8", (), "2 of 2 compute layers: a .int8., b .fp16."),
        ("int8", ("a", "b"), "no layer that could be in int8 .expected convolutions, got all 2 left wider"),
        ("fp64", (), "unknown precision"),
    ],
)
def test_asked_but_not_delivered_names_the_layers(precision, keep, named):
    if named is None:
        return check_delivered(some_census(), precision, keep=keep)
    with pytest.raises(QanetError, match=named):
        check_delivered(some_census(), precision, keep=keep)


def test_a_layer_that_no_engine_layer_names_is_not_taken_on_trust():
    census = take_census([EngineLayer("x", ("other",), "int8", computes=True)], {"a": ComputeNode("Conv", 1)})
    with pytest.raises(QanetError, match="a .other."):
        check_delivered(census, "int8")
    with pytest.raises(QanetError, match="no layer that could be in int8"):
        check_delivered(take_census([], {}), "int8")
