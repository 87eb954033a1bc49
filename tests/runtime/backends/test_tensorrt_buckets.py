"""TensorRT: an engine built as a plan for each bucket runs every batch on the smallest that fits, opened on demand."""

import numpy as np
import pytest
from toy_engines import ALL_OUTPUTS, KERNEL_TAIL, assert_threads_take_turns, make_bundle, network, people
from toy_plans import BUCKETS, make_bundle_apart, plan_file, spec_of, watch_runs

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle

pytestmark = pytest.mark.filterwarnings("ignore:no CUDA graph:RuntimeWarning")


def assert_rows(engine, count, outputs=KERNEL_TAIL):
    crops, scores = people(count)
    got, expected = engine.run(crops, scores), network(crops, scores)
    assert tuple(got) == outputs
    for name in outputs:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize("outputs", [KERNEL_TAIL, ALL_OUTPUTS], ids=["kernel", "graph"])
@pytest.mark.parametrize(
    "count, ran",
    [
        (1, [(1, 1)]),
        (2, [(2, 2)]),
        (3, [(4, 4)]),
        (4, [(4, 4)]),
        (5, [(4, 4), (1, 1)]),
        (6, [(4, 4), (2, 2)]),
        (11, [(4, 4), (4, 4), (4, 4)]),
    ],
)
def test_a_batch_runs_on_the_smallest_bucket_that_fits(machine, tmp_path, monkeypatch, outputs, count, ran):
    runs = watch_runs(monkeypatch)
    with engine_from_bundle(make_bundle_apart(tmp_path, outputs=outputs), "fp16", outputs) as engine:
        assert engine.max_batch == 4
        assert_rows(engine, count, outputs)
        assert runs == ran


def test_buckets_that_are_no_powers_of_two_and_ranges_are_told_by_the_manifest(machine, tmp_path, monkeypatch):
    runs = watch_runs(monkeypatch)
    made = make_bundle_apart(tmp_path, buckets=(3, 6))
    plan = spec_of(16).replace(b"[[16, 16]]", b"[[1, 16]]")
    made.add_engine("engines/a.plan", plan, made.engines[0] | {"batches": [[1, 4, 16]]})
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        for count in (2, 5, 9, 20):
            assert_rows(engine, count)
    assert runs == [(3, 3), (6, 6), (16, 9), (16, 16), (6, 6)]


def test_a_plan_is_opened_by_its_first_batch_and_has_buffers_of_its_size(machine, tmp_path):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert engine.open_batches == (1,)
        sizes = [engine.gpu.pool.device_bytes]
        assert_rows(engine, 4)
        assert engine.open_batches == (1, 4)
        sizes.append(engine.gpu.pool.device_bytes)
        for count in (4, 1, 3, 8, 5):
            assert_rows(engine, count)
        assert engine.open_batches == (1, 4) and engine.gpu.pool.device_bytes == sizes[1]  # nothing grew
        engine.prepare(2)
        assert engine.open_batches == BUCKETS
        assert 0 < sizes[0] < sizes[1] < engine.gpu.pool.device_bytes
    assert not machine.memory


def test_every_bucket_becomes_a_graph_of_its_own(graphs, tmp_path):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        for count in (1, 3, 2, 4, 1, 2, 6):
            assert_rows(engine, count)
        assert engine.graph_batches == BUCKETS
    assert not graphs.captures


def test_threads_that_open_plans_take_turns(machine, tmp_path):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        assert_threads_take_turns(engine, (2, 4, 1, 7))


@pytest.mark.parametrize("call", ["create_execution_context", "set_tensor_address", "execute_async_v3"])
def test_a_bucket_that_fails_leaves_the_others(machine, tmp_path, call):
    with engine_from_bundle(make_bundle_apart(tmp_path, specs={4: {"fail": [call]}}), "fp16", KERNEL_TAIL) as engine:
        for _ in range(2):
            with pytest.raises(QanetError, match=f"Error Code 1: {call} went wrong"):
                engine.run(*people(3))
            assert machine.calls["push"] == machine.calls["pop"] and not machine.pending
            assert_rows(engine, 2)
        assert engine.open_batches == ((1, 2, 4) if call == "execute_async_v3" else (1, 2))


