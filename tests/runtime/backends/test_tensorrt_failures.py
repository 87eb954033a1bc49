"""TensorRT: what fails is named and undone, and an engine that ends gives everything back."""

import gc

import pytest
from toy_engines import HEIGHT, KERNEL_TAIL, WIDTH, make_bundle, people

from qanet.errors import QanetError
from qanet.runtime.backends.tensorrt.engine import engine_from_bundle


@pytest.mark.parametrize(
    "call, words",
    [
        ("create_execution_context", "no execution context for batches up to 1"),
        ("set_optimization_profile_async", "optimisation profile 0, for batches up to 1, cannot be chosen"),
        ("set_input_shape", "input crops does not take the shape (1, 8, 6, 3)"),
        ("set_tensor_address", "does not take the address of crops"),
    ],
)
def test_a_step_that_fails_while_loading_is_named_and_undone(machine, tmp_path, call, words):
    with pytest.raises(QanetError) as caught:
        engine_from_bundle(make_bundle(tmp_path, fail=[call]), "fp16", KERNEL_TAIL)
    assert words in str(caught.value) and f"Error Code 1: {call} went wrong" in str(caught.value)


def test_a_plan_the_library_refuses_is_told_in_its_words(machine, tmp_path):
    with pytest.raises(QanetError, match=r"tensorrt refuses the engine file \(.*stdVersionRead"):
        engine_from_bundle(make_bundle(tmp_path, plan=b"not a plan"), "fp16", KERNEL_TAIL)


def test_an_engine_of_another_crop_size_is_refused(machine, tmp_path):
    made = make_bundle(tmp_path)
    made.manifest["input_hw"] = [HEIGHT, WIDTH + 2]
    with pytest.raises(QanetError, match=r"crops of another size \(expected \(8, 8, 3\), got \(8, 6, 3\)\)"):
        engine_from_bundle(made, "fp16", KERNEL_TAIL)


@pytest.mark.parametrize("allocations", range(6))
def test_memory_that_runs_out_while_loading_is_given_back(machine, tmp_path, allocations):
    machine.allocations_left = allocations
    with pytest.raises(QanetError, match="GPU memory ran out while loading the engine"):
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)


def test_an_execution_that_fails_is_told_and_leaves_nothing_in_flight(machine, tmp_path):
    with engine_from_bundle(make_bundle(tmp_path, fail=["execute_async_v3"]), "fp16", KERNEL_TAIL) as engine:
        for _ in range(2):
            with pytest.raises(QanetError, match=r"crops of 4 \(.*Error Code 1: execute_async_v3 went wrong"):
                engine.run(*people(3))
            assert machine.calls["push"] == machine.calls["pop"] and not machine.pending


def test_a_kernel_that_fails_is_an_error_of_the_batch_and_frees_all_the_same(machine, tmp_path):
    with (
        pytest.raises(QanetError, match="CUDA failed while running a batch of 2 .*illegal memory access"),
        engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL) as engine,
    ):
        machine.sync_error = "cuStreamSynchronize failed: an illegal memory access was encountered"
        engine.run(*people(2))


def test_closing_twice_is_fine_and_running_afterwards_is_not(machine, tmp_path):
    engine = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)
    assert not machine.calls["free"]
    engine.close()
    engine.close()
    assert not machine.memory
    with pytest.raises(QanetError, match="the engine is closed"):
        engine.run(*people(1))


def test_a_forgotten_engine_is_closed_when_it_is_collected(machine, tmp_path):
    engine = engine_from_bundle(make_bundle(tmp_path), "fp16", KERNEL_TAIL)
    engine.run(*people(1))
    del engine
    gc.collect()
    assert not machine.memory
