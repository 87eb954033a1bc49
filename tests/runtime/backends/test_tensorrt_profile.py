"""TensorRT's profiler through the engine: what it reports, that no graph runs under it, that it is taken off again."""

import json
import warnings
from collections import Counter

import numpy as np
import pytest
from fake_tensorrt import INFORMATION, LAYERS_MS
from toy_engines import DYNAMIC, KERNEL_TAIL, STATIC, make_bundle, network, people
from toy_plans import make_bundle_apart

from qanet.benchmarks.profile import layer_precisions, profile_tensorrt
from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle
from qanet.runtime.backends.tensorrt.plan import merge_information


class Heard(Counter):
    """Layers and how often each was reported."""

    def __call__(self, layer, ms):
        assert ms == LAYERS_MS[layer]
        self[layer] += 1


@pytest.fixture
def opened(graphs, tmp_path):
    """Opens a toy engine of these profiles; without a fallback from CUDA graphs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield lambda profiles=STATIC, **options: engine_from_bundle(
            make_bundle(tmp_path, profiles, **options), "fp16", KERNEL_TAIL
        )


def run(engine, count, times=1):
    crops, scores = people(count)
    for _ in range(times):
        np.testing.assert_allclose(engine.run(crops, scores)["logits"], network(crops, scores)["logits"], rtol=1e-6)


@pytest.mark.parametrize("profiles", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_every_run_in_the_block_reports_its_layers_and_none_outside(opened, profiles):
    heard = Heard()
    with opened(profiles) as engine:
        run(engine, 2, times=3)
        with engine.profiled(heard) as information:
            run(engine, 2, times=4)
            run(engine, 1)
        assert information == INFORMATION and heard == dict.fromkeys(LAYERS_MS, 5)
        run(engine, 2, times=3)
        assert heard == dict.fromkeys(LAYERS_MS, 5)


def test_recorded_graphs_make_room_and_are_recorded_anew(opened, graphs):
    with opened() as engine:
        run(engine, 4, times=3)
        assert engine.graph_batches == (4,)
        with engine.profiled(lambda layer, ms: None):
            assert engine.graph_batches == ()
            run(engine, 4, times=3)
        run(engine, 4, times=2)
        assert engine.graph_batches == (4,)


def test_a_block_that_fails_takes_the_profiler_off_too(opened):
    heard = Heard()
    with opened() as engine:
        with pytest.raises(ValueError, match="broke"), engine.profiled(heard):
            run(engine, 1)
            raise ValueError("broke")
        run(engine, 1, times=3)
        assert heard == dict.fromkeys(LAYERS_MS, 1) and engine.graph_batches == (1,)


def test_an_engine_without_an_inspector_tells_nothing(opened):
    with opened(fail=["create_engine_inspector"]) as engine, engine.profiled(lambda layer, ms: None) as information:
        assert information is None


def test_a_closed_engine_has_no_profile(opened):
    engine = opened()
    engine.close()
    with pytest.raises(QanetError, match="closed"), engine.profiled(lambda layer, ms: None):
        pass


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
