"""TensorRT's profiler on an engine of several plans: it follows into plans that are opened under it."""

import json
from collections import Counter

import pytest
from fake_tensorrt import INFORMATION, LAYERS_MS
from toy_engines import KERNEL_TAIL, people
from toy_plans import make_bundle_apart

from qanet.benchmarks.profile import layer_precisions, profile_tensorrt
from qanet.runtime.engines.tensorrt import engine_from_bundle
from qanet.runtime.engines.tensorrt_layers import merge_information


@pytest.fixture
def engine(graphs, tmp_path):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as opened:
        yield opened


def test_plans_open_before_and_opened_meanwhile_report_and_none_afterwards(engine):
    heard = Counter()
    for _ in range(3):
        engine.run(*people(2))
    assert engine.graph_batches == (2,)
    with engine.profiled(lambda layer, ms: heard.update([layer])):
        assert engine.graph_batches == ()
        for count in (1, 2, 4, 4, 4):
            engine.run(*people(count))
        assert heard == dict.fromkeys(LAYERS_MS, 5) and engine.graph_batches == ()
    for _ in range(3):
        engine.run(*people(4))
    assert heard == dict.fromkeys(LAYERS_MS, 5) and engine.graph_batches == (4,)


def test_the_report_of_a_profile_is_that_of_one_plan(engine):
    engine.prepare(4)
    crops, scores = people(1)
    profile = profile_tensorrt(engine, crops, scores, calls=3)
    assert profile.total_ms == pytest.approx(sum(LAYERS_MS.values()))


def test_information_is_that_of_the_open_plans(engine):
    with engine.profiled(lambda layer, ms: None) as information:
        assert information == INFORMATION  # one plan: word for word
    engine.prepare(2)
    with engine.profiled(lambda layer, ms: None) as information:
        assert json.loads(information) == json.loads(INFORMATION)  # two plans with the same layers


def test_layers_of_several_plans_are_told_once_by_the_smallest():
    def layer(name, kind):
        return {"Name": name, "LayerType": "conv", "Outputs": [{"Format/Datatype": kind}]}

    told = [
        json.dumps({"Layers": [layer("a", "Int8"), "bare"]}),
        None,
        json.dumps({"Layers": [layer("a", "Half"), layer("b\x1e", "Half"), "bare"]}),
    ]
    merged = merge_information(told)
    assert len(json.loads(merged)["Layers"]) == 3
    assert {name: kind for name, (kind, _) in layer_precisions(merged).items()} == {"a": "int8", "b\x1e": "fp16"}
    assert merge_information([]) is None and merge_information([None, "{}"]) == "{}"