@pytest.mark.parametrize("allocations", range(6))
def test_memory_that_runs_out_names_the_bucket_and_its_next_batch_tries_again(machine, tmp_path, allocations):
    with engine_from_bundle(make_bundle_apart(tmp_path), "fp16", KERNEL_TAIL) as engine:
        machine.allocations_left = allocations
        with pytest.raises(QanetError, match="memory ran out while loading the engine for batches up to 4") as caught:
            engine.run(*people(4))
        assert "--max-batch" in caught.value.next_command and engine.open_batches == (1,)
        assert_rows(engine, 1)
        machine.allocations_left = 1000
        assert_rows(engine, 4)


def test_the_smallest_bucket_that_cannot_be_opened_is_told_while_loading(machine, tmp_path):
    made = make_bundle_apart(tmp_path)
    made.add_file(plan_file(1), b"not a plan")
    with pytest.raises(QanetError, match="refuses the engine file"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)


@pytest.mark.parametrize("count", [0, 5])
def test_no_plan_is_prepared_for_a_batch_that_none_takes(machine, tmp_path, count):
    made = make_bundle_apart(tmp_path)
    with engine_from_bundle(made, "fp16") as engine, pytest.raises(QanetError, match="1 to 4 crops"):
        engine.prepare(count)
    with pytest.raises(QanetError, match="the engine is closed"):
        engine.prepare(1)


def test_a_plan_that_was_built_anew_is_not_mixed_with_the_old_ones(machine, tmp_path):
    make_bundle_apart(tmp_path).save()
    from qanet.bundle import open_bundle

    with engine_from_bundle(open_bundle(tmp_path / "toy.qanet"), "fp16", KERNEL_TAIL) as engine:
        make_bundle_apart(tmp_path, specs={4: {"half": ["logits"]}}).save()
        assert_rows(engine, 1)
        with pytest.raises(QanetError, match="toy was built again since it was opened .*load it again"):
            engine.run(*people(3))
        assert_rows(engine, 2)  # this one is as it was


def test_plans_of_another_build_and_plans_without_weights_are_left_out(machine, tmp_path, monkeypatch):
    runs = watch_runs(monkeypatch)
    made = make_bundle_apart(tmp_path, buckets=(1, 2, 4, 8))
    for entry, change in zip(made.engines[1:], ({"targets": ["sm_86", "sm_87"]}, {"stripped": True}, {})):
        entry |= change
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        assert engine.max_batch == 8
        assert_rows(engine, 2)
    assert runs == [(8, 8)]


def test_a_manifest_that_is_wrong_about_batches_is_told(machine, tmp_path):
    made = make_bundle_apart(tmp_path)
    made.engines[2]["batches"] = [[8, 8, 8]]
    with engine_from_bundle(made, "fp16", KERNEL_TAIL) as engine:
        with pytest.raises(QanetError, match=r"toy.b4.plan takes other batches .*expected \(\(8, 8\),\), got \(\(4, 4"):
            engine.run(*people(3))
        assert engine.open_batches == (1,)
    made.engines[0]["batches"] = [1, 2]
    with pytest.raises(QanetError, match="bad batches of engines/toy.b1.plan in the manifest"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)


def test_one_plan_of_several_is_an_engine_too(machine, tmp_path):
    """As `qanet build --verify` opens each before it is kept."""
    with engine_from_bundle(make_bundle_apart(tmp_path, buckets=(2,)), "fp16", KERNEL_TAIL) as engine:
        assert engine.max_batch == 2
        for count in (1, 2, 3):
            assert_rows(engine, count)
    with engine_from_bundle(make_bundle(tmp_path, profiles=[(4, 4)]), "fp16") as engine:  # the manifest tells nothing
        assert engine.max_batch == 4 and engine.open_batches == (4,)
