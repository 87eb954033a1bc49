"""TensorRT: static buckets run as CUDA graphs from their second batch on, with the same rows, nothing left behind."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
from toy_engines import (
    ALL_OUTPUTS,
    DYNAMIC,
    HEIGHT,
    KERNEL_TAIL,
    STATIC,
    WIDTH,
    assert_threads_take_turns,
    make_bundle,
    network,
    people,
)

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle
from qanet.runtime.cuda.crop import queue_crops
from qanet.runtime.cuda.gpu_context import fetch
from qanet.runtime.kernels import choose_kernels

COUNTS = (1, 3, 2, 4, 3, 1, 8, 7, 2, 5, 1, 3)  # in buckets of 1, 2, 4 and 8: each more than twice


def assert_rows(engine, count, outputs=KERNEL_TAIL):
    crops, scores = people(count)
    got, expected = engine.run(crops, scores), network(crops, scores)
    for name in outputs:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


@pytest.fixture(autouse=True)
def no_warnings():
    """A fallback warns; a test that wants one says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("outputs", [KERNEL_TAIL, ALL_OUTPUTS], ids=["kernel", "graph"])
def test_each_bucket_is_recorded_and_gives_its_own_rows(graphs, tmp_path, outputs):
    with engine_from_bundle(make_bundle(tmp_path, STATIC, outputs), "fp16", outputs) as engine:
        assert engine.graph_batches == ()
        for count in COUNTS:
            assert_rows(engine, count, outputs)
        assert engine.graph_batches == (1, 2, 4, 8)
    assert not graphs.captures


def test_a_dynamic_profile_stays_plain(graphs, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path, DYNAMIC), "fp16", KERNEL_TAIL) as engine:
        for count in (3, 3, 3, 1):
            assert_rows(engine, count)
        assert engine.graph_batches == ()


def test_outputs_that_stay_on_the_gpu_come_of_the_graph_too(kernels, graphs, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    boxes = np.array([[1, 2, 11, 16], [5, 3, 17, 20], [20, 8, 33, 27]], np.float32)
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        for shift in range(4):
            moved = boxes + shift
            fill = partial(queue_crops, image=image, boxes=moved)
            with engine.run_on_device(3, np.ones(3, np.float32), fill) as outputs:
                got = fetch(engine.gpu, outputs["logits"])
            expected = network(choose_kernels().crop_people(image, moved, (HEIGHT, WIDTH)), None)["logits"]
            np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert engine.graph_batches == (4,)


def test_threads_take_turns_with_graphs(graphs, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_threads_take_turns(engine, (1, 2, 3, 5))
        assert engine.graph_batches == (1, 2, 4, 8)


@pytest.mark.parametrize("fault", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_recording_that_the_driver_refuses_leaves_the_bucket_plain(graphs, tmp_path, fault):
    graphs.graph_fault = fault
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_rows(engine, 1)
        with pytest.warns(RuntimeWarning, match="no CUDA graph, plain launches instead: CUDA failed while"):
            assert_rows(engine, 1)
        assert_rows(engine, 1)  # told once
        assert engine.graph_batches == () and not graphs.captures


def test_a_graph_that_fails_later_is_an_error_of_its_batch(graphs, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        for _ in range(2):
            assert_rows(engine, 2)
        graphs.graph_fault = "cuGraphLaunch"
        with pytest.raises(QanetError, match="CUDA failed while launching a graph .*CAPTURE_INVALIDATED"):
            assert_rows(engine, 2)
        assert not graphs.pending and graphs.calls["push"] == graphs.calls["pop"]
        graphs.graph_fault = None
        assert_rows(engine, 2)


def test_an_execution_that_fails_while_it_is_recorded_is_told(graphs, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_rows(engine, 3)
        engine._plans[0].session._plan._engine.spec["fail"] = ["execute_async_v3"]
        with (
            pytest.warns(RuntimeWarning, match="plain launches instead: the engine cannot be executed"),
            pytest.raises(QanetError, match=r"crops of 4 \(.*Error Code 1: execute_async_v3 went wrong"),
        ):
            assert_rows(engine, 3)
        assert not graphs.captures and not graphs.pending


def test_without_cuda_python_every_run_is_plain_and_it_is_said(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_rows(engine, 1)
        with pytest.warns(RuntimeWarning, match="plain launches instead: cuda-python is missing"):
            assert_rows(engine, 1)
        assert_rows(engine, 1)
        assert engine.graph_batches == ()


@pytest.mark.parametrize("capturable", [True, False])
def test_a_context_that_cannot_be_recorded_is_not(graphs, tmp_path, capturable):
    spec = {"profiles": STATIC, "inputs": ["crops"], "outputs": KERNEL_TAIL, "capturable": capturable}
    with engine_from_bundle(make_bundle(tmp_path, plan=json.dumps(spec).encode()), "fp16", KERNEL_TAIL) as engine:
        for _ in range(3):
            assert_rows(engine, 2)
        assert engine.graph_batches == ((2,) if capturable else ())
